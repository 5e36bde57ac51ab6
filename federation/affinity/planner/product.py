"""Gang sizes and pools such that a plan fits at every size on every pool.

A book knows a job's sizes and its pools, not which size goes with which pool. What fits is a table
of pools x sizes with holes; wanted is a large rectangle without a hole that holds given cells.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

Cell = tuple[str, int]  #: pool, GPUs


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Every size fits on every pool."""

    pools: tuple[str, ...]  #: by name
    sizes: tuple[int, ...]  #: ascending


def rectangle(
    fits: Mapping[str, Collection[int]],
    wanted: Sequence[Cell],
    *,
    most_sizes: int,
    order: Mapping[int, float],
) -> Rectangle:
    """A rectangle that holds the first of the cells wanted, and each later one where that can be.

    Grown pool by pool, each time by the one that leaves most sizes, and stopped where it has most
    cells: the largest there is when the pools' sizes are nested (one pool holds all that another
    holds), and else a large one (the largest is NP-hard to find: Peeters, 2003). Of more than
    `most_sizes` those of least `order` are kept, beside the wanted. ValueError when the first cell
    does not fit.
    """
    held = {pool: frozenset(sizes) for pool, sizes in fits.items()}
    if not wanted or wanted[0][1] not in held.get(wanted[0][0], ()):
        raise ValueError(f"no plan fits the first cell wanted: {wanted[:1]}")
    pools, needed = _corners(held, wanted)
    sizes = _grown(held, pools, needed)
    if len(sizes) > most_sizes:
        rest = sorted(sizes - needed, key=lambda size: (order.get(size, 0.0), size))
        sizes = needed | frozenset(rest[: max(0, most_sizes - len(needed))])
    return Rectangle(
        pools=tuple(sorted(pool for pool, own in held.items() if sizes <= own)),
        sizes=tuple(sorted(sizes)),
    )


def _corners(
    held: Mapping[str, frozenset[int]], wanted: Sequence[Cell]
) -> tuple[set[str], frozenset[int]]:
    """Pools and sizes of the cells that fit into one rectangle, taken in order."""
    pools: set[str] = set()
    needed: frozenset[int] = frozenset()
    for pool, size in wanted:
        both, more = {*pools, pool}, needed | {size}
        if all(more <= held[one] for one in both):
            pools, needed = both, more
    return pools, needed


def _grown(
    held: Mapping[str, frozenset[int]], pools: Collection[str], needed: frozenset[int]
) -> frozenset[int]:
    """The sizes of the rectangle with most cells on the way from `pools` to all that can join."""
    sizes = frozenset.intersection(*(held[pool] for pool in pools))
    waiting = {pool: own for pool, own in held.items() if pool not in pools and needed <= own}
    best, most, count = sizes, 0, len(pools)
    while True:
        joined = [pool for pool, own in waiting.items() if sizes <= own]  # they cost nothing
        for pool in joined:
            del waiting[pool]
        count += len(joined)
        if count * len(sizes) >= most:
            best, most = sizes, count * len(sizes)
        if not waiting:
            return best
        sizes &= waiting[min(waiting, key=lambda pool: (-len(sizes & waiting[pool]), pool))]
