"""Rows -> book and clearing -> rows: the only bridge between the federation and the market.

`book_build` reads the venue once and makes a `hanse.book/1` document; the players of the market
are members, so `site` in the book is a member's name. `awards_read` turns a `hanse.clearing/1`
document back into values that carry ids.
"""

from federation.snapshot.bids import LeftOut
from federation.snapshot.book import Book, book_build
from federation.snapshot.clearing import (
    Award,
    awards_read,
    bid_limits,
    outcomes_read,
    running_jobs,
)
from federation.snapshot.documents import Sealed, holds_job, pack, price_micro, seal, unpack

__all__ = [
    "Award",
    "Book",
    "LeftOut",
    "Sealed",
    "awards_read",
    "bid_limits",
    "book_build",
    "holds_job",
    "outcomes_read",
    "pack",
    "price_micro",
    "running_jobs",
    "seal",
    "unpack",
]
