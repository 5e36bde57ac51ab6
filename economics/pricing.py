"""The one price rule: a solver's dual is *a* supporting price, this rule chooses *the* price.

A rent is what a pool's price lies above its reserve. Rents and the jobs' duals y satisfy, for every
column, hours x rent + duals >= gain; then limit @ y less the welfare is the total regret of sites
and jobs at those rents. The rule, for divisible, gang and mixed books (economics.md 3.3, 3.4):

1. least regret R* such that nobody trades at a loss and no price passes its cap (R* = 0 for a
   divisible book without caps);
2. an anchor: last round's rents; or, for a pool without one, a point between the lowest and the
   highest rents of regret R*;
3. the rents nearest to the anchor whose regret is at most R* + epsilon x welfare. In a divisible
   book they also leave no coalition of sites better off alone.

Duals are scaled to credits per GPU-hour over the dearest column, so every entry is about one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array

from economics import accounts
from economics.clearing.allocation import Allocation
from economics.clearing.program import Program
from economics.errors import NotCleared
from economics.faces import Polyhedron, nearest, optimal_face
from economics.market import Array, Index, Market

ROOM = 1e-9  # scaled rent by which a bound clears the point it was read from
MOST_CUTS = 200  # coalitions added one by one before we give up

# Given site payoffs (N,), the coalition (a mask of sites) that gains most by leaving, with its
# value; None when no coalition gains.
Blocking = Callable[[Array], "tuple[Array, float] | None"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the price rule is asked for."""

    previous: Array  # (P,) rents of the last round; nan = none
    seller_share: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Scale:
    """From scaled duals to credits."""

    unit: float  # credits per GPU-hour of the dearest column
    dual: Array  # (R,) credits per row unit of a scaled dual of one


def rents(market: Market, found: Allocation, wish: Wish, blocking: Blocking) -> Array:
    """Rents of the pools, (P,), credits per GPU-hour above reserve."""
    program = found.program
    if not market.columns:
        return np.zeros(market.pools)
    scale = _scale_of(program)
    space = _supporting(market, found, scale)
    regret = program.limit * scale.dual / (scale.unit * max(market.capacity.sum(), 1.0))
    face, least = optimal_face(space, regret)
    anchor = _anchor(market, face, wish, scale)
    thick = wish.epsilon * found.welfare
    if thick <= 0:
        return _rents_of(nearest(face, anchor), market, scale)
    allowed = thick / (scale.unit * max(market.capacity.sum(), 1.0))
    near = space.with_rows(csr_array(-regret[None, :]), np.array([-(least + allowed)]))
    return _stable(market, found, near, anchor, scale, blocking)


def keeps_core(market: Market) -> bool:
    """Whether the price rule itself leaves no coalition better off alone.

    With gangs such linear prices need not exist, under price caps neither.
    """
    return market.divisible and not np.isfinite(market.ceiling).any()


def payoffs_at(market: Market, share: Array, rent: Array) -> Array:
    """Site payoffs, (N,), when every column pays reserve and rent."""
    price = (market.reserve + rent)[market.pool]
    return accounts.site_payoffs(market, share, price * market.gpu_hours * share)


def _scale_of(program: Program) -> _Scale:
    """Scale each dual so that its largest entry per GPU-hour is one."""
    per_hour = abs(program.matrix) @ diags_array(1.0 / program.hours)
    largest = csr_array(per_hour).max(axis=1).toarray().ravel()
    unit = float(np.max(program.gain / program.hours))
    return _Scale(unit=unit, dual=unit / np.where(largest > 0, largest, 1.0))


def _supporting(market: Market, found: Allocation, scale: _Scale) -> Polyhedron:
    """Duals of the relaxation that no accepted order loses by and no cap forbids."""
    program = found.program
    by_hour = diags_array(1.0 / (program.hours * scale.unit))
    support = csr_array(by_hour @ program.matrix.T @ diags_array(scale.dual))
    rows = support.shape[1]
    dead = np.diff(program.matrix.indptr) == 0  # rows no variable is in: pools nobody can use
    space = Polyhedron(
        support,
        program.gain / (program.hours * scale.unit),
        np.zeros(support.shape[0], dtype=bool),
        dead,
    )
    space = space.with_rows(*_no_loss(market, found, scale, rows))
    capped = np.flatnonzero(np.isfinite(market.ceiling))
    return space.with_rows(_picks(capped, rows, -1.0), -market.ceiling[capped] / scale.unit)


def _no_loss(
    market: Market, found: Allocation, scale: _Scale, rows: int
) -> tuple[csr_array, Array]:
    """Each served job without a floor keeps something: its rents are at most its gain."""
    gain = accounts.job_gain(market, found.share)
    hours = csr_array(
        (market.gpu_hours * found.share, (market.job, market.pool)), shape=(market.jobs, rows)
    )
    total = hours.sum(axis=1)
    served = np.flatnonzero((total > 0) & (market.floor == 0))
    per_hour = diags_array(1.0 / total[served])
    return csr_array(-(per_hour @ hours[served])), -gain[served] / total[served] / scale.unit


def _picks(at: Index, size: int, entry: float) -> csr_array:
    """One row for each variable in `at`, with one entry."""
    return csr_array((np.full(at.size, entry), (np.arange(at.size), at)), shape=(at.size, size))


def _anchor(market: Market, face: Polyhedron, wish: Wish, scale: _Scale) -> Array:
    """Scaled rents to stay near to, (P,): last round's, else between the lowest and the highest."""
    known = np.isfinite(wish.previous)
    previous = np.maximum(np.where(known, wish.previous, 0.0), 0.0) / scale.unit
    if known.all():
        return previous
    lowest = nearest(face, np.zeros(market.pools))[: market.pools]
    top = _highest(market, face, lowest, scale)
    highest = nearest(top, np.zeros(market.pools))[: market.pools]
    between = (1 - wish.seller_share) * lowest + wish.seller_share * highest
    return np.where(known, previous, between)


def _highest(market: Market, face: Polyhedron, lowest: Array, scale: _Scale) -> Polyhedron:
    """The part of the face with the largest sum of rents, none above the best gain in its pool.

    Floors can hold even the lowest rent above every gain; that rent is then the bound.
    """
    best = np.zeros(market.pools)
    np.maximum.at(best, market.pool, market.gain / market.gpu_hours)
    bound = np.maximum(best / scale.unit, lowest + ROOM * (lowest > best / scale.unit))
    rows = face.fixed.size
    bounded = face.with_rows(_picks(np.arange(market.pools), rows, -1.0), -bound)
    top, _ = optimal_face(bounded, np.where(np.arange(rows) < market.pools, -1.0, 0.0))
    return top


def _stable(
    market: Market,
    found: Allocation,
    space: Polyhedron,
    anchor: Array,
    scale: _Scale,
    blocking: Blocking,
) -> Array:
    """Nearest rents at which, in a divisible book, no coalition of sites is better off alone."""
    for _ in range(MOST_CUTS):
        rent = _rents_of(nearest(space, anchor), market, scale)
        if not keeps_core(market):
            return rent
        worst = blocking(payoffs_at(market, found.share, rent))
        if worst is None:
            return rent
        space = space.with_rows(*_keeps(market, found, worst, scale, space.fixed.size))
    raise NotCleared(f"{MOST_CUTS} coalitions did not settle the prices")


def _keeps(
    market: Market, found: Allocation, worst: tuple[Array, float], scale: _Scale, rows: int
) -> tuple[csr_array, Array]:
    """The coalition's payoff, which is linear in the rents, is at least its value alone."""
    members, value = worst
    hours = market.gpu_hours * found.share
    sold = np.bincount(market.pool, hours * members[market.owner[market.pool]], market.pools)
    bought = np.bincount(market.pool, hours * members[market.home[market.job]], market.pools)
    at_reserve = float(payoffs_at(market, found.share, np.zeros(market.pools)) @ members)
    net = np.zeros(rows)
    net[: market.pools] = sold - bought
    size = max(float(np.abs(net).max(initial=0.0)), 1e-12)
    return csr_array(net[None, :] / size), np.array([(value - at_reserve) / (size * scale.unit)])


def _rents_of(point: Array, market: Market, scale: _Scale) -> Array:
    rent: Array = np.maximum(point[: market.pools], 0.0) * scale.unit
    return rent
