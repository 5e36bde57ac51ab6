"""The documentation as text: pages, code in them, links, tables."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("agents", "broker", "economics", "federation", "hanse")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block and its language."""

    page: Path
    language: str
    text: str


def pages() -> list[Path]:
    """Every page that a reader may open."""
    top = [ROOT / n for n in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    return [*top, *sorted(DOCS.rglob("*.md"))]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    return [Block(page, m[1], m[2]) for m in FENCE.finditer(page.read_text())]


def code(page: Path) -> Iterator[str]:
    """Every line of a fenced block and every inline span."""
    for block in blocks(page):
        yield from block.text.splitlines()
    yield from SPAN.findall(FENCE.sub("", page.read_text()))


def tables(page: Path) -> list[list[dict[str, str]]]:
    """Every table as rows keyed by their column's header."""
    found: list[list[dict[str, str]]] = []
    header: list[str] = []
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
            found.append([])
        elif set(line) - set("|- "):
            found[-1].append(dict(zip(header, cells, strict=True)))
    return found


def sources() -> str:
    """The text of all our packages, and of the compose file."""
    files = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py")]
    return "\n".join(p.read_text() for p in [*files, ROOT / "docker-compose.yml"])


def generator(name: str) -> ModuleType:
    """One of the scripts in `docs/`, loaded by its path."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
