"""A clearing, read back: awards with ids, and what each job is to be told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from federation.snapshot.documents import price_micro


@dataclass(frozen=True, slots=True)
class Award:
    """One line of a clearing, with ids and whole GPUs."""

    job_id: UUID
    pool_id: UUID
    gpus: int
    samples: int
    samples_per_s: float
    price_micro: int
    payment_micro: int
    budget_micro: int  #: what the book let the job spend


def awards_read(
    *, book: dict[str, Any], clearing: dict[str, Any], pools: Mapping[str, UUID]
) -> list[Award]:
    """The allocation of a clearing as values with ids. `pools`: name in the book -> id."""
    speeds = {
        (a["pool"], a["class"], a.get("gpus", 1)): a["samples_per_s"] for a in book["affinity"]
    }
    placed = {line["job"] for line in clearing["allocation"]}
    jobs = {job["id"]: job for job in book["jobs"] if job["id"] in placed}
    prices = {pool: price_micro(price) for pool, price in clearing["prices"].items()}
    awards = []
    for line in clearing["allocation"]:
        gpus = round(line["gpu_hours"] / book["round_hours"])
        job = jobs[line["job"]]
        key = (line["pool"], job["class"])
        speed = speeds.get((*key, gpus)) or gpus * speeds[(*key, 1)]
        awards.append(
            Award(
                job_id=UUID(line["job"]),
                pool_id=pools[line["pool"]],
                gpus=gpus,
                samples=max(1, round(line["msamples"] * 1e6)),
                samples_per_s=speed,
                price_micro=prices[line["pool"]],
                payment_micro=int(line["payment_micro"]),
                budget_micro=price_micro(job["budget"]),
            )
        )
    return awards


def running_jobs(book: dict[str, Any]) -> dict[str, str]:
    """Job -> the pool it ran on when it bid, for jobs that bid again."""
    return {job["id"]: job["running_on"] for job in book["jobs"] if "running_on" in job}


def outcomes_read(
    *, book: dict[str, Any], clearing: dict[str, Any], jobs: Collection[str] | None = None
) -> dict[str, tuple[str, str]]:
    """(code, sentence) for every job, or those of `jobs`, that did not get all it wanted."""
    lines = clearing["unplaced"]
    if jobs is not None:
        lines = [line for line in lines if line["job"] in jobs]
    limits = bid_limits(book, {line["job"] for line in lines})
    return {
        line["job"]: (line["reason"], f"{line['why']} {limits.get(line['job'], '')}".strip())
        for line in lines
    }


def bid_limits(book: dict[str, Any], jobs: Collection[str]) -> dict[str, str]:
    """For bids that are worth less than a round of GPU time: what holds them down, in words."""
    best: dict[str, float] = defaultdict(float)
    for row in book["affinity"]:
        best[row["class"]] = max(best[row["class"]], row["samples_per_s"] / row["gpus"])
    found = {}
    for job in book["jobs"]:
        if job["id"] not in jobs:
            continue
        size = min(job["gang"]) if isinstance(job["gang"], list) else job["gang"]
        output = best[job["class"]] * size * book["round_hours"] * 3600 / 1e6
        if job["demand"] < 0.99 * output:
            found[job["id"]] = _limit(job, output)
    return found


def _limit(job: dict[str, Any], output: float) -> str:
    if job["budget"] < 1.01 * job["demand"] * job["value"] and job["budget"] > 0:
        paid = "what its max_cost and its tenant's funds leave for this round pays for"
    else:
        paid = "it has only"
    return (
        f"A gang pays for its GPUs for the whole round, and {paid} "
        f"{job['demand']:.6g} of the {output:.6g} million samples that a round can train."
    )
