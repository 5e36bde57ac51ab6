"""The numbers of a `hanse.clearing/1` document as arrays, read strictly against its book."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from economics import accounts
from economics.book import Book
from economics.market import Array
from economics.schema import LARGEST_NUMBER, Fields, Problems

CLEARING_FORMAT = "hanse.clearing/1"
CLEARING_KEYS = (
    *("format", "book_sha256", "status", "welfare", "bound", "gap", "lp_bound", "regret"),
    *("prices", "allocation", "payoffs", "transfers_micro", "unplaced", "certificate", "sha256"),
)
FIGURES = ("welfare", "bound", "gap", "lp_bound", "regret")
LINE_KEYS = ("job", "pool", "gpu_hours", "msamples", "payment_micro")
CHECK_KEYS = ("check", "residual", "tolerance", "holds", "detail")
LARGEST_MICRO = 10**24


@dataclass(frozen=True, slots=True)
class Line:
    """One job in one pool."""

    job: str
    pool: str
    gpu_hours: float
    msamples: float
    payment_micro: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A row of the certificate as written."""

    check: str
    residual: float
    tolerance: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Published:
    """A clearing on the axes of its book's market."""

    status: str
    welfare: float
    bound: float
    gap: float
    lp_bound: float
    regret: float
    price: Array  # (P,)
    lines: tuple[Line, ...]
    payoff: Array  # (N,)
    transfer_micro: tuple[int, ...]  # (N,)
    unplaced: tuple[Mapping[str, Any], ...]
    certificate: tuple[Recorded, ...]
    # Derived from the lines
    share: Array  # (K,)
    due: tuple[int, ...]  # micro-credits each line should pay
    paid_micro: tuple[int, ...]  # (K,)
    strangers: int  # lines for which the market has no column, or a second line
    msamples_off: float  # worst relative error of a line's delivery
    overspent_micro: int  # most by which a job passes its budget


def read_published(book: Book, document: object) -> Published:
    """Read a clearing; raises BadBook with every problem of form."""
    problems = Problems()
    fields = Fields(document, "", problems, CLEARING_KEYS)
    if fields.raw and fields.text("format") != CLEARING_FORMAT:
        problems.note("format", f"must be {CLEARING_FORMAT!r}")
    for key in ("book_sha256", "sha256"):
        fields.text(key)
    status = fields.text("status")
    welfare, bound, gap, lp_bound, regret = (_figure(fields, key) for key in FIGURES)
    lines = tuple(_read_line(raw, path, problems) for path, raw in _rows(fields, "allocation"))
    certificate = tuple(
        _read_check(raw, path, problems) for path, raw in _rows(fields, "certificate")
    )
    price = _by_id(fields, "prices", [row.id for row in book.pools])
    payoff = _by_id(fields, "payoffs", book.sites)
    transfer = _by_id(fields, "transfers_micro", book.sites, whole=True)
    rows = _rows(fields, "unplaced")
    unplaced = tuple(raw for _, raw in rows if isinstance(raw, Mapping))
    problems.raise_if_any()
    return Published(
        status=status,
        welfare=welfare,
        bound=bound,
        gap=gap,
        lp_bound=lp_bound,
        regret=regret,
        price=np.array(price, dtype=float),
        lines=lines,
        payoff=np.array(payoff, dtype=float),
        transfer_micro=tuple(int(amount) for amount in transfer),
        unplaced=unplaced,
        certificate=certificate,
        **_from_lines(book, lines, np.array(price, dtype=float)),
    )


def column_of(book: Book, line: Line) -> int | None:
    """The column a line is an award of: for a gang, that of the same GPU-hours."""
    market = book.market
    jobs = [row.id for row in book.jobs]
    pools = [row.id for row in book.pools]
    if line.job not in jobs or line.pool not in pools:
        return None
    job = jobs.index(line.job)
    at = np.arange(market.columns)[market.columns_of(job)]
    at = at[market.pool[at] == pools.index(line.pool)]
    if market.gang[job]:
        at = at[np.abs(market.gpu_hours[at] - line.gpu_hours) <= 1e-8 * market.gpu_hours[at] + 1e-9]
    return int(at[0]) if at.size else None


def _from_lines(book: Book, lines: tuple[Line, ...], price: Array) -> dict[str, Any]:
    market = book.market
    share, paid = np.zeros(market.columns), [0] * market.columns
    due, strangers, off = [], 0, 0.0
    left: dict[str, int | None] = {
        row.id: book.budget_micro(job) for job, row in enumerate(book.jobs)
    }
    pool_price = {row.id: float(price[at]) for at, row in enumerate(book.pools)}
    for line in sorted(lines, key=lambda line: (line.job, line.pool)):
        column = column_of(book, line)
        if column is None or share[column]:
            strangers += 1
            continue
        whole = bool(market.gang[market.job[column]])
        share[column] = 1.0 if whole else line.gpu_hours / market.gpu_hours[column]
        paid[column] = line.payment_micro
        delivery = float(market.msamples[column] * share[column])
        off = max(off, abs(line.msamples - delivery) / max(1.0, delivery))
    for line in lines:
        amount = accounts.payment_micro(pool_price.get(line.pool, 0.0), line.gpu_hours)
        purse = left.get(line.job)
        due.append(amount if purse is None else min(amount, max(purse, 0)))
        if purse is not None:
            left[line.job] = purse - line.payment_micro
    overspent = max([-purse for purse in left.values() if purse is not None], default=0)
    return {
        "share": share,
        "due": tuple(due),
        "paid_micro": tuple(paid),
        "strangers": strangers,
        "msamples_off": off,
        "overspent_micro": max(overspent, 0),
    }


def _figure(fields: Fields, key: str) -> float:
    return read_signed(fields.raw.get(key), fields.at(key), fields.problems)


def _rows(fields: Fields, key: str) -> list[tuple[str, object]]:
    return fields.rows(key, required=True)


def _read_line(raw: object, path: str, problems: Problems) -> Line:
    row = Fields(raw, path, problems, LINE_KEYS)
    return Line(
        row.text("job"),
        row.text("pool"),
        row.number("gpu_hours"),
        row.number("msamples"),
        _micro(row.raw.get("payment_micro"), row.at("payment_micro"), problems, least=0),
    )


def _read_check(raw: object, path: str, problems: Problems) -> Recorded:
    row = Fields(raw, path, problems, CHECK_KEYS)
    if "holds" not in row:
        row.refuse("holds", "is missing")
    return Recorded(
        row.text("check"), row.number("residual"), row.number("tolerance"), row.flag("holds", False)
    )


def _by_id(
    fields: Fields, key: str, ids: list[str] | tuple[str, ...], *, whole: bool = False
) -> list[float]:
    """One number for every id of an axis, in its order; exactly those ids."""
    raw = fields.raw.get(key)
    if not isinstance(raw, Mapping):
        fields.refuse(key, "must be an object")
        return [0.0] * len(ids)
    for name in sorted(set(raw) - set(ids)):
        fields.refuse(f"{key}.{name}", "is not in the book")
    found: list[float] = []
    for name in ids:
        path = fields.at(f"{key}.{name}")
        if name not in raw:
            fields.problems.note(path, "is missing")
            found.append(0.0)
        elif whole:
            found.append(_micro(raw[name], path, fields.problems, least=-LARGEST_MICRO))
        else:
            found.append(read_signed(raw[name], path, fields.problems))
    return found


def _micro(value: object, path: str, problems: Problems, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        problems.note(path, "must be a whole number")
        return 0
    if not least <= value <= LARGEST_MICRO:
        problems.note(path, f"must be between {least} and {LARGEST_MICRO}")
        return 0
    return value


def read_signed(value: object, path: str, problems: Problems) -> float:
    """A finite number of either sign."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.note(path, "must be a number")
        return 0.0
    if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
        problems.note(path, f"must be finite and at most {LARGEST_NUMBER:g} in size")
        return 0.0
    return float(value)
