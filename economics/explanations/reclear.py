"""A bid tried out: the same book but for one bid, decided anew.

The welfare of the optimum is convex in one job's bid and its delivery is the slope, so a job that
runs at a bid runs at every higher one (but for a budget that no longer pays for a whole gang): a
search by halves finds the bid from which it runs. Prices move with the bid, so this is the answer
for jobs that are not small beside their market.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from economics.book import read_book
from economics.curves.cleared import number
from economics.errors import BadBook, Problem
from economics.rounds import decide

MOST_JOBS = 500  # jobs of a book up to which it is cleared again and again
NUDGE = 1e-6  # relative step to either side of a bid
NEAR = 1e-4  # relative width at which the search ends
DOUBLINGS = 12  # how far above the first guess a bid is looked for
LEAST = 1e-6  # credits per Msample; bids below this are none


@dataclass(frozen=True, slots=True)
class Trial:
    """What the job got at a bid."""

    value: float
    gpu_hours: float

    def row(self) -> dict[str, float]:
        return {"value": number(self.value), "gpu_hours": number(self.gpu_hours)}


def tried(document: object, explained: Mapping[str, Any]) -> dict[str, Any]:
    """The round at a bid just above and just below `gains_from`, and the bid the job runs from.

    `document` is the book that was read, `explained` the job's row. Raises BadBook when it is too
    large to clear over and over or the job runs by its floor anyway, NotCleared when a round is
    not decided.
    """
    assert isinstance(document, Mapping)  # noqa: S101 the book was read before
    job, threshold = str(explained["id"]), explained["gains_from"]
    if len(document["jobs"]) > MOST_JOBS:
        many = f"has {len(document['jobs'])} jobs; at most {MOST_JOBS} are cleared again"
        raise BadBook((Problem("jobs", many),))
    if any(row["job"] == job for row in document.get("floors", ())):
        raise BadBook((Problem("floors", f"job {job} has a floor and runs whatever it bids"),))
    first = max(threshold["value"] if threshold else explained["value"], LEAST)
    above = _trial(document, job, first * (1 + NUDGE))
    below = _trial(document, job, first * (1 - NUDGE))
    low, high = _bracket(document, job, above, below)
    return {
        "above": above.row(),
        "below": below.row(),
        "runs_from": None if high is None else number(_halved(document, job, low, high)),
    }


def _trial(document: Mapping[str, Any], job: str, value: float) -> Trial:
    changed = copy.deepcopy(dict(document))
    for row in changed["jobs"]:
        if row["id"] == job:
            row["value"] = value
    lines = decide(read_book(changed))["allocation"]
    return Trial(value, sum(line["gpu_hours"] for line in lines if line["job"] == job))


def _bracket(
    document: Mapping[str, Any], job: str, above: Trial, below: Trial
) -> tuple[float, float | None]:
    """A bid at which the job does not run and a higher one at which it does; None = no such."""
    if below.gpu_hours > 0:
        return 0.0, below.value
    if above.gpu_hours > 0:
        return below.value, above.value
    low = above.value
    for _ in range(DOUBLINGS):
        higher = _trial(document, job, 2 * low)
        if higher.gpu_hours > 0:
            return low, higher.value
        low = higher.value
    return low, None


def _halved(document: Mapping[str, Any], job: str, low: float, high: float) -> float:
    while high - low > NEAR * high and high > LEAST:
        middle = (low + high) / 2
        if _trial(document, job, middle).gpu_hours > 0:
            high = middle
        else:
            low = middle
    return high
