"""Fairness policies against the plain form: a cvxpy matrix variable with a row for each job.

    python -m bench.policies --json

Speeds are the public measured table under HANSE_DATA (made up, and said so, where that is unset):
every job a class at one of four gang sizes, on three kinds of GPU with a quarter as many GPUs as
jobs of each. The plain form is solved by Clarabel, ECOS and HiGHS, whichever is quickest; ours
starts from stored class numbers. Objectives must agree.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from threadpoolctl import threadpool_limits

from bench.support import report, timed
from economics.clearing.tiers.demand import Lines, demand_of
from economics.clearing.tiers.search import tiers_of
from economics.market import Array, Index
from economics.policies.filling import Curve, fill
from economics.policies.fleet import Crowd, Fleet

SIZES = np.array([1, 2, 4, 8])
KINDS = ("k80", "p100", "v100")
# Jobs beyond which a plain form or a solver takes minutes, and is left out.
LARGEST = {"finish_time": 2048, "makespan": 8192, "HIGHS": 4096}
ELAPSED = 0.5  # of the time alone, what a job has run on average


@dataclass(frozen=True, slots=True)
class Cluster:
    """Jobs, three kinds of GPU, and what is stored with each job: its class."""

    speed: Array  # (C, 3) of a class at its gang size
    gpus: Array  # (C,)
    kind: Index  # (J,)
    capacity: Array  # (3,)
    measured: bool

    @property
    def fair(self) -> Array:
        """Speed of each class at an equal share of every kind of GPU, (C,)."""
        share = np.minimum(1.0, self.capacity / (self.gpus[self.kind].sum()))
        return self.speed @ share


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures: dict[str, Any] = {"jobs": asked.jobs, "seed": asked.seed}
    for jobs in asked.jobs:
        drawn = cluster(jobs, seed=asked.seed)
        figures["measured_speeds"] = drawn.measured
        for name, (ours, plain, solvers) in POLICIES.items():
            if jobs > LARGEST.get(name, jobs):
                continue
            figures |= compared(f"{name}_{jobs}", drawn, ours, plain, solvers, asked.repeats)
    report("policies", figures, as_json=asked.json)


def cluster(jobs: int, *, seed: int) -> Cluster:
    """So many jobs of the public table's classes, a quarter as many GPUs of each kind."""
    draw = np.random.default_rng(seed)
    table, measured = _table(draw)
    classes = np.repeat(np.arange(table.shape[0]), SIZES.size)
    gpus = np.tile(SIZES, table.shape[0]).astype(float)
    size = np.tile(np.arange(SIZES.size), table.shape[0])
    speed = table[classes, size]
    kept = np.flatnonzero((speed > 0).all(axis=1))
    kind = draw.integers(0, kept.size, jobs)
    return Cluster(speed[kept], gpus[kept], kind, np.full(3, jobs / 4), measured)


def _table(draw: np.random.Generator) -> tuple[Array, bool]:
    """Steps per second by class, gang size and kind of GPU, (C, 4, 3)."""
    if "HANSE_DATA" not in os.environ:
        print("HANSE_DATA names no folder: speeds are made up")
        base = np.exp(draw.normal(0, 1, (25, 1, 1)) + draw.normal(0, 0.4, (25, 1, 3)))
        return base * (SIZES**0.9)[None, :, None], False
    speeds: dict[tuple[str, str], Array] = {}
    path = Path(os.environ["HANSE_DATA"]) / "gavel" / "isolated_throughputs.csv"
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["table"] != "simulation" or row["placement"] != "consolidated":
                continue
            cell = speeds.setdefault((row["model"], row["batch_size"]), np.zeros((4, 3)))
            if row["gpu"] in KINDS and int(row["scale_factor"]) in SIZES:
                size = int(np.searchsorted(SIZES, int(row["scale_factor"])))
                cell[size, KINDS.index(row["gpu"])] = float(row["steps_per_s"])
    return np.stack([speeds[key] for key in sorted(speeds)]), True


def compared(
    name: str,
    drawn: Cluster,
    ours: Callable[[Cluster], float],
    plain: Callable[[Cluster, str], float],
    solvers: tuple[str, ...],
    repeats: int,
) -> dict[str, Any]:
    """Seconds of both, and how far their objectives are apart."""
    with threadpool_limits(limits=1):
        took, value = timed(lambda: ours(drawn), repeats)
    rivals = {}
    for solver in solvers:
        if drawn.kind.size > LARGEST.get(solver, drawn.kind.size):
            continue
        start = time.perf_counter()
        rivals[solver] = (plain(drawn, solver), time.perf_counter() - start)
    best = min(rivals, key=lambda solver: rivals[solver][1])
    reference = min((found for found, _ in rivals.values()), key=lambda found: abs(found - value))
    return {
        f"{name}_seconds": took.median,
        f"{name}_spread": took.spread,
        f"{name}_plain_seconds": rivals[best][1],
        f"{name}_plain_solver": best,
        f"{name}_ratio": rivals[best][1] / took.median,
        f"{name}_difference": abs(value - reference) / abs(reference),
    }


def max_min(drawn: Cluster) -> float:
    """Ours: the smallest ratio of speed to fair speed."""
    fleet, crowd = _crowd(drawn)
    return fill(fleet, crowd, Curve.straight(drawn.fair[crowd.kind]), once=True)[0].level


def makespan(drawn: Cluster) -> float:
    """Ours: the time of the last job; a job's work grows with its fair speed and its size."""
    fleet, crowd = _crowd(drawn)
    work = _work(drawn)[crowd.kind]
    return 1.0 / fill(fleet, crowd, Curve.straight(work), once=True)[0].level


def throughput(drawn: Cluster) -> float:
    """Ours: the largest sum of speeds over fair speeds, by bid tiers on the classes."""
    present = np.unique(drawn.kind)
    hours = np.broadcast_to(drawn.gpus[present][:, None], (present.size, 3)).copy()
    worth = drawn.speed[present] / drawn.fair[present][:, None]
    pool = np.broadcast_to(np.arange(3), hours.shape).copy()
    count = np.bincount(drawn.kind)[present].astype(float)
    lines = Lines(pool, worth, np.zeros(hours.shape), hours)
    demand = demand_of(lines, np.arange(present.size), np.ones(present.size), count)
    return tiers_of(demand, drawn.capacity, tolerance=0.0).value


def finish_time(drawn: Cluster) -> float:
    """Ours: the largest ratio of the finish time to that alone."""
    fleet, crowd = _crowd(drawn)
    work, fair = _work(drawn)[crowd.kind], drawn.fair[crowd.kind]
    alone = ELAPSED + work / fair
    curve = Curve(work / alone, np.full(work.shape, ELAPSED) / alone)
    return 1.0 / fill(fleet, crowd, curve, once=True)[0].level


def _crowd(drawn: Cluster) -> tuple[Fleet, Crowd]:
    fleet = Fleet.of_table(drawn.speed, drawn.gpus, drawn.capacity)
    return fleet, Crowd.of_kinds(drawn.kind, drawn.gpus.size)


def _work(drawn: Cluster) -> Array:
    work: Array = drawn.fair * drawn.gpus
    return work


def _plain(drawn: Cluster) -> tuple[Any, Any, list[Any]]:
    """Time fractions, (J, 3), speeds, (J,), and the rules everybody keeps to."""
    share = cp.Variable((drawn.kind.size, 3), nonneg=True)
    speed = cp.sum(cp.multiply(drawn.speed[drawn.kind], share), axis=1)
    rules = [drawn.gpus[drawn.kind] @ share <= drawn.capacity, cp.sum(share, axis=1) <= 1]
    return share, speed, rules


def plain_max_min(drawn: Cluster, solver: str) -> float:
    _, speed, rules = _plain(drawn)
    ratio = cp.min(cp.multiply(speed, 1.0 / drawn.fair[drawn.kind]))
    return float(cp.Problem(cp.Maximize(ratio), rules).solve(solver=solver))


def plain_throughput(drawn: Cluster, solver: str) -> float:
    _, speed, rules = _plain(drawn)
    total = cp.sum(cp.multiply(speed, 1.0 / drawn.fair[drawn.kind]))
    return float(cp.Problem(cp.Maximize(total), rules).solve(solver=solver))


def plain_makespan(drawn: Cluster, solver: str) -> float:
    """Bisection to 5 %, a feasibility programme for every halving."""
    _, speed, rules = _plain(drawn)
    work = _work(drawn)[drawn.kind]
    low, high = 0.0, float(work.size)
    while high - low > 0.05 * high:
        middle = (low + high) / 2
        problem = cp.Problem(cp.Maximize(0), [*rules, speed * middle >= work])
        problem.solve(solver=solver)
        if problem.status == cp.OPTIMAL:
            high = middle
        else:
            low = middle
    return high


def plain_finish_time(drawn: Cluster, solver: str) -> float:
    """A separate reciprocal for every job."""
    _, speed, rules = _plain(drawn)
    work = _work(drawn)[drawn.kind]
    alone = ELAPSED + work / drawn.fair[drawn.kind]
    ratios = [
        (ELAPSED + work[job] * cp.inv_pos(speed[job])) / alone[job] for job in range(work.size)
    ]
    return float(cp.Problem(cp.Minimize(cp.maximum(*ratios)), rules).solve(solver=solver))


POLICIES: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "max_min": (max_min, plain_max_min, ("CLARABEL", "ECOS", "HIGHS")),
    "throughput": (throughput, plain_throughput, ("CLARABEL", "ECOS", "HIGHS")),
    "makespan": (makespan, plain_makespan, ("CLARABEL", "ECOS")),
    "finish_time": (finish_time, plain_finish_time, ("CLARABEL", "ECOS")),
}


if __name__ == "__main__":
    main()
