"""`python -m economics`: clear and share BOOK, and verify, curves and explain BOOK CLEARING.

Exit 0: done, or every check holds. 1: a check does not hold, or the round could not be decided.
2: a document or the command line is refused; one line per problem on standard error, nothing
written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from economics.canonical import LARGEST_FILE, parse_json
from economics.errors import BadBook, EconomicsError, Problem
from economics.incentives import command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    asked = parser.parse_args(argv)
    try:
        if asked.command in command_line.COMMANDS:
            files = command_line.Files(read=_read, put=_put)
            return command_line.COMMANDS[asked.command](asked, files)
        return COMMANDS[asked.command](asked)
    except BadBook as refused:
        sys.stderr.write(f"{refused}\n")
        return 2
    except EconomicsError as failed:
        sys.stderr.write(f"{failed}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m economics", description="Clear, verify, explain and share rounds."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    clear = commands.add_parser("clear", help="decide a round")
    clear.add_argument("book", metavar="BOOK.json", type=Path)
    clear.add_argument("-o", "--output", metavar="CLEARING.json", type=Path)
    verify = commands.add_parser("verify", help="re-check a round without a solver")
    verify.add_argument("book", metavar="BOOK.json", type=Path)
    verify.add_argument("clearing", metavar="CLEARING.json", type=Path)
    curves = commands.add_parser("curves", help="supply, demand and price intervals of a round")
    _add_pair(curves, "CURVES.json")
    curves.add_argument("--pool", metavar="ID", action="append", help="only this one; repeatable")
    curves.add_argument("--no-merit", action="store_true", help="without the jobs of each pool")
    curves.add_argument(
        "--intervals",
        action=argparse.BooleanOptionalAction,
        help="price intervals; by default for pools that are named, and for small books",
    )
    explain = commands.add_parser("explain", help="why each job got what it got")
    _add_pair(explain, "EXPLANATIONS.json")
    explain.add_argument("--job", metavar="ID", action="append", help="only this one; repeatable")
    explain.add_argument(
        "--verify", action="store_true", help="clear again with the job's bid changed; needs --job"
    )
    share = commands.add_parser("share", help="who shares the gain, and who would object")
    share.add_argument("book", metavar="BOOK.json", type=Path)
    share.add_argument(
        "--alpha",
        metavar="SHARE",
        type=float,
        default=0.5,
        help="part of the way from the market to the nucleolus, 0 to 1 (default: 0.5)",
    )
    share.add_argument("-o", "--output", metavar="SHARES.json", type=Path)
    command_line.add_commands(commands)
    return parser


def _add_pair(command: argparse.ArgumentParser, output: str) -> None:
    command.add_argument("book", metavar="BOOK.json", type=Path)
    command.add_argument("clearing", metavar="CLEARING.json", type=Path)
    command.add_argument("-o", "--output", metavar=output, type=Path)


def _clear(asked: argparse.Namespace) -> int:
    from economics.book import read_book  # noqa: PLC0415 help needs no numpy

    book = read_book(_read(asked.book))
    from economics.rounds import decide  # noqa: PLC0415 a refused book needs no solver

    _put(decide(book), asked.output)
    return 0


def _verify(asked: argparse.Namespace) -> int:
    from economics.certificate import verify  # noqa: PLC0415 help needs no numpy

    checks = verify(_read(asked.book), _read(asked.clearing))
    for check in checks:
        verdict = "holds" if check.holds else "FAILS"
        sums = f"off by {check.residual:.3g}, at most {check.tolerance:.3g}"
        line = f"{verdict}  {check.check:<12} {sums}  {check.detail}".rstrip()
        sys.stdout.write(f"{line}\n")
    return 0 if all(check.holds for check in checks) else 1


def _curves(asked: argparse.Namespace) -> int:
    from economics.curves import curves, read_cleared  # noqa: PLC0415 help needs no numpy

    cleared = read_cleared(_read(asked.book), _read(asked.clearing))
    _known(asked.pool or (), [row.id for row in cleared.book.pools], "pool")
    _put(
        curves(cleared, pools=asked.pool, merit=not asked.no_merit, intervals=asked.intervals),
        asked.output,
    )
    return 0


def _explain(asked: argparse.Namespace) -> int:
    from economics.curves import read_cleared  # noqa: PLC0415 help needs no numpy
    from economics.explanations import explanations  # noqa: PLC0415

    if asked.verify and not asked.job:
        raise BadBook((Problem("--verify", "needs --job"),))
    document = _read(asked.book)
    cleared = read_cleared(document, _read(asked.clearing))
    _known(asked.job or (), cleared.job_at, "job")
    found = explanations(cleared, asked.job)
    if asked.verify:
        from economics.explanations.reclear import tried  # noqa: PLC0415 the only one that solves

        found["jobs"] = [{**row, "tried": tried(document, row)} for row in found["jobs"]]
    _put(found, asked.output)
    return 0


def _share(asked: argparse.Namespace) -> int:
    if not 0.0 <= asked.alpha <= 1.0:
        raise BadBook((Problem("--alpha", f"must be between 0 and 1, is {asked.alpha}"),))
    from economics.book import read_book  # noqa: PLC0415 help needs no numpy

    book = read_book(_read(asked.book))
    from economics.sharing.shares import shares  # noqa: PLC0415 a refused book needs no solver

    _put(shares(book, alpha=asked.alpha), asked.output)
    return 0


COMMANDS = {
    "clear": _clear,
    "verify": _verify,
    "curves": _curves,
    "explain": _explain,
    "share": _share,
}


def _known(asked: Iterable[str], ids: Collection[str], what: str) -> None:
    unknown = sorted(set(asked) - set(ids))
    if unknown:
        raise BadBook(tuple(Problem(f"--{what}", f"unknown {what} {name!r}") for name in unknown))


def _put(document: object, output: Path | None) -> None:
    """A document to a file, or to standard output."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        _write(output, text)


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BadBook((Problem(str(path), f"is larger than {LARGEST_FILE} bytes"),))
        return parse_json(path.read_bytes(), name=str(path))
    except OSError as error:
        raise BadBook((Problem(str(path), error.strerror or str(error)),)) from None


def _write(path: Path, text: str) -> None:
    """Write beside the target and rename, so that nobody ever reads half a file."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BadBook((Problem(str(path), error.strerror or str(error)),)) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise BadBook((Problem(str(path), error.strerror or str(error)),)) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


if __name__ == "__main__":
    sys.exit(main())
