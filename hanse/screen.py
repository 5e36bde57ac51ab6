"""What the command prints: tables for people, the API's own answer for machines.

Names and sentences come from other members of the federation, so nothing reaches the terminal
with its control characters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 1000  # characters in a row of a table
SHORT_ID = 13  # of a UUID: its time to the millisecond in version 7; enough to name the job


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


def plain(value: object) -> str:
    """A value as harmless text; '' for None."""
    if value is None:
        return ""
    text = str(value)
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def complain(sentence: str) -> None:
    """One line on standard error."""
    sys.stderr.write(plain(sentence).replace("\n", " ") + "\n")


def say(sentence: str) -> None:
    sys.stdout.write(plain(sentence) + "\n")


def show_json(answer: Any) -> None:
    """Indented for a person at a terminal, one line for a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(answer, indent=indent) + "\n")


def show_table(
    columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[object]], *, empty: str
) -> None:
    """`columns` are (header with its unit, whether it holds numbers)."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header, numeric in columns:
        table.add_column(header, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    if not table.row_count:
        say(empty)
        return
    # Never narrower than its content: a cut id or price is worse than a line that wraps.
    Console(highlight=False, width=WIDEST).print(table)


def short_id(job_id: str) -> str:
    """Whole in a pipe, where a script reads it; its beginning, which names it too, for a person."""
    return job_id[:SHORT_ID] if sys.stdout.isatty() else job_id


def number(value: Any, digits: int = 0) -> str:
    """Numbers with thousands separators; '-' for what is not known."""
    if value is None or value == "":
        return "-"
    try:
        return f"{float(value):,.{digits}f}"
    except (TypeError, ValueError):
        return plain(value)


def moment(value: Any) -> str:
    """RFC 3339 to the second, without its T: 2026-12-01 12:00:00Z."""
    if not value:
        return "-"
    text = plain(value).replace("T", " ", 1).replace("+00:00", "Z")
    head, point, tail = text.partition(".")
    return head + ("Z" if tail.endswith("Z") else "") if point else text
