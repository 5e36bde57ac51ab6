"""The numbers of a `hanse.clearing/1` document as arrays, read strictly against its book."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from economics import accounts
from economics.book import Book
from economics.market import Array, Index, Market
from economics.memory import no_cycles
from economics.schema import LARGEST_NUMBER, Fields, Problems
from economics.table import NEEDS_A_LOOK, alike, amounts, need, only, texts, wholes

CLEARING_FORMAT = "hanse.clearing/1"
CLEARING_KEYS = (
    *("format", "book_sha256", "status", "welfare", "bound", "gap", "lp_bound", "regret"),
    *("prices", "allocation", "payoffs", "transfers_micro", "unplaced", "certificate", "sha256"),
)
FIGURES = ("welfare", "bound", "gap", "lp_bound", "regret")
LINE_KEYS = ("job", "pool", "gpu_hours", "msamples", "payment_micro")
CHECK_KEYS = ("check", "residual", "tolerance", "holds", "detail")
LARGEST_MICRO = 10**24


class Line(NamedTuple):
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
    paid: Array  # (K,) the same in credits
    strangers: int  # lines for which the market has no column, or a second line
    msamples_off: float  # worst relative error of a line's delivery
    overspent_micro: int  # most by which a job passes its budget


def read_published(book: Book, document: object) -> Published:
    """Read a clearing; raises BadBook with every problem of form."""
    with no_cycles():
        return _read_published(book, document)


def _read_published(book: Book, document: object) -> Published:
    problems = Problems()
    fields = Fields(document, "", problems, CLEARING_KEYS)
    if fields.raw and fields.text("format") != CLEARING_FORMAT:
        problems.note("format", f"must be {CLEARING_FORMAT!r}")
    for key in ("book_sha256", "sha256"):
        fields.text(key)
    status = fields.text("status")
    welfare, bound, gap, lp_bound, regret = (_figure(fields, key) for key in FIGURES)
    lines = _lines(fields, problems)
    certificate = tuple(
        _read_check(raw, path, problems) for path, raw in fields.rows("certificate", required=True)
    )
    price = _by_id(fields, "prices", [row.id for row in book.pools])
    payoff = _by_id(fields, "payoffs", book.sites)
    transfer = _by_id(fields, "transfers_micro", book.sites, whole=True)
    rows = fields.items("unplaced", required=True)
    unplaced = tuple(raw for raw in rows if isinstance(raw, dict | Mapping))
    problems.raise_if_any()
    with np.errstate(all="ignore"):  # absurd numbers are for the checks to find
        derived = _from_lines(book, lines, np.array(price, dtype=float))
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
        **derived,
    )


def _from_lines(book: Book, lines: tuple[Line, ...], price: Array) -> dict[str, Any]:
    market = book.market
    fields = list(zip(*lines, strict=True)) or [()] * len(Line._fields)
    hours, msamples = (np.array(fields[at], dtype=float) for at in (2, 3))
    job = _places(fields[0], (row.id for row in book.jobs))
    pool = _places(fields[1], (row.id for row in book.pools))
    column = _columns_of(market, job, pool, hours)
    known = np.flatnonzero(column >= 0)
    at = column[known]
    part = np.where(market.gang[market.job[at]], 1.0, hours[known] / market.gpu_hours[at])
    # A column is awarded once: what follows is a stranger to the market, as is an unknown id.
    kept, served = np.zeros(known.size, dtype=bool), np.zeros(market.columns, dtype=bool)
    paid = [0] * market.columns
    pairs = zip(known.tolist(), at.tolist(), (part > 0).tolist(), strict=True)
    for number, (line, place, some) in enumerate(pairs):
        if not served[place]:
            kept[number], served[place] = True, some
            paid[place] = lines[line].payment_micro
    share, credited = np.zeros(market.columns), np.zeros(market.columns)
    share[at[kept]] = part[kept]
    credited[at] = np.array([paid[place] for place in at.tolist()], dtype=float) / accounts.MICRO
    delivery = (market.msamples[at] * part)[kept]
    off = np.abs(msamples[known[kept]] - delivery) / np.maximum(1.0, delivery)
    due, overspent = _due(book, lines, job, np.append(price, 0.0)[pool])
    return {
        "share": share,
        "due": due,
        "paid_micro": tuple(paid),
        "paid": credited,
        "strangers": len(lines) - int(kept.sum()),
        "msamples_off": float(off.max(initial=0.0)),
        "overspent_micro": overspent,
    }


def _places(names: Sequence[str], ids: Iterable[str]) -> Index:
    """Place of each name among the ids; -1 = not there."""
    number = {name: at for at, name in enumerate(ids)}
    return np.array([number.get(name, -1) for name in names], dtype=np.int64)


def _columns_of(market: Market, job: Index, pool: Index, hours: Array) -> Index:
    """The column each line is an award of, -1 = none: for a gang, that of the same GPU-hours."""
    place = market.job * market.pools + market.pool  # ascending: by job, then pool
    asked = np.where((job >= 0) & (pool >= 0), job * market.pools + pool, -1)
    first, last = np.searchsorted(place, asked), np.searchsorted(place, asked, side="right")
    found = np.full(asked.shape, -1, dtype=np.int64)
    for size in range(int((last - first).max(initial=0))):
        at = np.flatnonzero((found < 0) & (first + size < last))
        column = first[at] + size
        exact = market.gpu_hours[column]
        same = np.abs(exact - hours[at]) <= 1e-8 * exact + 1e-9
        fits = same | ~market.gang[job[at]]
        found[at[fits]] = column[fits]
    return found


def _due(
    book: Book, lines: tuple[Line, ...], job: Index, price: Array
) -> tuple[tuple[int, ...], int]:
    """Micro-credits each line should pay, and the most by which a job passes its budget."""
    hours = np.array([line.gpu_hours for line in lines], dtype=float)
    due = accounts.payments_micro(price, hours)
    left: dict[int, int] = {}
    for line, buyer in enumerate(job.tolist()):
        if buyer < 0 or math.isinf(book.jobs[buyer].budget):
            continue
        if buyer not in left:
            left[buyer] = book.budget_micro(buyer) or 0
        due[line] = min(due[line], max(left[buyer], 0))
        left[buyer] -= lines[line].payment_micro
    return tuple(due), max(0, -min(left.values(), default=0))


def _figure(fields: Fields, key: str) -> float:
    return read_signed(fields.raw.get(key), fields.at(key), fields.problems)


def _lines(fields: Fields, problems: Problems) -> tuple[Line, ...]:
    """All lines at once when all is well, else one by one, which says what is wrong."""
    lines = _sound_lines(fields.raw.get("allocation"))
    if lines is not None:
        return lines
    rows = fields.rows("allocation", required=True)
    return tuple(_read_line(raw, path, problems) for path, raw in rows)


def _sound_lines(raw: object) -> tuple[Line, ...] | None:
    if not isinstance(raw, list):
        return None
    try:
        only(raw, dict)
        lines: list[Line] = []
        for places, columns in alike(raw):
            need(columns.keys() == set(LINE_KEYS) and len(places) == len(raw))
            read = (
                *(texts(columns[key]) for key in ("job", "pool")),
                *(amounts(columns[key]) for key in ("gpu_hours", "msamples")),
                wholes(columns["payment_micro"], most=LARGEST_MICRO),
            )
            lines += map(Line._make, zip(*read, strict=True))
    except NEEDS_A_LOOK:
        return None
    return tuple(lines)


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
    for name in sorted(map(str, set(raw) - set(ids))):
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
    if abs(value) > LARGEST_NUMBER or not math.isfinite(value):
        problems.note(path, f"must be finite and at most {LARGEST_NUMBER:g} in size")
        return 0.0
    return float(value)
