"""Among awards of equal welfare, the one the tie rule names: fewest moves, then job, then pool.

Running jobs stay where they are if they can; then the first job by id gets as much as it can in
its first pool by id, and so on. Divisible ties are settled on the optimal face (columns with a
reduced cost stay out, rows with a dual stay tight), never by giving up welfare (economics.md, 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array, vstack

from economics.clearing.program import Program
from economics.clearing.solver import Linear, Solved, minimise
from economics.errors import NotCleared
from economics.market import Array, Index, Market

POSITIVE = 1e-7  # duals above this, relative to the dearest, hold
SAME = 1e-7  # shares closer than this are equal
EQUAL = 1e-9  # relative difference of welfare within which whole awards tie
TIE_NODES = 100  # nodes spent on each step; past them the award found so far stays
MOST_TIED = 64  # whole columns up to which the rule is followed exactly
CHUNK = 12  # columns decided at once, by weights 2^11 .. 1
MOST_STEPS = 400  # divisible columns settled one by one
LOOK = 8  # steps after which we look whether one point is left
GOLDEN = 0.6180339887498949  # its multiples modulo 1 are a direction no face is normal to


@dataclass(frozen=True, slots=True)
class Optimum:
    """An optimal award, its relaxation, and the programme both solve."""

    program: Program
    linear: Linear  # the relaxation
    relaxed: Solved
    best: Solved


def settle_ties(market: Market, found: Optimum, *, nodes: int) -> Array:
    """Values of the variables, (V,), of the award the tie rule names."""
    stay = _stay(market, found.program)
    values, linear = found.best.values, found.linear
    if found.program.integral:
        values = _settle_whole(found, values, stay, nodes)
        values = _in_job_order(market, found.program, values)
        linear = _held(linear, found.program, values)
    if not found.program.whole.all():
        values = _settle_divisible(linear, stay)
    kept = found.program.gain @ values >= found.program.gain @ found.best.values - _slack(found)
    return values if kept else found.best.values


def _stay(market: Market, program: Program) -> Array:
    """A cost that keeps running jobs where they are: less the GPU-hours they keep there, (V,)."""
    serves = program.column >= 0
    cost = np.zeros(program.gain.shape)
    cost[serves] = -(market.stays * market.gpu_hours)[program.column[serves]]
    return cost


def _slack(found: Optimum) -> float:
    return EQUAL * max(abs(found.best.objective), 1e-12)


def _settle_whole(found: Optimum, values: Array, stay: Array, nodes: int) -> Array:
    """Whole variables in the order of the rule, a chunk at a time."""
    program = found.program
    lost = found.best.objective - found.relaxed.objective + _slack(found)
    open_ = np.flatnonzero(program.whole & (found.relaxed.reduced_cost <= lost))
    if open_.size > MOST_TIED or not _has_rival(found, nodes):
        return values
    shut = program.whole & (found.relaxed.reduced_cost > lost)
    linear = _at_least(found, np.where(shut, 0.0, np.where(program.whole, 1.0, np.inf)))
    nodes = min(nodes, TIE_NODES)
    try:
        if stay[open_].any():
            linear, values = _no_worse(linear, stay, nodes)
        order = open_[np.argsort(program.column[open_] < 0, kind="stable")]
        for chunk in np.array_split(order, max(1, -(-order.size // CHUNK))):
            step = minimise(replace(linear, cost=_first(chunk, values.size)), nodes=nodes)
            values = step.values
            if not step.proved:
                break
            least, most = linear.least.copy(), linear.most.copy()
            least[chunk] = most[chunk] = values[chunk]
            linear = replace(linear, least=least, most=most)
    except NotCleared:
        return found.best.values
    return values


def _has_rival(found: Optimum, nodes: int) -> bool:
    """Whether another choice of the whole variables reaches the best welfare."""
    program, taken = found.program, np.round(found.best.values)
    differs = np.where(program.whole, np.where(taken > 0, -1.0, 1.0), 0.0)
    rivals = replace(
        found.linear,
        matrix=csr_array(vstack([found.linear.matrix, csr_array(differs[None, :])])),
        low=np.append(found.linear.low, 1.0 - taken[program.whole].sum()),
        high=np.append(found.linear.high, np.inf),
        most=np.where(program.whole, 1.0, np.inf),
        whole=program.whole,
    )
    try:
        minimise(rivals, nodes=nodes, below=found.best.objective + _slack(found))
    except NotCleared:
        return False
    return True


def _at_least(found: Optimum, most: Array) -> Linear:
    """All awards, whole variables whole, of the best welfare."""
    gain, welfare = found.program.gain, -found.best.objective
    return replace(
        found.linear,
        matrix=csr_array(vstack([found.linear.matrix, csr_array(gain[None, :])])),
        low=np.append(found.linear.low, welfare - _slack(found)),
        high=np.append(found.linear.high, np.inf),
        most=most,
        whole=found.program.whole,
    )


def _no_worse(linear: Linear, cost: Array, nodes: int) -> tuple[Linear, Array]:
    """The same with `cost` at its minimum, and a solution."""
    solved = minimise(replace(linear, cost=cost), nodes=nodes)
    limit = solved.objective + EQUAL * max(1.0, abs(solved.objective))
    limited = replace(
        linear,
        matrix=csr_array(vstack([linear.matrix, csr_array(cost[None, :])])),
        low=np.append(linear.low, -np.inf),
        high=np.append(linear.high, limit),
    )
    return limited, solved.values


def _first(chunk: Index, size: int) -> Array:
    """A cost that takes the first of the chunk if it can, then the second, and so on."""
    cost = np.zeros(size)
    cost[chunk] = -(2.0 ** np.arange(chunk.size - 1, -1, -1))
    return cost


def _in_job_order(market: Market, program: Program, values: Array) -> Array:
    """Among gangs that are alike in everything but their id, the first id is served first."""
    alike: dict[bytes, list[slice]] = {}
    for job in np.flatnonzero(market.gang):
        at = market.columns_of(int(job))
        marks = (market.pool, market.gpu_hours, market.value, market.cost, market.stays)
        key = b"".join(np.ascontiguousarray(array[at]).tobytes() for array in marks)
        alike.setdefault(market.home[job].tobytes() + key, []).append(at)
    values = values.copy()
    for places in alike.values():
        awards = sorted((tuple(values[at]) for at in places), reverse=True)
        for at, award in zip(places, awards, strict=True):
            values[at] = award
    return values


def _held(linear: Linear, program: Program, values: Array) -> Linear:
    """The programme of the divisible variables once the whole ones are decided."""
    held = np.where(program.whole, np.round(values), np.nan)
    return replace(
        linear,
        least=np.where(program.whole, held, linear.least),
        most=np.where(program.whole, held, linear.most),
    )


def _settle_divisible(linear: Linear, stay: Array) -> Array:
    """The point of the optimal face that the rule names, over the variables still open there."""
    face = _optimal(linear)
    open_ = np.flatnonzero(face.least < face.most)
    values = face.least.copy()
    values[open_] = walk(_restricted(face, open_), stay[open_])
    return values


def _restricted(face: Linear, open_: Index) -> Linear:
    """The same face in its open variables only; rows keep what the others take."""
    taken = face.matrix @ np.where(face.least < face.most, 0.0, face.least)
    return Linear(
        cost=face.cost[open_],
        matrix=csr_array(face.matrix[:, open_]),
        low=face.low - taken,
        high=face.high - taken,
        least=face.least[open_],
        most=face.most[open_],
    )


def walk(face: Linear, stay: Array) -> Array:
    """Walk down a face, a variable at a time, until one point is left."""
    if stay.any():
        face = _optimal(replace(face, cost=stay))
    point, alone = _only_point(face)
    order = np.flatnonzero(face.least < face.most)
    for step, column in enumerate(order[:MOST_STEPS]):
        if alone:
            return point
        face = _optimal(replace(face, cost=_first(np.array([column]), point.size)))
        if step % LOOK == LOOK - 1:
            point, alone = _only_point(face)
    return _only_point(face)[0]


def _only_point(face: Linear) -> tuple[Array, bool]:
    """A point of the face, and whether it is the only one: a generic direction is constant then."""
    generic = 1.0 + np.modf(GOLDEN * np.arange(1.0, face.cost.size + 1))[0]
    low = minimise(replace(face, cost=generic)).values
    high = minimise(replace(face, cost=-generic)).values
    return low, bool((np.abs(low - high) <= SAME).all())


def _optimal(linear: Linear) -> Linear:
    """The optimal face, by complementary slackness with one optimal solution."""
    solved = minimise(linear)
    size = POSITIVE * float(np.abs(linear.cost).max(initial=0.0))
    largest = abs(linear.matrix).max(axis=1).toarray().ravel()
    dual = solved.row_dual * largest
    free = linear.least < linear.most
    out = free & (solved.reduced_cost > size)
    return replace(
        linear,
        low=np.where(dual < -size, linear.high, linear.low),
        high=np.where(dual > size, linear.low, linear.high),
        most=np.where(out, linear.least, linear.most),
    )
