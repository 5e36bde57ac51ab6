"""The agent stands alone: the base install and nothing of the broker's."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import agents

ALLOWED = {"agents", "httpx", "typer", "rich", "yaml"} | set(sys.stdlib_module_names)
EXTRA = {"prometheus_client": "metrics"}  #: library of an extra -> the one package that loads it
ROOT = Path(agents.__file__).parent


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_imports() -> None:
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).parts[0]
        extra = {library for library, package in EXTRA.items() if package == here}
        assert imported(path) <= ALLOWED | extra, path


def test_the_agent_starts_without_its_extras() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = sys.modules['pynvml'] = None;"
        "import agents.cli, agents.service; sys.stdout.write('fine')"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, check=True, text=True, cwd=ROOT.parent)
    assert done.stdout == "fine"


def test_the_guard_and_the_wire_need_the_standard_library_only() -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1]);"
        "import agents.drivers.guard, agents.protocol; sys.stdout.write('fine')"
    )
    words = [sys.executable, "-I", "-S", "-c", code, str(ROOT.parent)]
    done = subprocess.run(words, capture_output=True, check=True, text=True)
    assert done.stdout == "fine"


def test_files_stay_small() -> None:
    for path in [*ROOT.rglob("*.py"), *Path(__file__).parent.glob("*.py")]:
        assert len(path.read_text().splitlines()) <= 600, path
