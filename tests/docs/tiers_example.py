"""The book of the example of bid tiers, taken through the steps of the search one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from economics.book import Book, read_book
from economics.clearing.tiers.demand import Demand, Runs, even_cuts, runs_of
from economics.clearing.tiers.envelope import Choices, bound_at, choices
from economics.clearing.tiers.grouping import group_market
from economics.clearing.tiers.master import Served, Tried, solve_runs
from economics.curves import curves, read_cleared
from economics.market import Array, Index
from economics.rounds import decide
from tests.docs.reading import DOCS

DOCUMENT: dict[str, Any] = json.loads((DOCS / "explanation" / "eight-jobs.json").read_text())
FIRST_RUNS = 2  # of each group, on the page


@dataclass(frozen=True, slots=True)
class Step:
    """One round of the search: the runs, what they get, and what the jobs say to the rents."""

    runs: Runs
    gain: Array  # (R, M) credits per GPU-hour at reserve prices
    served: Served
    chosen: Choices
    bound: float

    @property
    def cut(self) -> Index:
        """Where the next step would cut."""
        return np.union1d(self.runs.cut, self.chosen.begin)


@cache
def book() -> Book:
    return read_book(DOCUMENT)


@cache
def demand() -> Demand:
    return group_market(book().market).demand


@cache
def steps() -> tuple[Step, Step]:
    """The search from two runs of each group, and after one cut."""
    first = _step(even_cuts(demand(), FIRST_RUNS))
    return first, _step(first.cut)


def _step(cut: Index) -> Step:
    jobs, capacity = demand(), book().market.capacity
    runs = runs_of(jobs, cut)
    gain = jobs.lines.worth[runs.group] * runs.bid[:, None] - jobs.lines.charge[runs.group]
    everything = Tried(
        open=gain > 0,
        sure=np.zeros(runs.count, dtype=bool),
        best=np.zeros(runs.count, dtype=np.int64),
    )
    served = solve_runs(jobs, runs, gain, everything, capacity)
    chosen = choices(jobs, served.rent)
    return Step(runs, gain, served, chosen, bound_at(capacity, served.rent, chosen))


@cache
def cleared(path: str) -> dict[str, Any]:
    """The clearing of the book by one of the two paths."""
    return decide(book(), path=path)


@cache
def intervals() -> dict[str, dict[str, Any]]:
    """Lowest and highest supporting price of each pool."""
    rows = curves(read_cleared(DOCUMENT, cleared("reference")), intervals=True)["pools"]
    return {row["id"]: row["interval"] for row in rows}
