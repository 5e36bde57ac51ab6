"""Each thing that the glossary, the architecture and the decisions name in the code is there."""

import importlib
import re

import pytest

from federation import models
from tests.docs.reading import DOCS, PACKAGES, ROOT, code, named, pages, tables

ROWS = tables(DOCS / "glossary.md")[0]
DOTTED = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
STEPS = tables(ROOT / "ARCHITECTURE.md")[1]


def found(name):
    """The module, class, function or field of this dotted name; AttributeError when absent."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing
    raise AttributeError(name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["Term"])
def test_a_term_names_something_in_the_code(row):
    names = re.findall(r"`([\w.]+)`", row["In code"])
    assert names, "every term has its place in the code"
    for name in names:
        head, _, field = name.partition(".")
        if head in PACKAGES:
            assert found(name) is not None
            continue
        model = getattr(models, head)
        if field:
            assert field in {f.name for f in model._meta.get_fields()}


def test_no_term_stands_twice():
    terms = [row["Term"] for row in ROWS]
    assert len(terms) == len(set(terms))


def dotted(page):
    """Names such as `federation.money.MICRO`, without files, entry points and settings modules."""
    for span in code(page):
        if not DOTTED.fullmatch(span) or span.endswith((".py", ".toml", ".txt")):
            continue
        if span != "hanse.commands" and "settings" not in span:
            yield span


@pytest.mark.parametrize("page", pages(), ids=named)
def test_dotted_names_in_the_pages_exist(page):
    for name in dotted(page):
        assert found(name) is not None


def test_settings_modules_exist():
    text = "\n".join(page.read_text() for page in pages())
    for name in set(re.findall(r"broker\.settings\.(\w+)", text)):
        assert (ROOT / "broker" / "settings" / f"{name}.py").is_file()


@pytest.mark.parametrize("row", STEPS, ids=lambda row: row["Step"])
def test_each_step_of_the_route_names_functions_that_exist(row):
    text = "\n".join(p.read_text() for n in PACKAGES for p in (ROOT / n).rglob("*.py"))
    for span in re.findall(r"`([^`]+)`", row["Where"]):
        last = span.rpartition(".")[2]
        assert f"def {last}(" in text or found(span) is not None, span


FILE = re.compile(r"[\w-][\w.-]*/[\w./-]*(?:\.(?:py|service|md|json|txt|toml|yml)|file|/)")


def test_files_named_in_the_pages_exist():
    for page in pages():
        for span in code(page):
            if FILE.fullmatch(span) and "*" not in span:
                found_at = [root for root in (ROOT, ROOT / "agents") if (root / span).exists()]
                assert found_at, f"{named(page)}: {span}"
