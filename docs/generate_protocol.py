"""Write docs/reference/protocol.md from the dataclasses of `agents/protocol.py`.

Run it after a change to the protocol: `python docs/generate_protocol.py`. A test asserts that the
committed page is what this script writes.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "protocol.md"

INTRODUCTION = """# Agent protocol

This page is written by `docs/generate_protocol.py` from `agents/protocol.py`. Do not edit it by
hand.

The agent calls the broker; the broker never calls a site. Bodies are JSON objects with exactly
these fields: an unknown field, a wrong type, a number that is not finite or a text with a NUL is
refused with status 422 and the path of the field. A field with a default may be left out.

Units: seconds, samples, GPUs, credits as decimal text, times as RFC 3339 text.

| Call | Path | Body | Answer | Authentication |
| --- | --- | --- | --- | --- |
| join | `POST {join}` | `JoinRequest` | `JoinReply` | the one-time token in the body |
| sync | `POST {sync}` | `SyncRequest` | `SyncReply` | `Authorization: Bearer` credential |
| reports | `POST {reports}` | `ReportBatch` | `ReportReply` | `Authorization: Bearer` credential |
| rotate | `POST {rotate}` | none | `RotateReply` | `Authorization: Bearer` credential |

The version is `{version}`. A message with another version is refused with 409 and the code
`protocol_mismatch`.

A sync carries the whole state of the site up and the whole wish of the broker down. So a lost
message costs one period and never a decision. The broker may hold a sync open for up to `wait_s`
while the orders are the ones that the agent has seen.

Fields that came after the first release are left out while they are empty: `measurement`, what a
pool says of its GPUs, `policy`, `plan`, `tenant`, and the `code` of an end. So an offer that says
nothing of its GPUs and has no policy has the digest that it always had. Upgrade the broker before
its agents; an older broker refuses a field that it does not know. The other way round there is no
order to keep: an agent names in the label of its `agent_version` (`{told}`) what it reads of such
fields, and the broker sends the others nothing of them. A broker that names the `tenant` of a lease
reads the `code` of its end; the agent sends it to no other.

A report is known by its `attempt` and `seq`. A replay is accepted again and changes nothing. The
agent keeps a report in its journal until a `Receipt` for it came back.

Limits: {max_reports} reports in one batch, {max_log} bytes of log in one report (before base64),
{max_text} characters in a text, {max_command} characters in a command.
"""


def tables() -> list[str]:
    """One section for each enumeration and each message, in the order of the module."""
    from agents import protocol  # noqa: PLC0415 - a script sets the path first

    source = inspect.getsource(protocol)
    lines = source.splitlines()
    return [
        _section(node, lines)
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name != "BadMessage"
    ]


def _section(node: ast.ClassDef, lines: list[str]) -> str:
    enumeration = any(isinstance(base, ast.Name) and base.id == "StrEnum" for base in node.bases)
    said = " ".join((ast.get_docstring(node) or "").split())
    rows = [_value(s, lines) for s in node.body if isinstance(s, ast.Assign)]
    head = ["| Value | Meaning |", "| --- | --- |"]
    if not enumeration:
        rows = [_field(s, lines) for s in node.body if isinstance(s, ast.AnnAssign)]
        head = ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    parts = [f"## {node.name}", said, "\n".join([*head, *rows])]
    return "\n\n".join(part for part in parts if part)


def _value(node: ast.Assign, lines: list[str]) -> str:
    return f"| `{ast.literal_eval(node.value)}` | {_comment(node, lines)} |"


def _field(node: ast.AnnAssign, lines: list[str]) -> str:
    kind = ast.unparse(node.annotation).replace("|", "\\|")
    default = _default(node.value) if node.value is not None else ""
    return f"| `{ast.unparse(node.target)}` | `{kind}` | {default} | {_comment(node, lines)} |"


def _default(value: Any) -> str:
    if isinstance(value, ast.Call):
        value = next(k.value for k in value.keywords if k.arg == "default")
    written = ast.literal_eval(value)
    return f"`{written}`" if written != "" else "empty"


def _comment(node: ast.stmt, lines: list[str]) -> str:
    _, mark, words = lines[(node.end_lineno or node.lineno) - 1].partition("#:")
    return words.strip().replace("|", "\\|") if mark else ""


def text() -> str:
    """The whole page."""
    from agents import protocol  # noqa: PLC0415 - a script sets the path first

    introduction = INTRODUCTION.format(
        join=protocol.JOIN_PATH,
        sync=protocol.SYNC_PATH,
        reports=protocol.REPORTS_PATH,
        rotate=protocol.ROTATE_PATH,
        version=protocol.PROTOCOL,
        told=protocol.told_version("0.1.0"),
        max_reports=protocol.MAX_REPORTS,
        max_log=protocol.MAX_LOG_CHUNK,
        max_text=protocol.MAX_TEXT,
        max_command=protocol.MAX_COMMAND,
    )
    return "\n".join([introduction, "\n\n".join(tables()), ""])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} written\n")
