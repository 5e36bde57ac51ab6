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
from scipy.sparse import csr_array, diags_array, vstack

from economics import accounts
from economics.clearing.program import Program
from economics.errors import NotCleared
from economics.faces import Polyhedron, nearest, optimal_face
from economics.market import Array, Index, Market, Mask

ROOMS = (0.0, 1e-9, 1e-8, 1e-7)  # scaled rents by which a bound clears the point it was read from
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
class Scale:
    """From scaled duals to credits."""

    unit: float  # credits per GPU-hour of the dearest column
    dual: Array  # (R,) credits per row unit of a scaled dual of one


@dataclass(frozen=True, slots=True)
class Case:
    """What prices are wanted for: an award, and the programme whose duals support it.

    The programme may be one over runs of jobs instead of jobs; its pools come first all the same.
    """

    market: Market
    program: Program
    share: Array  # (K,)
    welfare: float  # credits
    stable: bool  # whether the rents must leave no coalition better off alone


@dataclass(frozen=True, slots=True)
class Priced:
    """Rents, and the others the rule looked at on its way, (P,) each, credits per GPU-hour."""

    rent: Array
    looked: tuple[Array, ...]


def rents(case: Case, wish: Wish, blocking: Blocking) -> Priced:
    """Rents of the pools, (P,), credits per GPU-hour above reserve."""
    market, program = case.market, case.program
    if not market.columns or not program.gain.size:
        return Priced(np.zeros(market.pools), ())
    scale = scale_of(program)
    idle = np.bincount(market.pool, minlength=market.pools) == 0
    space = supporting(program, scale, idle)
    space = space.with_rows(*_no_loss(market, case.share, scale, space.fixed.size))
    space = _capped(market, space, scale)
    regret = regret_cost(program, scale, market.capacity)
    face, least = optimal_face(space, regret)
    anchor, looked = _anchor(market, face, wish, scale)
    thick = wish.epsilon * case.welfare
    if thick <= 0:
        return Priced(rents_of(nearest(face, anchor), market.pools, scale), looked)
    allowed = thick / (scale.unit * max(market.capacity.sum(), 1.0))
    near = space.with_rows(csr_array(-regret[None, :]), np.array([-(least + allowed)]))
    return Priced(_stable(case, near, anchor, scale, blocking), looked)


def keeps_core(market: Market) -> bool:
    """Whether the price rule itself leaves no coalition better off alone.

    With gangs such linear prices need not exist, under price caps neither.
    """
    return market.divisible and not np.isfinite(market.ceiling).any()


def payoffs_at(market: Market, share: Array, rent: Array) -> Array:
    """Site payoffs, (N,), when every column pays reserve and rent."""
    price = (market.reserve + rent)[market.pool]
    return accounts.site_payoffs(market, share, price * market.gpu_hours * share)


def scale_of(program: Program) -> Scale:
    """Scale each dual so that its largest entry per GPU-hour is one."""
    per_hour = abs(program.matrix) @ diags_array(1.0 / program.hours)
    largest = csr_array(per_hour).max(axis=1).toarray().ravel()
    largest[: program.pools] = 1.0  # a rent is per GPU-hour, whatever share of a line it is paid on
    unit = float(np.max(program.gain / program.hours))
    return Scale(unit=unit, dual=unit / np.where(largest > 0, largest, 1.0))


def supporting(program: Program, scale: Scale, idle: Mask) -> Polyhedron:
    """Duals of the relaxation, pools first, scaled. An idle pool (P,) is one nobody can use."""
    by_hour = diags_array(1.0 / (program.hours * scale.unit))
    support = csr_array(by_hour @ program.matrix.T @ diags_array(scale.dual))
    dead = np.diff(program.matrix.indptr) == 0  # rows no variable is in
    dead[: program.pools] = idle
    return Polyhedron(
        support,
        program.gain / (program.hours * scale.unit),
        np.zeros(support.shape[0], dtype=bool),
        dead,
    )


def regret_cost(program: Program, scale: Scale, capacity: Array) -> Array:
    """What scaled duals cost, (R,): their total is the welfare plus all regret."""
    cost: Array = program.limit * scale.dual / (scale.unit * max(float(capacity.sum()), 1.0))
    return cost


def _capped(market: Market, space: Polyhedron, scale: Scale) -> Polyhedron:
    """No rent above its cap."""
    capped = np.flatnonzero(np.isfinite(market.ceiling))
    rows = _picks(capped, space.fixed.size, -1.0)
    return space.with_rows(rows, -market.ceiling[capped] / scale.unit)


def _no_loss(market: Market, share: Array, scale: Scale, rows: int) -> tuple[csr_array, Array]:
    """Each served job without a floor keeps something: its rents are at most its gain.

    Of the jobs served by one pool alone, the one that keeps least speaks for the others.
    """
    taken = np.flatnonzero((share > 0) & (market.floor[market.job] == 0))
    job, pool = market.job[taken], market.pool[taken]
    hours = (market.gpu_hours * share)[taken]
    total = np.bincount(job, hours, market.jobs)
    keeps = accounts.job_gain(market, share)[job] / total[job] / scale.unit
    single = np.bincount(job, minlength=market.jobs)[job] == 1
    most = np.full(market.pools, np.inf)
    np.minimum.at(most, pool[single], keeps[single])
    bound = np.flatnonzero(np.isfinite(most))
    several, number = np.unique(job[~single], return_inverse=True)
    mixed = csr_array(
        (-(hours / total[job])[~single], (number, pool[~single])), shape=(several.size, rows)
    )
    first = np.searchsorted(job[~single], several)
    return (
        csr_array(vstack([_picks(bound, rows, -1.0), mixed])),
        np.concatenate([-most[bound], -keeps[~single][first]]),
    )


def _picks(at: Index, size: int, entry: float) -> csr_array:
    """One row for each variable in `at`, with one entry."""
    return csr_array((np.full(at.size, entry), (np.arange(at.size), at)), shape=(at.size, size))


def _anchor(
    market: Market, face: Polyhedron, wish: Wish, scale: Scale
) -> tuple[Array, tuple[Array, ...]]:
    """Scaled rents to stay near to, (P,): last round's, else between the lowest and the highest."""
    known = np.isfinite(wish.previous)
    previous = np.maximum(np.where(known, wish.previous, 0.0), 0.0) / scale.unit
    if known.all():
        return previous, ()
    lowest = nearest(face, np.zeros(market.pools))[: market.pools]
    top = _highest(market, face, lowest, scale)
    highest = nearest(top, np.zeros(market.pools))[: market.pools]
    between = (1 - wish.seller_share) * lowest + wish.seller_share * highest
    looked = (lowest * scale.unit, highest * scale.unit)
    return np.where(known, previous, between), looked


def _highest(market: Market, face: Polyhedron, lowest: Array, scale: Scale) -> Polyhedron:
    """The part of the face with the largest sum of rents, none above the best gain in its pool.

    Floors can hold even the lowest rent above every gain; that rent is then the bound.
    """
    best = np.zeros(market.pools)
    np.maximum.at(best, market.pool, market.gain / market.gpu_hours)
    best /= scale.unit
    rows = face.fixed.size
    for room in ROOMS:  # the lowest rent is read from a solver: its last digits may be too high
        bound = np.maximum(best, np.where(lowest > best - room, lowest + room, 0.0))
        bounded = face.with_rows(_picks(np.arange(market.pools), rows, -1.0), -bound)
        try:
            top, _ = optimal_face(bounded, np.where(np.arange(rows) < market.pools, -1.0, 0.0))
        except NotCleared:
            continue
        return top
    raise NotCleared("no rents are between the lowest and the best gains")


def _stable(
    case: Case, space: Polyhedron, anchor: Array, scale: Scale, blocking: Blocking
) -> Array:
    """Nearest rents at which, in a divisible book, no coalition of sites is better off alone."""
    for _ in range(MOST_CUTS):
        rent = rents_of(nearest(space, anchor), case.market.pools, scale)
        if not case.stable:
            return rent
        worst = blocking(payoffs_at(case.market, case.share, rent))
        if worst is None:
            return rent
        space = space.with_rows(*_keeps(case, worst, scale, space.fixed.size))
    raise NotCleared(f"{MOST_CUTS} coalitions did not settle the prices")


def _keeps(
    case: Case, worst: tuple[Array, float], scale: Scale, rows: int
) -> tuple[csr_array, Array]:
    """The coalition's payoff, which is linear in the rents, is at least its value alone."""
    market, (members, value) = case.market, worst
    hours = market.gpu_hours * case.share
    sold = np.bincount(market.pool, hours * members[market.owner[market.pool]], market.pools)
    bought = np.bincount(market.pool, hours * members[market.home[market.job]], market.pools)
    at_reserve = float(payoffs_at(market, case.share, np.zeros(market.pools)) @ members)
    net = np.zeros(rows)
    net[: market.pools] = sold - bought
    size = max(float(np.abs(net).max(initial=0.0)), 1e-12)
    return csr_array(net[None, :] / size), np.array([(value - at_reserve) / (size * scale.unit)])


def rents_of(point: Array, pools: int, scale: Scale) -> Array:
    """The rents among scaled duals, (P,), credits per GPU-hour."""
    rent: Array = np.maximum(point[:pools], 0.0) * scale.unit
    return rent
