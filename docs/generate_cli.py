"""Write docs/reference/cli.md from the commands themselves.

Run it after a change to a command: `python docs/generate_cli.py`. A test asserts that the committed
page is what this script writes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "cli.md"

INTRODUCTION = """# Command line

This page is written by `docs/generate_cli.py` from the commands. Do not edit it by hand.

One command, `hanse`. The base install brings the tenants' verbs and `hanse agent`; the rest comes
with `hanse[broker]`. What was asked for goes to standard output, all else to standard error. Every
command takes `--help`.

| Exit code | Meaning |
| --- | --- |
| 0 | done |
| 1 | refused or failed; `hanse market verify`: a check does not hold |
| 2 | the command line, a job file, a book or an agent's configuration is wrong |
| 3 | `hanse agent`: the site has not joined, or the broker refused it |
| 4 | `hanse agent`: the broker speaks another version of the protocol |

`hanse submit --wait` ends with the exit code of the first job that did not succeed.

Tenants' verbs use the login that `hanse login` stored, or `HANSE_URL` and `HANSE_TOKEN`. Commands
that run or furnish a federation work on the database of `HANSE_HOME`, `.hanse/up` in the current
folder by default, or of the settings that `DJANGO_SETTINGS_MODULE` names.

`hanse market` passes its arguments on to `python -m economics`:
`clear BOOK.json [-o CLEARING.json]` and `verify BOOK.json CLEARING.json`.
"""


def commands() -> dict[str, Any]:
    """Full name such as `hanse agent run` -> the command; groups are left out."""
    from typer.main import get_group  # noqa: PLC0415 - a script sets the path first

    from agents.cli import app as agent  # noqa: PLC0415
    from broker.commands import app as broker  # noqa: PLC0415
    from hanse.cli import BROKER_COMMANDS, app  # noqa: PLC0415

    found = {n: c for n, c in get_group(app).commands.items() if not c.hidden}
    served = get_group(broker).commands
    found |= {name: served[name] for name in BROKER_COMMANDS}
    found["agent"] = get_group(agent)
    return dict(_flat("hanse", found))


def _flat(prefix: str, found: dict[str, Any]) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, command in found.items():
        below = getattr(command, "commands", None)
        flat += _flat(f"{prefix} {name}", below) if below else [(f"{prefix} {name}", command)]
    return flat


def section(name: str, command: Any) -> str:
    """One command: its sentence, how it is called, its options."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    call = " ".join([name, *(_argument(p) for p in arguments), *(["[OPTIONS]"] * bool(options))])
    parts = [f"## {name}", " ".join((command.help or "").split()), f"```\n{call}\n```"]
    rows = [_row(p) for p in (*arguments, *options) if _row(p)]
    if rows:
        table = ["| Name | Meaning | Default |", "| --- | --- | --- |", *rows]
        parts.append("\n".join(table))
    return "\n\n".join(parts)


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper()).strip("[]")
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    said = " ".join((getattr(parameter, "help", None) or "").split())
    if parameter.param_type_name == "argument":
        return f"| `{_argument(parameter)}` | {said} | {_default(parameter)} |" if said else ""
    names = ", ".join(f"`{n}`" for n in (*parameter.opts, *parameter.secondary_opts))
    need = "required" if parameter.required else _default(parameter)
    return f"| {names} | {said} | {need} |"


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or value in ("", [], ()) or callable(value):
        return ""
    if type(value).__name__ == "Sentinel":
        return ""
    return f"`{getattr(value, 'value', value)}`"


def text() -> str:
    """The whole page."""
    found = commands()
    return "\n".join([INTRODUCTION, "\n\n".join(section(n, c) for n, c in found.items()), ""])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} written\n")
