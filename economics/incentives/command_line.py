"""`python -m economics join | leave | best-response | misreport`: what taking part is worth.

Each prints a `hanse.incentives/1` document. Several books are the rounds of one trace; of a single
book the jobs are drawn again, and the document says which.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from economics.errors import BadBook, Problem

Read = Callable[[Path], object]
Put = Callable[[object, Path | None], None]
DRAWS = {"help": "of the bootstrap behind the intervals", "metavar": "N", "type": int}


@dataclass(frozen=True, slots=True)
class Files:
    """How documents come in and go out."""

    read: Read
    put: Put


def add_commands(commands: Any) -> None:
    """The four commands, for the parser of `python -m economics`."""
    join = _books(commands.add_parser("join", help="what a site gains by taking part"))
    join.add_argument("--site", required=True, metavar="NAME")
    join.add_argument("--alpha", metavar="SHARE", type=float, default=0.5, help="default: 0.5")
    join.add_argument(
        "--joining-cost", metavar="CREDITS", type=float, default=0.0, help="of a round"
    )
    join.add_argument(
        "--penalties", metavar="CREDITS", type=float, default=0.0, help="expected in a round"
    )
    join.add_argument(
        "--sensitivity", action="store_true", help="also turn speeds, transfer, reserve and load"
    )
    join.add_argument(
        "--partners",
        metavar="N",
        type=int,
        default=0,
        help="draw so many partners around the books' own sites",
    )
    join.add_argument(
        "--sigma", metavar="X", type=float, default=0.5, help="spread of the partners' log-speeds"
    )
    left = _books(commands.add_parser("leave", help="what changes when a site leaves, for each"))
    response = commands.add_parser("best-response", help="what sites would do next")
    response.add_argument("book", metavar="BOOK.json", type=Path)
    response.add_argument("--sweeps", metavar="N", type=int, default=12, help="default: 12")
    response.add_argument("--seed", metavar="N", type=int, help="draw the first offers and order")
    response.add_argument("-o", "--output", metavar="PATH.json", type=Path)
    for parser in (join, left, response):
        parser.add_argument("--text", action="store_true", help="for a terminal, instead of JSON")
    lies = _books(commands.add_parser("misreport", help="what a site could gain by a lie"))
    lies.add_argument("--site", required=True, metavar="NAME")


def _books(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("books", metavar="BOOK.json", type=Path, nargs="+")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="default: 0")
    parser.add_argument("--draws", **DRAWS)  # type: ignore[arg-type]
    parser.add_argument("-o", "--output", metavar="REPORT.json", type=Path)
    return parser


def join(asked: argparse.Namespace, files: Files) -> int:
    """What a site gains by taking part, and what it comes from."""
    from economics.incentives.documents import document  # noqa: PLC0415 help needs no numpy
    from economics.incentives.join import join as study  # noqa: PLC0415

    _within("--alpha", asked.alpha, 0.0, 1.0)
    report = study(
        _with_partners(asked, _read(asked, files)),
        asked.site,
        alpha=asked.alpha,
        seed=asked.seed,
        draws=asked.draws,
        joining_cost=asked.joining_cost,
        penalties=asked.penalties,
        with_sensitivity=asked.sensitivity,
    )
    if asked.text:
        from economics.incentives.summaries import join_summary  # noqa: PLC0415

        return _told(join_summary(report))
    files.put(document(report), asked.output)
    return 0


def leave(asked: argparse.Namespace, files: Files) -> int:
    """What changes when a site leaves."""
    from economics.incentives.documents import document  # noqa: PLC0415 help needs no numpy
    from economics.incentives.leave import leave as study  # noqa: PLC0415

    found = study(_read(asked, files), seed=asked.seed, draws=asked.draws)
    if asked.text:
        from economics.incentives.summaries import leave_summary  # noqa: PLC0415

        return _told(leave_summary(found))
    files.put(document(found), asked.output)
    return 0


def best_response(asked: argparse.Namespace, files: Files) -> int:
    """Where it leads when sites choose in turn what they offer."""
    from economics.incentives.best_response import best_response as study  # noqa: PLC0415
    from economics.incentives.documents import document  # noqa: PLC0415
    from economics.incentives.study import studied  # noqa: PLC0415

    _within("--sweeps", asked.sweeps, 1, 1000)
    path = study(studied(_document(files, asked.book)), sweeps=asked.sweeps, seed=asked.seed)
    if asked.text:
        from economics.incentives.summaries import path_summary  # noqa: PLC0415

        return _told(path_summary(path))
    files.put(document(path), asked.output)
    return 0


def misreport(asked: argparse.Namespace, files: Files) -> int:
    """What each lie would bring, if the others are truthful."""
    from economics.incentives.documents import document  # noqa: PLC0415 help needs no numpy
    from economics.incentives.misreport import misreport as study  # noqa: PLC0415

    books = _read(asked, files)
    draws = LIE_DRAWS if asked.draws is None else asked.draws
    report = study(books, asked.site, seed=asked.seed, draws=draws)
    files.put(document(report), asked.output)
    return 0


LIE_DRAWS = 20  #: each is decided once for the truth and once for every lie
COMMANDS: dict[str, Callable[[argparse.Namespace, Files], int]] = {
    "join": join,
    "leave": leave,
    "best-response": best_response,
    "misreport": misreport,
}


def _told(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    return 0


def _read(asked: argparse.Namespace, files: Files) -> list[dict[str, Any]]:
    return [_document(files, path) for path in asked.books]


def _document(files: Files, path: Path) -> dict[str, Any]:
    found = files.read(path)
    if not isinstance(found, dict):
        raise BadBook((Problem(str(path), "an object is expected"),))
    return found


def _with_partners(asked: argparse.Namespace, books: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not asked.partners:
        return books
    from economics.incentives.partners import Partners, around  # noqa: PLC0415

    _within("--partners", asked.partners, 1, 64)
    _within("--sigma", asked.sigma, 0.0, 5.0)
    partners = Partners(count=asked.partners, sigma=asked.sigma)
    return [around(book, asked.seed, partners, number=at) for at, book in enumerate(books)]


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BadBook((Problem(name, f"must be between {least:g} and {most:g}, is {value:g}"),))
