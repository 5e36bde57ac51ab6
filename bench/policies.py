"""Fairness policies against the plain form: a cvxpy matrix variable with a row for each job.

    python -m bench.policies --json

Speeds are the public measured table under HANSE_DATA (made up, and said so, where that is unset):
every job is of a class at one of four gang sizes, on three kinds of GPU with a quarter as many GPUs
as jobs of each. For makespan and finish times every job has its own work and its own time run so
far. The plain form is solved by Clarabel, ECOS and HiGHS, and the quickest counts. Ours starts from
stored class numbers and ends with the time fractions of every job, which are then checked.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from threadpoolctl import threadpool_limits

from bench.support import report, timed
from economics.market import Array, Index
from economics.policies.deal import deal
from economics.policies.filling import Curve, fill
from economics.policies.fleet import Crowd, Fleet
from economics.policies.surplus import most

SIZES = np.array([1, 2, 4, 8])
KINDS = ("k80", "p100", "v100")
# Jobs beyond which a plain form or a solver takes minutes, and is left out.
LARGEST = {"finish_time": 2048, "makespan": 8192, "HIGHS": 4096}
STOP = 0.05  # where the bisection ends, of the makespan
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Cluster:
    """Jobs, three kinds of GPU, and what is stored with each job: its class."""

    speed: Array  # (C, 3) steps per second of a class at its gang size
    gpus: Array  # (C,)
    kind: Index  # (J,)
    work: Array  # (J,) steps a job still has
    elapsed: Array  # (J,) seconds it has run
    capacity: Array  # (3,)
    measured: bool

    @property
    def fair(self) -> Array:
        """Speed of each class at an equal share of every kind of GPU, (C,)."""
        fair: Array = self.speed @ np.minimum(1.0, self.capacity / self.gpus[self.kind].sum())
        return fair

    @property
    def alone(self) -> Array:
        """Finish time of each job at that speed, (J,)."""
        alone: Array = self.elapsed + self.work / self.fair[self.kind]
        return alone


@dataclass(frozen=True, slots=True)
class Answer:
    """The value of an objective, and the time fractions that reach it."""

    value: float
    share: Array  # (J, 3)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures: dict[str, Any] = {"jobs": asked.jobs, "seed": asked.seed, "repeats": asked.repeats}
    for jobs in asked.jobs:
        drawn = cluster(jobs, seed=asked.seed)
        figures["measured_speeds"] = drawn.measured
        for name, rivals in POLICIES.items():
            if jobs <= LARGEST.get(name, jobs):
                figures |= compared(f"{name}_{jobs}", drawn, rivals, asked.repeats)
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
    typical = speed[kept][kind].mean(axis=1)
    return Cluster(
        speed=speed[kept],
        gpus=gpus[kept],
        kind=kind,
        work=typical * 3600.0 * draw.lognormal(0.0, 0.3, jobs),
        elapsed=3600.0 * draw.random(jobs),
        capacity=np.full(3, jobs / 4),
        measured=measured,
    )


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


@dataclass(frozen=True, slots=True)
class Rivals:
    """One policy in both forms, and its objective."""

    ours: Callable[[Cluster], Answer]
    plain: Callable[[Cluster, str], tuple[float, bool]]  # value, and whether it is proved
    solvers: tuple[str, ...]
    objective: Callable[[Cluster, Array], float]  # of every job's speed, (J,)


def compared(name: str, drawn: Cluster, rivals: Rivals, repeats: int) -> dict[str, Any]:
    """Seconds of both, and how far ours is from the nearest objective the plain form proves."""
    with threadpool_limits(limits=1):
        took, found = timed(lambda: rivals.ours(drawn), repeats)
    check(drawn, rivals, found)
    plain = {
        solver: timed(partial(rivals.plain, drawn, solver), repeats)
        for solver in rivals.solvers
        if drawn.kind.size <= LARGEST.get(solver, drawn.kind.size)
    }
    best = min(plain, key=lambda solver: plain[solver][0].median)
    sure = [value for _, (value, proved) in plain.values() if proved] or [plain[best][1][0]]
    nearest = min(sure, key=lambda value: abs(found.value - value))
    return {
        f"{name}_seconds": took.median,
        f"{name}_spread": took.spread,
        f"{name}_plain_seconds": plain[best][0].median,
        f"{name}_plain_spread": plain[best][0].spread,
        f"{name}_plain_solver": best,
        f"{name}_ratio": plain[best][0].median / took.median,
        f"{name}_difference": found.value / nearest - 1.0,
        f"{name}_by_solver": {
            solver: {"seconds": done[0].median, "value": done[1][0], "proved": done[1][1]}
            for solver, done in plain.items()
        },
    }


def check(drawn: Cluster, rivals: Rivals, found: Answer) -> None:
    """The fractions are possible and reach the value: otherwise a time says nothing."""
    share = found.share
    assert (share >= 0).all()
    assert (share.sum(axis=1) <= 1 + ROUNDING).all()
    assert (drawn.gpus[drawn.kind] @ share <= drawn.capacity * (1 + ROUNDING)).all()
    speed = (drawn.speed[drawn.kind] * share).sum(axis=1)
    reached = rivals.objective(drawn, speed)
    assert abs(reached / found.value - 1) <= ROUNDING, (reached, found.value)


def max_min(drawn: Cluster) -> Answer:
    """Ours: the smallest ratio of speed to fair speed, per GPU of the gang."""
    fleet = Fleet.of_table(drawn.speed, drawn.gpus, drawn.capacity)
    crowd = Crowd.of_kinds(drawn.kind, drawn.gpus.size)
    own = (drawn.fair / drawn.gpus)[crowd.kind]
    value, units = _filled(fleet, crowd, Curve.straight(own))
    return Answer(value, _by_job(fleet, crowd, units, drawn))


def throughput(drawn: Cluster) -> Answer:
    """Ours: the largest sum of speeds over fair speeds."""
    fleet = Fleet.of_table(drawn.speed, drawn.gpus, drawn.capacity)
    crowd = Crowd.of_kinds(drawn.kind, drawn.gpus.size)
    value, units = most(fleet, crowd, fleet.output / drawn.fair[fleet.kind])
    return Answer(value, _by_job(fleet, crowd, units, drawn))


def makespan(drawn: Cluster) -> Answer:
    """Ours: the time of the last job."""
    fleet, crowd = _each(drawn)
    level, units = _filled(fleet, crowd, Curve.straight(drawn.work))
    return Answer(1.0 / level, _as_table(fleet, crowd, units))


def finish_time(drawn: Cluster) -> Answer:
    """Ours: the largest ratio of the finish time to that alone."""
    fleet, crowd = _each(drawn)
    curve = Curve(drawn.work / drawn.alone, drawn.elapsed / drawn.alone)
    level, units = _filled(fleet, crowd, curve)
    return Answer(1.0 / level, _as_table(fleet, crowd, units))


def _each(drawn: Cluster) -> tuple[Fleet, Crowd]:
    """Every job an entry of its own: each has its own work."""
    one = np.ones(drawn.kind.size)
    fleet = Fleet.of_table(drawn.speed, drawn.gpus, drawn.capacity)
    return fleet, Crowd(drawn.kind, one, one, np.inf * one, 0.0 * one)


def _filled(fleet: Fleet, crowd: Crowd, curve: Curve) -> tuple[float, Array]:
    filled, pressure = fill(fleet, crowd, curve, once=True)
    return filled.level, deal(pressure, filled.taken, filled.need, fleet.hours)


def _as_table(fleet: Fleet, crowd: Crowd, units: Array) -> Array:
    """Units of each pair as fractions, (E, 3)."""
    entry, way = fleet.ways_of(crowd.kind)
    table = np.zeros((crowd.kind.size, fleet.capacity.size))
    table[entry, fleet.pool[way]] = units
    return table


def _by_job(fleet: Fleet, crowd: Crowd, units: Array, drawn: Cluster) -> Array:
    """What each class's jobs have, for each job, (J, 3)."""
    table = np.zeros((drawn.gpus.size, fleet.capacity.size))
    table[crowd.kind] = _as_table(fleet, crowd, units)
    by_job: Array = table[drawn.kind]
    return by_job


def _plain(drawn: Cluster, unit: Array) -> tuple[Any, list[Any]]:
    """Speeds times a unit, (J,), and the rules everybody keeps to."""
    share = cp.Variable((drawn.kind.size, 3), nonneg=True)
    speed = cp.sum(cp.multiply(drawn.speed[drawn.kind] * unit[:, None], share), axis=1)
    return speed, [drawn.gpus[drawn.kind] @ share <= drawn.capacity, cp.sum(share, axis=1) <= 1]


def plain_max_min(drawn: Cluster, solver: str) -> tuple[float, bool]:
    ratio, rules = _plain(drawn, (drawn.gpus / drawn.fair)[drawn.kind])
    return _solved(cp.Maximize(cp.min(ratio)), rules, solver)


def plain_throughput(drawn: Cluster, solver: str) -> tuple[float, bool]:
    ratio, rules = _plain(drawn, 1.0 / drawn.fair[drawn.kind])
    return _solved(cp.Maximize(cp.sum(ratio)), rules, solver)


def plain_makespan(drawn: Cluster, solver: str) -> tuple[float, bool]:
    """Bisection to STOP of the time, a feasibility programme for every halving."""
    speed, rules = _plain(drawn, 1.0 / drawn.work)
    low, high = 0.0, float((drawn.work / drawn.fair[drawn.kind]).max())
    while high - low > STOP * high:
        middle = (low + high) / 2
        problem = cp.Problem(cp.Maximize(0), [*rules, speed * middle >= 1])
        problem.solve(solver=solver)
        low, high = (low, middle) if problem.status == cp.OPTIMAL else (middle, high)
    return high, True


def plain_finish_time(drawn: Cluster, solver: str) -> tuple[float, bool]:
    """A separate reciprocal for every job, of its speed over the fair one: solvers end closer."""
    fair = drawn.fair[drawn.kind]
    speed, rules = _plain(drawn, 1.0 / fair)
    lead, pace = drawn.elapsed / drawn.alone, drawn.work / fair / drawn.alone
    ratios = [lead[job] + pace[job] * cp.inv_pos(speed[job]) for job in range(fair.size)]
    return _solved(cp.Minimize(cp.maximum(*ratios)), rules, solver)


def _solved(objective: Any, rules: list[Any], solver: str) -> tuple[float, bool]:
    problem = cp.Problem(objective, rules)
    problem.solve(solver=solver)
    return float(problem.value), problem.status == cp.OPTIMAL


POLICIES = {
    "max_min": Rivals(
        max_min,
        plain_max_min,
        ("CLARABEL", "ECOS", "HIGHS"),
        lambda drawn, speed: float((speed * (drawn.gpus / drawn.fair)[drawn.kind]).min()),
    ),
    "throughput": Rivals(
        throughput,
        plain_throughput,
        ("CLARABEL", "ECOS", "HIGHS"),
        lambda drawn, speed: float((speed / drawn.fair[drawn.kind]).sum()),
    ),
    "makespan": Rivals(
        makespan,
        plain_makespan,
        ("CLARABEL", "ECOS"),
        lambda drawn, speed: float((drawn.work / speed).max()),
    ),
    "finish_time": Rivals(
        finish_time,
        plain_finish_time,
        ("CLARABEL", "ECOS"),
        lambda drawn, speed: float(((drawn.elapsed + drawn.work / speed) / drawn.alone).max()),
    ),
}


if __name__ == "__main__":
    main()
