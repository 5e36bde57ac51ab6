"""Pages: the README's first lines, links, decisions, and what a page must not name."""

import re
from pathlib import Path

import pytest

from tests.docs.reading import DOCS, FENCE, ROOT, blocks, named, pages

LINK = re.compile(r"\]\(([^)\s]+)\)")
SECTIONS = ("Context", "Decision", "Consequences", "Alternatives")
ADRS = sorted((DOCS / "adr").glob("[0-9]*.md"))
HOSTS = {"broker.example.org", "db.example.org", "queue.example.org", "127.0.0.1", "host"}


def test_readme_opens_with_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines[:6] == ["# Hanse", "", "```", "make demo", "make test", "```"]


def anchors(text):
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=named)
def test_relative_links_resolve(page):
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        assert not link.startswith(("http:", "https:")), f"{link} leaves the repository"
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{link} has no such section"


def test_every_page_can_be_reached_from_the_index():
    seen, todo = set(), [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = LINK.findall(page.read_text())
        todo += [(page.parent / link.partition("#")[0]).resolve() for link in links]
    assert set(DOCS.rglob("*.md")) <= seen


@pytest.mark.parametrize("adr", ADRS, ids=lambda path: path.stem)
def test_a_decision_has_its_four_sections(adr):
    parts = re.split(r"^## (\w+)\n", adr.read_text(), flags=re.MULTILINE)
    assert tuple(parts[1::2]) == SECTIONS
    assert all(len(text.split()) >= 15 for text in parts[2::2])
    assert len(adr.read_text().split()) < 700, "longer than a page"


def test_decisions_are_numbered_without_gaps_and_listed():
    assert [int(adr.name[:4]) for adr in ADRS] == list(range(1, len(ADRS) + 1))
    index = (DOCS / "adr" / "README.md").read_text()
    for adr in ADRS:
        title = adr.read_text().splitlines()[0]
        assert title.startswith(f"# {adr.name[:4]}. ")
        assert f"]({adr.name})" in index


@pytest.mark.parametrize("page", pages(), ids=named)
def test_a_page_names_no_machine_of_ours(page):
    text = page.read_text()
    assert f"{ROOT}/" not in text
    home = Path.home()
    assert home == Path("/") or f"{home}/" not in text
    for host in re.findall(r"(?:https?|postgres|redis)://(?:[^@\s/`]+@)?([\w.-]+)", text):
        assert host in HOSTS, f"{host} is not an example"


@pytest.mark.parametrize("page", pages(), ids=named)
def test_blocks_are_closed_and_diagrams_have_a_known_kind(page):
    assert page.read_text().count("\n```") % 2 == 0
    for block in blocks(page):
        if block.language == "mermaid":
            assert block.text.startswith(("flowchart", "stateDiagram-v2"))
