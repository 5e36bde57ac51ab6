"""Rounds at prices that nobody has cleared them at, and books with everything a book can hold."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

from economics.book import read_book
from economics.curves import Cleared, read_cleared
from tests.economics.books import Document, books


def posted(document: Document, prices: Iterable[float]) -> Cleared:
    """The book at prices that nobody has cleared it at, nothing sold."""
    book = read_book(document)
    nothing = dict.fromkeys(book.sites, 0)
    return read_cleared(
        document,
        {
            "format": "hanse.clearing/1",
            "book_sha256": book.sha256,
            "status": "empty",
            **dict.fromkeys(("welfare", "bound", "gap", "lp_bound", "regret"), 0),
            "prices": {row.id: price for row, price in zip(book.pools, prices, strict=True)},
            "allocation": [],
            "payoffs": nothing,
            "transfers_micro": nothing,
            "unplaced": [],
            "certificate": [],
            "sha256": "-",
        },
    )


@st.composite
def rich_books(draw: st.DrawFn, *, floors: bool = True) -> Document:
    """Gangs, elastic and divisible jobs, some that pay for moving, at most one with a floor."""
    document: Document = draw(books(kinds=("divisible", "gang")))
    for job in document["jobs"]:
        if "running_on" in job and draw(st.booleans()):
            job["move_cost"] = draw(st.integers(0, 20)) / 10
    market = read_book(document).market
    own = market.owner[market.pool] == market.home[market.job]
    apart: list[tuple[int, Document]] = [
        (at, job)
        for at, job in enumerate(sorted(document["jobs"], key=lambda row: row["id"]))
        if "gang" not in job and "budget" not in job and (own & (market.job == at)).any()
    ]
    if floors and apart and draw(st.booleans()):
        at, job = draw(st.sampled_from(apart))
        most = float(market.msamples[own & (market.job == at)].max())
        document["floors"] = [{"job": job["id"], "demand": most * draw(st.integers(1, 9)) / 10}]
    return document


@st.composite
def rich_rounds(draw: st.DrawFn) -> Cleared:
    """A rich book at prices from its reserves up, whatever they are."""
    document = draw(rich_books())
    market = read_book(document).market
    best = np.max((market.value - market.cost) / market.gpu_hours, initial=1.0)
    above = [draw(st.integers(0, 10)) * best / 10 for _ in range(market.pools)]
    return posted(document, [round(float(price), 9) for price in market.reserve + above])
