"""AlloX: jobs matched to places on machines, so that their mean completion time is least.

A job that is the k-th from last on machine i delays itself and the k - 1 jobs behind it: its own
time counts k times in the sum of completion times. So the best orders on all machines together are
one assignment of jobs j to places (i, k) of least

    sum of  k p_ij + d_ij,    d_ij = max(0, available_i - release_j),

every job in one place, no place with two jobs; machine i serves its places from the largest k down
to 1. This is exact when all jobs are present and each runs on one machine to its end.

`match_by_lp` writes that down for cvxpy; its matrix is totally unimodular, so the linear programme
has a whole optimum. `match` is the fast path, by scipy's assignment solver, on fewer places. Of
machines that are alike but for the moment they are free, no optimum uses more than

    n_i <= (n + g - 1 + sum over the others of (a_other - a_i) / p) / g

places of machine i, where g machines are alike and p is the least (for a negative difference, the
largest) time of a job there: else its first job would better be the first of another machine. With
g machines free at once that is ceil(n / g) places each, not n. Nothing is lost by leaving out the
rest.

Source: Le, Sun, Chowdhury and Liu, "AlloX: compute allocation in hybrid clusters" (EuroSys 2020).
Shapes: n jobs, m machines. Times are in any one unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from economics.errors import NotCleared
from economics.market import Array, Index

ROUNDING = 1e-9
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Work:
    """Jobs and machines, as far as completion times depend on them."""

    time: Array  # (n, m) of the job on the machine; inf = cannot run there
    available: Array  # (m,) moment the machine is free
    release: Array  # (n,) moment the job arrived
    toll: Array | None = None  # (n, m) added for running there: a price, in units of time
    kind: Index | None = None  # (m,) machines of one number have equal columns; None = look

    def delay(self) -> Array:
        """Waiting for the machine to be free, and the toll, (n, m)."""
        waiting = np.maximum(self.available[None, :] - self.release[:, None], 0.0)
        return waiting if self.toll is None else waiting + self.toll

    def kinds(self) -> Index:
        """Number of each machine's kind, (m,): every job takes and pays the same on all of it."""
        if self.kind is not None:
            return self.kind
        columns = self.time if self.toll is None else np.vstack([self.time, self.toll])
        kind: Index = np.unique(columns, axis=1, return_inverse=True)[1].astype(np.int64)
        return kind


@dataclass(frozen=True, slots=True)
class Matching:
    """Where every job goes. Jobs that can run nowhere have no place."""

    machine: Index  # (n,) or NOWHERE
    place: Index  # (n,) 1 = last on its machine
    total: float  # sum of completion times since release, and of tolls

    def first(self) -> Index:
        """The job each machine serves first, by machine, for machines that have one."""
        order = np.lexsort((-self.place, self.machine))
        order = order[self.machine[order] != NOWHERE]
        _, at = np.unique(self.machine[order], return_index=True)
        first: Index = order[at]
        return first


@dataclass(frozen=True, slots=True)
class _Places:
    """Places on offer: machine, and rank from last."""

    machine: Index  # (Q,)
    rank: Index  # (Q,) from 1

    def cost(self, work: Work) -> Array:
        """Of each job in each place, (n, Q); inf where it cannot run."""
        cost: Array = self.rank * work.time[:, self.machine] + work.delay()[:, self.machine]
        return cost


def match(work: Work) -> Matching:
    """The best matching, by the assignment solver, on the places an optimum may use.

    Among machines that are alike and free together the first serves the first place. Jobs with
    equal rows are interchangeable: the one that stands first goes first.
    """
    able = np.flatnonzero(np.isfinite(work.time).any(axis=1))
    some = _only(work, able)
    places = _capped(some)
    cost = places.cost(some)
    finite = np.isfinite(cost)
    barred = 1.0 + 2 * (able.size + 1) * float(cost[finite].max(initial=0.0))
    _, taken = linear_sum_assignment(np.where(finite, cost, barred))
    total = float(cost[np.arange(able.size), taken].sum())
    return _in_job_order(work, _placed(work, able, places, taken, total))


def match_by_lp(work: Work) -> tuple[Matching, Array]:
    """The same by the linear programme over all places, and its optimum x, (n, n m).

    The readable reference, for small instances: n * n * m variables. Raises NotCleared unless the
    solver proves an optimum.
    """
    able = np.flatnonzero(np.isfinite(work.time).any(axis=1))
    some = _only(work, able)
    places = _all(some)
    x = np.zeros((work.release.size, places.rank.size))
    x[able], total = _solve(places.cost(some))
    taken = x[able].argmax(axis=1) if able.size else able
    return _placed(work, able, places, taken, total), x


def _solve(cost: Array) -> tuple[Array, float]:
    """Least cost of one place for each job, as shares (n, Q), and its total."""
    import cvxpy as cp  # noqa: PLC0415 - takes half a second, and only the reference needs it

    job, slot = np.nonzero(np.isfinite(cost))
    if not job.size:
        return np.zeros(cost.shape), 0.0
    ones, each = np.ones(job.size), np.arange(job.size)
    of_job = csr_array((ones, (job, each)), shape=(cost.shape[0], job.size))
    of_place = csr_array((ones, (slot, each)), shape=(cost.shape[1], job.size))
    share = cp.Variable(job.size, nonneg=True)
    every_job_has_a_place = of_job @ share == 1
    no_place_has_two_jobs = of_place @ share <= 1
    problem = cp.Problem(
        cp.Minimize(cost[job, slot] @ share), [every_job_has_a_place, no_place_has_two_jobs]
    )
    problem.solve(solver=cp.HIGHS)
    if problem.status != cp.OPTIMAL:
        raise NotCleared(problem.status)
    x = np.zeros(cost.shape)
    x[job, slot] = share.value
    return x, float(problem.value)


def _placed(work: Work, able: Index, places: _Places, taken: Index, total: float) -> Matching:
    machine = np.full(work.release.shape, NOWHERE, dtype=np.int64)
    place = np.zeros(work.release.shape, dtype=np.int64)
    machine[able], place[able] = places.machine[taken], places.rank[taken]
    return Matching(machine, place, total)


def _only(work: Work, jobs: Index) -> Work:
    toll = None if work.toll is None else work.toll[jobs]
    return Work(work.time[jobs], work.available, work.release[jobs], toll, work.kind)


def _all(work: Work) -> _Places:
    """As many places on each machine as there are jobs."""
    jobs, machines = work.time.shape
    return _Places(np.repeat(np.arange(machines), jobs), np.tile(np.arange(1, jobs + 1), machines))


def _capped(work: Work) -> _Places:
    """No more places than an optimum uses."""
    jobs, machines = work.time.shape
    most = np.zeros(machines, dtype=np.int64)
    for alike in _alike(work):
        most[alike] = _most_places(work, alike)
    most = np.minimum(most, jobs)
    machine = np.repeat(np.arange(machines), most)
    before = np.repeat(np.cumsum(most) - most, most)
    return _Places(machine, np.arange(machine.size) - before + 1)


def _alike(work: Work) -> Iterator[Index]:
    """Machines of each kind."""
    kind = work.kinds()
    order = np.argsort(kind, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(kind[order])) + 1)


def _most_places(work: Work, alike: Index) -> Index:
    """Most jobs an optimum puts on each of these machines, (g,)."""
    time = work.time[:, alike[0]]
    time = time[np.isfinite(time)]
    if not time.size:
        return np.zeros(alike.shape, dtype=np.int64)
    at = work.available[alike]
    later = np.maximum(at[None, :] - at[:, None], 0.0) / time.min()  # (g, g) over the others
    sooner = np.maximum(at[:, None] - at[None, :], 0.0) / time.max()
    if (work.release > at.min()).any():
        sooner = np.zeros(sooner.shape)  # a job that arrives later may not have waited
    bound = (time.size + alike.size - 1 + (later - sooner).sum(axis=1)) / alike.size
    most: Index = np.floor(np.maximum(bound, 0.0) * (1 + ROUNDING) + ROUNDING).astype(np.int64)
    return most


def _in_job_order(work: Work, found: Matching) -> Matching:
    """Among jobs that are alike, the first by number has the place that is served soonest."""
    _, one_of = np.unique(work.kinds(), return_index=True)
    alike: dict[bytes, list[int]] = {}
    for job, release in enumerate(work.release):
        row = np.append(work.time[job, one_of], release)
        toll = np.zeros(0) if work.toll is None else work.toll[job, one_of]
        alike.setdefault(row.tobytes() + toll.tobytes(), []).append(job)
    machine, place, start = found.machine.copy(), found.place.copy(), starts(work, found)
    for same in alike.values():
        soonest = np.array(same)[np.lexsort((found.machine[same], start[same]))]
        machine[same], place[same] = found.machine[soonest], found.place[soonest]
    return Matching(machine, place, found.total)


def starts(work: Work, found: Matching) -> Array:
    """Moment each job starts under a matching, (n,); inf without a place."""
    start = np.full(work.release.shape, np.inf)
    for at in np.unique(found.machine[found.machine != NOWHERE]):
        jobs = np.flatnonzero(found.machine == at)
        jobs = jobs[np.argsort(-found.place[jobs])]
        took = work.time[jobs, at]
        start[jobs] = work.available[at] + np.cumsum(took) - took
    return start
