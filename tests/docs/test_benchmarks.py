"""The page on benchmarks has every command, flag and default, and the keys that are printed."""

import argparse
import importlib
import json
import re
import subprocess
import sys

import pytest

from tests.docs.reading import DOCS, ROOT, tables

PAGE = DOCS / "reference" / "benchmarks.md"
SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "bench").glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)


class Asked(Exception):
    """The command has said which flags it takes."""


def rows(name, first):
    """Rows of the tables in a command's section whose first column has this title."""
    section = PAGE.read_text().partition(f"\n## bench.{name}\n")[2].partition("\n## ")[0]
    header = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif header[0] == first and set(line) - set("|- "):
            yield dict(zip(header, cells, strict=True))


def keys(name):
    return {key for row in rows(name, "Key") for key in re.findall(r"`([\w-]+)`", row["Key"])}


def test_every_command_has_its_row_and_its_section():
    commands = {row["Command"].strip("`") for row in tables(PAGE)[0]}
    assert commands == {f"python -m bench.{name}" for name in SCRIPTS}
    assert set(re.findall(r"^## bench\.(\w+)$", PAGE.read_text(), re.MULTILINE)) == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_flags_and_defaults_are_those_of_the_command(name, monkeypatch):
    flags = {}

    def told(parser, *_):
        flags.update({a.option_strings[-1]: a.default for a in parser._actions if a.dest != "help"})
        raise Asked

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", told)
    with pytest.raises(Asked):
        importlib.import_module(f"bench.{name}").main()
    on_page = {row["Flag"].strip("`"): row.get("Default", "") for row in rows(name, "Flag")}
    assert on_page == {flag: shown(default) for flag, default in flags.items()}


def shown(default):
    """A default as the page writes it; a switch has none."""
    if isinstance(default, list):
        return " ".join(map(str, default))
    return "" if isinstance(default, bool) or default is None else str(default)


def printed(*words):
    """Keys of the JSON object on the last line."""
    done = subprocess.run(
        [sys.executable, "-m", *words, "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_keys_of_clearing_are_those_it_prints():
    tiny = ("bench.clearing", "--jobs", "300", "--columns", "5", "--groups", "3", "--repeats", "1")
    assert keys("clearing") == printed(*tiny, "--churn", "--peers") | printed(*tiny, "--gangs")


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "clearing"])
def test_keys_of_the_others_stand_in_their_source(name):
    """They need servers, traces or minutes."""
    own = (ROOT / "bench" / f"{name}.py").read_text()
    parts = {"support", *re.findall(r"^from bench\.(\w+) import", own, re.MULTILINE)}
    source = own + "".join((ROOT / "bench" / f"{part}.py").read_text() for part in parts)
    assert len(keys(name)) > 3
    for key in keys(name):
        written = key.replace("_N", "_{processes}")
        assert re.search(rf"(?<!\w){re.escape(written)}(?!\w)", source), key
