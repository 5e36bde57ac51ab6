"""A book and the clearing made from it, read together: what curves and explanations speak about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from economics import accounts
from economics.book import Book, read_book
from economics.errors import BadBook, Problem
from economics.market import Array
from economics.published import Published, read_published

DECIMALS = 9
CLOSE = 1e-6  # of the dearest GPU-hour in the book: prices nearer than this are taken for equal


@dataclass(frozen=True, slots=True)
class Cleared:
    """A round as published, on the axes of its market, with what is looked up again and again."""

    book: Book
    sha256: str  # of the clearing
    price: Array  # (P,) credits per GPU-hour
    share: Array  # (K,) of each column's full use
    paid_micro: tuple[int, ...]  # (K,)
    unplaced: Mapping[str, Mapping[str, Any]]  # {job id: row of the clearing}
    fees: Mapping[tuple[str, str], float]  # {(home, site): credits per GPU-hour of transfer}
    # Derived
    worth: Array  # (K,) credits per GPU-hour at the job's bid, after transfer, extra and moving
    sold: Array  # (P,) GPU-hours
    job_at: Mapping[str, int]  # {job id: its place on the axis}
    unit: float  # credits per GPU-hour of the dearest column or price; at least a micro-credit

    @property
    def close(self) -> float:
        """Credits per GPU-hour that the rounding of a solver may move a price by."""
        return CLOSE * self.unit


def read_cleared(book_document: object, clearing_document: object) -> Cleared:
    """Both documents, read strictly.

    Raises BadBook with a line for every problem, also when the clearing is of another book.
    """
    book = read_book(book_document)
    published = read_published(book, clearing_document)
    clearing = clearing_document if isinstance(clearing_document, Mapping) else {}
    if clearing.get("book_sha256") != book.sha256:
        raise BadBook((Problem("book_sha256", "is of another book"),))
    return cleared_of(book, published, _fees(book_document), str(clearing.get("sha256", "")))


def cleared_of(
    book: Book, published: Published, fees: Mapping[tuple[str, str], float], sha256: str
) -> Cleared:
    """A book and its clearing that were read before. `fees`: {(home, site): per GPU-hour}."""
    market = book.market
    worth = (market.value - market.cost) / market.gpu_hours
    return Cleared(
        book=book,
        sha256=sha256,
        price=published.price,
        share=published.share,
        paid_micro=published.paid_micro,
        unplaced={str(row.get("job", "")): row for row in published.unplaced},
        fees=fees,
        worth=worth,
        sold=accounts.used_hours(market, published.share),
        job_at={row.id: at for at, row in enumerate(book.jobs)},
        unit=float(np.max(np.concatenate([worth, published.price]), initial=1e-6)),
    )


def number(amount: float) -> float:
    """As written: at most 9 decimals, and no negative zero."""
    return round(float(amount), DECIMALS) + 0.0


def numbers(amounts: Array) -> list[float]:
    """As written, a whole axis at once."""
    written: list[float] = (np.round(amounts, DECIMALS) + 0.0).tolist()
    return written


def _fees(document: object) -> dict[tuple[str, str], float]:
    rows = document.get("transfer", ()) if isinstance(document, Mapping) else ()
    return {(row["from"], row["to"]): float(row["per_gpu_hour"]) for row in rows}
