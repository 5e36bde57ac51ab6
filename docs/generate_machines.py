"""Write docs/reference/state-machines.md from the transition tables.

Run it after a change to `federation/machines`: `python docs/generate_machines.py`. A test asserts
that the committed page is what this script writes.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "state-machines.md"

INTRODUCTION = """# State machines

This page is written by `docs/generate_machines.py` from the tables in `federation/machines`. Do not
edit it by hand.

A row moves only by an event that its table knows, in one conditional update, which
`federation.services.story.move` makes. Any other pair of state and event raises
`InvalidTransition`. Each move that changes a state writes an `Event`, and the events of one object
are its story. An event on an arrow back to the same state renews facts without a change of state.

*Live* states still hold or may get something. *Final* states have no way out.
"""


def machine_modules() -> list[ModuleType]:
    """The modules that hold a machine, in the order of the life of a trade."""
    from federation.machines import contract, job, lease, offer, round, site  # noqa: PLC0415

    return [site, offer, job, round, lease, contract]


def comments(module: ModuleType) -> dict[str, str]:
    """State -> the sentence behind its `#:` in the source."""
    source = inspect.getsource(module)
    lines = source.splitlines()
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            _, mark, words = lines[node.lineno - 1].partition("#:")
            if mark and isinstance(node.value.value, str):
                found[node.value.value] = words.strip()
    return found


def arrows(machine: Any) -> list[str]:
    """One arrow for each pair of states, with all the events that take it."""
    events: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (before, event), after in machine.transitions.items():
        events[before.value, after.value].append(event)
    return [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in events.items()]


def diagram(machine: Any) -> str:
    """A mermaid state diagram; every state named, initial and final ones marked."""
    reached = {after for (before, _), after in machine.transitions.items() if before != after}
    first = next(iter(machine.states))
    starts = [s for s in machine.states if s == first or s not in reached]
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {state.value}" for state in starts]
    lines += arrows(machine)
    lines += [f"    {s.value} --> [*]" for s in machine.states if s in machine.final]
    return "\n".join([*lines, "```"])


def section(module: ModuleType) -> str:
    """One machine: what it is, its diagram, its states."""
    machine = module.MACHINE
    said = comments(module)
    title = machine.name.capitalize()
    first = (module.__doc__ or "").strip().splitlines()[0]
    rows = ["| State | Meaning | Live | Final |", "| --- | --- | --- | --- |"]
    for state in machine.states:
        live = "yes" if state in machine.live else ""
        final = "yes" if state in machine.final else ""
        rows.append(f"| `{state.value}` | {said.get(state.value, '')} | {live} | {final} |")
    return "\n\n".join([f"## {title}", first, diagram(machine), "\n".join(rows)])


def text() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, "\n\n".join(section(m) for m in machine_modules()), ""])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} written\n")
