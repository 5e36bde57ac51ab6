"""Every target, setting, command, address and code that a page names exists."""

import re
import uuid

import pytest
from django.conf import settings
from django.urls import Resolver404, get_resolver, resolve
from rest_framework import exceptions

from economics.certificate import verify
from federation.models import Account, EntryGroup
from tests.docs.reading import DOCS, ROOT, code, generator, named, pages, sources, tables
from tests.docs.worked_example import BOOK, cleared

SETTING = re.compile(r"HANSE_[A-Z_]*[A-Z]")
SPOKEN = re.compile(r"(?<![\w./$-])hanse ([a-z-][^`|&;<>)#\]]*)")
ADDRESS = re.compile(r"(?<![\w.])/(?:api|gateway|console|admin|static|healthz|readyz)\b[\w{}/.-]*")
PASSED_ON = {"hanse market"}  #: commands that hand their arguments to another programme


def test_make_targets_exist():
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named_targets = {
        target
        for page in pages()
        for line in code(page)
        for target in re.findall(r"\bmake ([a-z][a-z-]*)", line)
    }
    assert {"demo", "test", "setup", "run", "check"} <= named_targets <= made


def test_settings_exist():
    benches = [path.read_text() for path in (ROOT / "bench").glob("*.py")]
    known = set(SETTING.findall("\n".join([sources(), *benches])))
    for page in pages():
        strange = set(SETTING.findall(page.read_text())) - known
        assert not strange, f"{named(page)} names {strange}"


def test_every_setting_is_in_the_reference():
    missing = set(SETTING.findall(sources())) - set(
        SETTING.findall((DOCS / "reference" / "settings.md").read_text())
    )
    assert not missing


def test_settings_have_the_defaults_of_the_code():
    source = (ROOT / "broker" / "settings" / "base.py").read_text()
    defaults = dict(re.findall(r'env[.\w]*\("(HANSE_\w+)", default="?([\w./*]+)"?\)', source))
    rows = {r["Variable"]: r["Default"] for t in tables(DOCS / "reference/settings.md") for r in t
            if "Default" in r}  # fmt: skip
    for name in ("HANSE_TICK_S", "HANSE_PULSE_GAP_S", "HANSE_JOIN_TOKEN_TTL_S", "HANSE_LOG_LEVEL",
                 "HANSE_RATE_ANON", "HANSE_RATE_USER"):  # fmt: skip
        assert rows[f"`{name}`"] == f"`{defaults[name]}`"
    assert rows["`HANSE_LOG_CAP_BYTES`"] == f"`{settings.LOG_CAP_BYTES}`"


def spoken():
    """(page, words) of every `hanse …` in code."""
    for page in pages():
        if page.name != "cli.md":
            for line in code(page):
                for rest in SPOKEN.findall(line):
                    yield page, rest


def test_commands_and_their_options_exist():
    known = generator("generate_cli").commands()
    seen = set()
    for page, rest in spoken():
        words = re.sub(r'"[^"]*"?', "TEXT", rest.replace("…", "")).split()
        name = "hanse"
        while words and any(f"{k} ".startswith(f"{name} {words[0]} ") for k in known):
            name = f"{name} {words.pop(0)}"
        if not words and any(k.startswith(f"{name} ") for k in known):
            continue  # a group, named as a whole
        if words[:1] == ["--help"]:
            continue
        assert name in known, f"{named(page)}: hanse {rest}"
        seen.add(name)
        if name in PASSED_ON:
            continue
        options = {o for p in known[name].params for o in (*p.opts, *p.secondary_opts)}
        strange = {w for w in words if w.startswith("-") and w != "-"} - options - {"--help"}
        assert not strange, f"{named(page)}: hanse {rest}"
    assert len(seen) > 20


def routes(patterns=None, prefix="/"):
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        here = prefix + str(entry.pattern)
        if hasattr(entry, "url_patterns"):
            yield from routes(entry.url_patterns, here)
        else:
            yield here


def exists(address, known):
    filled = address.replace("{id}", str(uuid.uuid4())).replace("{number}", "1")
    filled = filled.replace("NUMBER", "1").replace("{name}", "alder")
    try:
        resolve(filled)
    except Resolver404:
        return filled == f"/{settings.STATIC_URL.strip('/')}/" or any(
            route.startswith(filled) for route in known
        )
    return True


@pytest.mark.parametrize("page", pages(), ids=named)
def test_addresses_exist(page):
    known = list(routes())
    for line in code(page):
        for address in ADDRESS.findall(line):
            assert exists(address.rstrip("."), known), f"{address} in {line}"


def test_every_call_of_the_api_is_in_the_reference():
    page = (DOCS / "reference" / "api.md").read_text()
    for route in set(routes()):
        if route.startswith("/api/v1/"):
            plain = re.sub(r"<(?:int|str):(\w+)>", r"{\1}", re.sub(r"<uuid:pk>", "{id}", route))
            assert f"{plain}`" in page, plain


def test_codes_of_refusals_exist():
    ours = sources()
    stock = {
        kind.default_code
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, exceptions.APIException)
    }
    for table in tables(DOCS / "reference" / "api.md"):
        for row in table:
            for word in re.findall(r"`([a-z_0-9]+)`", row.get("Code", "")):
                assert f'"{word}"' in ours or word in stock or word == "exit_0", word


def test_every_code_of_a_refusal_is_in_the_reference():
    page = (DOCS / "reference" / "api.md").read_text()
    raised = set(re.findall(r'problem_response\(\s*\d+, "(\w+)"', sources()))
    assert raised
    assert {word for word in raised if f"`{word}`" not in page} == set()


def test_ledger_kinds_are_those_of_the_models():
    accounts, groups = tables(DOCS / "reference" / "ledger.md")[:2]
    assert {row["Kind"].strip("`") for row in accounts} == set(Account.Kind.values)
    assert {row["Kind"].strip("`") for row in groups} == set(EntryGroup.Kind.values)


def test_the_checks_of_a_certificate_are_all_explained():
    page = DOCS / "howto" / "re-check-a-round.md"
    said = {w for t in tables(page) for row in t for w in re.findall(r"`(\w+)`", row["Check"])}
    assert {check.check for check in verify(BOOK, cleared())} == said
