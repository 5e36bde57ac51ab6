"""A market of very many groups, cleared by regions that answer posted rents.

Each region says what its jobs would take at the rents, and what that is worth; a small master
programme over all answers so far proposes the next rents. A few dozen rounds bring the bound close
to the optimum, and one search over all runs, cut at the last rents only, ends with an award and the
same certificate as always. Rows of both programmes do not grow with the number of groups.
Source of the method: Dantzig and Wolfe, "Decomposition principle for linear programs" (1960); the
box that keeps the next rents near the best ones is Marsten, Hogan and Blankenship, "The Boxstep
method for large-scale optimization" (1975).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.solver import Linear, minimise
from economics.clearing.tiers.demand import Demand, Lines, ranges
from economics.clearing.tiers.envelope import choices
from economics.clearing.tiers.guess import smoothed_rents
from economics.clearing.tiers.search import Tiers, _Search, tiers_of
from economics.errors import NotCleared
from economics.market import Array, Index

CLOSE = 1e-5  # of the bound: what the next rents still promise when the search over runs begins
MOST_ROUNDS = 60
STEP = 0.05  # how far the next rents may lie from the best ones at first, relative
LEAST_STEP = 1e-4  # the same for small rents, relative to the largest
GOOD, POOR = 0.3, 0.1  # of what was promised: the box grows above, shrinks below
WIDER, NARROWER = 1.5, 0.6
LAST = 8  # of the rents on the way: runs are cut where jobs changed their mind at these
DOUBT = 0.02  # lines tried in the end, by how much dearer than the best they are
LOADED = 16  # regions a worker keeps in memory

_LINES = tuple(field.name for field in fields(Lines))
_JOBS = tuple(field.name for field in fields(Demand) if field.name not in ("lines", "start"))

Kept = Demand | str  # a region's jobs, or where they are kept
Ask = tuple[Kept, list[float]]  # and rents (P,), credits per GPU-hour
Answer = tuple[list[float], float]  # GPU-hours of each pool (P,), credits at reserve prices


class Apply(Protocol):
    """Something like `map`: answers in the order of what was asked, wherever they are found."""

    def __call__(self, function: Callable[[Ask], Answer], asks: list[Ask], /) -> Iterable[Answer]:
        """All answers."""


@dataclass(frozen=True, slots=True)
class Coordinated:
    """The award of all jobs, and how it was come by."""

    tiers: Tiers
    rounds: int  # times the regions were asked
    rows: int  # of the largest master programme
    bound: float  # credits, before the search over runs


def regions_of(demand: Demand, home: Index, count: int) -> list[Index]:
    """Groups by home site, in at most `count` regions of about equal work; home is (G,).

    Work is what an answer costs: jobs and lines. The groups of one home stay together; the
    largest home goes first, each to the region with least to do.
    """
    work = np.diff(demand.start) + demand.lines.pool.shape[1]
    sites, number = np.unique(home, return_inverse=True)
    heavy = np.bincount(number, work, sites.size)
    load = np.zeros(max(count, 1))
    region = np.zeros(sites.size, dtype=np.int64)
    for site in np.argsort(-heavy, kind="stable"):
        region[site] = load.argmin()
        load[region[site]] += heavy[site]
    of_group = region[number]
    return [np.flatnonzero(of_group == one) for one in np.unique(of_group)]


def part_of(demand: Demand, groups: Index) -> Demand:
    """The demand of some groups, ascending, numbered anew."""
    first, end = demand.start[groups], demand.start[groups + 1]
    places = ranges(first, end)
    jobs = {name: getattr(demand, name)[places] for name in _JOBS}
    start = np.concatenate([[0], np.cumsum(end - first)])
    return Demand(lines=demand.lines.part(groups), start=start, **jobs)


def respond(ask: Ask) -> Answer:
    """What a region's jobs would take at these rents if there were enough of everything.

    A pure function of its argument and, when that is a path, of the file there.
    """
    kept, rents = ask
    demand = kept if isinstance(kept, Demand) else _loaded(kept)
    rent = np.array(rents)
    chosen = choices(demand, rent)
    weight = np.add.reduceat(demand.weight, chosen.begin)
    served = np.flatnonzero(chosen.line < demand.lines.pool.shape[1])
    at, pool, hours = demand.lines.uses(chosen.group[served], chosen.line[served])
    used = np.bincount(pool, hours * weight[served][at], rent.size)
    return used.tolist(), float(chosen.gain.sum() + used @ rent)


def keep(demand: Demand, *, folder: Path) -> str:
    """Write a region's jobs to a file named by what is in it; its path. Workers must see it.

    So a worker that has read the file before never answers for other jobs.
    """
    named = {name: getattr(demand.lines, name) for name in _LINES}
    named |= {name: getattr(demand, name) for name in ("start", *_JOBS)}
    arrays = {name: array for name, array in named.items() if array is not None}
    digest = sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    path = folder / f"{digest.hexdigest()}.npz"
    np.savez(path, **arrays)
    return str(path)


def keeper(folder: Path) -> Callable[[Demand], str]:
    """`keep` with its folder, as `coordinate` wants it."""
    return partial(keep, folder=folder)


def coordinate(
    demand: Demand,
    capacity: Array,
    *,
    tolerance: float,
    regions: Sequence[Index],
    apply: Apply = map,
    kept: Callable[[Demand], Kept] | None = None,
    start: Array | None = None,
) -> Coordinated:
    """What `tiers_of` finds, to the same certificate, with rents that regions agreed on first.

    `regions` are groups that answer together, each group in one; neither their number nor their
    order changes what is proved. `kept` makes of a region's jobs what travels to a worker at
    each round: the arrays themselves by default. `start` are rents (P,) of an earlier round.
    Raises NotCleared when the solver proves nothing.
    """
    parts = [np.sort(groups) for groups in regions if len(groups)]
    parts.sort(key=lambda groups: int(groups[0]))
    asked = [part_of(demand, groups) for groups in parts]
    names = [kept(part) for part in asked] if kept else list(asked)
    agreed = _Agreement(capacity, _first(demand, capacity, start))
    rent: Array | None = agreed.centre
    while rent is not None:
        posted = rent.tolist()
        agreed.heard(rent, list(apply(respond, [(name, posted) for name in names])))
        rent = agreed.proposed()
    return Coordinated(
        tiers=_ended(demand, capacity, agreed, tolerance),
        rounds=agreed.rounds,
        rows=agreed.rows,
        bound=agreed.bound,
    )


def _first(demand: Demand, capacity: Array, start: Array | None) -> Array:
    """The rents posted first, (P,); those of pools with nothing to sell keep everybody away."""
    shut = shutting(demand, capacity)
    if not capacity.any():
        return shut
    return np.where(
        capacity > 0, smoothed_rents(demand, capacity) if start is None else start, shut
    )


def shutting(demand: Demand, capacity: Array) -> Array:
    """Rents (P,) at which nobody wants the pools that have nothing to sell; zero elsewhere."""
    lines, rent = demand.lines, np.zeros(capacity.shape)
    highest = demand.bid[demand.start[1:] - 1]
    gain = lines.worth * highest[:, None] - lines.charge
    uses = [(lines.pool, lines.hours)]
    if lines.second is not None and lines.more is not None:
        uses.append((lines.second, lines.more))
    for pool, hours in uses:
        shut = (capacity[pool] <= 0) & (hours > 0) & (gain > 0)
        np.maximum.at(rent, pool[shut], gain[shut] / hours[shut])
    return rent


class _Agreement:
    """Answers so far, the rents of the best bound, and the box the next rents are sought in."""

    def __init__(self, capacity: Array, rent: Array) -> None:
        self.capacity, self.centre = capacity, rent
        self.open = np.flatnonzero(capacity > 0)  # the other pools' rents stay what they are
        self.bound = np.inf
        self.step, self.promised, self.bound_by_box = STEP, np.inf, False
        self.used: list[Array] = []  # (regions, open pools), share of the capacity, each round
        self.value: list[Array] = []  # (regions,)
        self.seen: list[Array] = []  # rents
        self.rows = 0

    @property
    def rounds(self) -> int:
        return len(self.seen)

    def heard(self, rent: Array, answers: list[Answer]) -> None:
        """Keep the answers, and the rents if their bound is the best."""
        used = np.array([usage for usage, _ in answers])
        value = np.array([worth for _, worth in answers])
        self.used.append(used[:, self.open] / self.capacity[self.open])
        self.value.append(value)
        self.seen.append(rent)
        bound = float(self.capacity @ rent + value.sum() - used.sum(axis=0) @ rent)
        gained = self.bound - bound
        if self.rounds > 1:
            if gained > GOOD * self.promised and self.bound_by_box:
                self.step *= WIDER
            elif gained <= POOR * self.promised:
                self.step *= NARROWER
        if gained > 0:
            self.centre, self.bound = rent, bound

    def proposed(self) -> Array | None:
        """The rents that the answers so far promise most of; None when that is little."""
        if self.rounds == MOST_ROUNDS or not self.open.size or self.bound <= 0:
            return None
        rent, promise = self._master()
        self.promised = max(self.bound - promise, 0.0)
        return None if self.promised <= CLOSE * self.bound else rent

    def _master(self) -> tuple[Array, float]:
        """The best mix of the answers; beyond the box, pools buy and sell at its edge."""
        centre, size = self.centre[self.open], self.capacity[self.open]
        room = self.step * centre + LEAST_STEP * centre.max()
        low, high = np.maximum(centre - room, 0.0), centre + room
        regions, pools = self.value[0].size, self.open.size
        used = np.concatenate(self.used)
        answers, one = used.shape[0], np.ones(pools)
        which, pool = np.nonzero(used)
        own, edge = np.arange(answers), answers + np.arange(pools)
        owner = pools + np.tile(np.arange(regions), self.rounds)
        matrix = csr_array(
            (
                np.concatenate([used[which, pool], np.ones(answers), -one, one]),
                (
                    np.concatenate([pool, owner, np.arange(pools), np.arange(pools)]),
                    np.concatenate([which, own, edge, pools + edge]),
                ),
            ),
            shape=(pools + regions, answers + 2 * pools),
        )
        self.rows = max(self.rows, pools + regions)
        solved = minimise(
            Linear(
                cost=np.concatenate([-np.concatenate(self.value), high * size, -low * size]),
                matrix=matrix,
                low=np.full(pools + regions, -np.inf),
                high=np.ones(pools + regions),
                least=np.zeros(answers + 2 * pools),
                most=np.full(answers + 2 * pools, np.inf),
            )
        )
        bought, sold = np.split(solved.values[answers:], 2)
        self.bound_by_box = bool((bought > 0).any() or (sold[low > 0] > 0).any())
        rent = self.centre.copy()
        rent[self.open] = np.clip(-solved.row_dual[:pools] / size, low, high)
        return rent, -solved.objective


def _ended(demand: Demand, capacity: Array, agreed: _Agreement, tolerance: float) -> Tiers:
    """The search over all runs from the rents agreed on, or from nothing if that gets stuck."""
    try:
        return _Ending(demand, capacity, agreed.centre, agreed.seen[-LAST:]).run(tolerance)
    except NotCleared:
        return tiers_of(demand, capacity, tolerance=tolerance)


class _Ending(_Search):
    """A search that begins where jobs changed their mind at the last rents."""

    def __init__(self, demand: Demand, capacity: Array, rent: Array, seen: list[Array]) -> None:
        self.demand, self.capacity = demand, capacity
        self.looked = []
        self.rent, self.bound, self.margin = None, np.inf, DOUBT
        self.cut = np.unique(
            np.concatenate([demand.start, *(choices(demand, other).begin for other in seen)])
        )
        self._look(rent)


@lru_cache(maxsize=LOADED)
def _loaded(path: str) -> Demand:
    with np.load(path) as arrays:
        found = dict(arrays)
    lines = Lines(**{name: found.pop(name) for name in _LINES if name in found})
    return Demand(lines=lines, **found)
