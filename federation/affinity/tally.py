"""Sufficient statistics of samples: a bounded table of cells, the same in whatever order they came.

A cell holds the samples of one configuration: how many, and sums of base-2 logarithms of what they
showed. The sums are whole numbers (fixed point, 24 bits after the point), so that they are exact:
neither the order of samples nor how they were cut into batches changes a bit of them.

When there are more configurations than cells, neighbours are merged: all four axes are cut into
equal steps of their logarithm, and the step is doubled until the table fits. The steps nest, so
the last step depends on which configurations were seen and not on their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.affinity.samples import (
    LEAST_BATCH,
    MOST,
    SHORTEST_S,
    BadSamples,
    Sample,
    sample_problem,
)

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
CELLS = 512  #: at most so many; a fit takes time of their number cubed
POINT = 24  #: bits after the point
FINEST = 18  #: the first merging step is 2^(18-24) = 1/64 of a doubling
BLOCK = 65_536  #: samples that are held at once
MOST_COUNTED = 1e12  #: samples of a cell
MOST_KNOWN = 1e12  #: nodes, replicas, batch
LOG_2 = float(np.log(2.0))
# columns of the sums
AXES, COUNT, STEP, STEP_2, COMPUTES, COMPUTE = slice(0, 4), 4, 5, 6, 7, 8
COLUMNS = 9


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no one equality
class Tally:
    """Cells of one (class, pool). `keys` (n, 4) and `sums` (n, 9) are sorted by key."""

    shift: int  # 0: one cell for each configuration; else bits of the keys left out
    keys: Whole  # (n, 4) log2 of nodes, replicas, local batch, accumulation + 1, shifted
    sums: Whole  # (n, 9) of the same four, count, log2 step, its square, computes, log2 compute
    lowest: tuple[float, float, float]  # nodes, replicas, local batch
    highest: tuple[float, float, float]

    @property
    def samples(self) -> int:
        return int(self.sums[:, COUNT].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The same as means, in natural units and logarithms. All arrays (n,)."""

    nodes: Array
    replicas: Array
    batch: Array  # samples on one GPU
    accumulation: Array
    count: Array
    log_step: Array  # mean of log seconds
    spread: Array  # variance of log seconds within the cell
    computes: Array  # samples that said how long they waited
    log_compute: Array  # mean of log seconds of one pass without waiting; 0 where nobody said


def gather(samples: Iterable[Sample]) -> Tally:
    """The statistics of samples; memory does not grow with their number.

    Raises `BadSamples` with a sentence for each of the first samples that are not usable.
    """
    tally: Tally | None = None
    done = 0
    for block in _blocks(samples):
        part = gather_columns(_columns(block, done), 0 if tally is None else tally.shift)
        tally = part if tally is None else merge(tally, part)
        done += len(block)
    if tally is None:
        raise BadSamples(("there is no sample",))
    return tally


def sound(columns: Array) -> NDArray[np.bool_]:
    """Which samples (n, 6) need no second look, (n,) bool: finite, whole where they must be,
    positive. Sync is 0 where it is not known."""
    counts = columns[:, [0, 1, 3]]
    fine = np.isfinite(columns).all(axis=1) & (columns < MOST).all(axis=1)
    fine &= (counts == np.floor(counts)).all(axis=1)
    fine &= (columns[:, 0] >= 1) & (columns[:, 1] >= columns[:, 0]) & (columns[:, 2] >= LEAST_BATCH)
    fine &= (columns[:, 3] >= 0) & (columns[:, 4] >= SHORTEST_S)
    return np.asarray(fine & (columns[:, 5] >= 0) & (columns[:, 5] < columns[:, 4]))


def gather_columns(columns: Array, shift: int = 0) -> Tally:
    """Statistics of checked samples (n, 6): nodes, replicas, batch, accumulation, step, sync.

    Seconds; sync is nan where it is not known. n is at least 1. `shift` is that of the table they
    will be merged with, if it is known: it only saves work.
    """
    step, sync = columns[:, 4], columns[:, 5]
    known = ~np.isnan(sync)
    axes = _fixed(np.log2(columns[:, :4] + np.array([0.0, 0.0, 0.0, 1.0])))
    compute = (step - np.where(known, sync, 0.0)) / (columns[:, 3] + 1.0)
    log_step = np.log2(step)
    sums = np.empty((len(columns), COLUMNS), dtype=np.int64)
    sums[:, AXES] = axes
    sums[:, COUNT] = 1
    sums[:, STEP] = _fixed(log_step)
    sums[:, STEP_2] = _fixed(log_step**2)
    sums[:, COMPUTES] = known
    sums[:, COMPUTE] = np.where(known, _fixed(np.log2(compute)), 0)
    low, high = columns[:, :3].min(axis=0), columns[:, :3].max(axis=0)
    return _fitted(shift, axes >> shift, sums, three(low), three(high))


def merge(one: Tally, other: Tally) -> Tally:
    """The statistics of the samples of both."""
    shift = max(one.shift, other.shift)
    keys = np.concatenate([_coarser(part, shift) for part in (one, other)])
    sums = np.concatenate([one.sums, other.sums])
    lowest = np.minimum(one.lowest, other.lowest)
    highest = np.maximum(one.highest, other.highest)
    return _fitted(shift, keys, sums, three(lowest), three(highest))


def cells(tally: Tally) -> Cells:
    """Means of the sums."""
    count = tally.sums[:, COUNT].astype(float)
    unit = float(1 << POINT)
    axes = np.exp2(tally.sums[:, AXES] / unit / count[:, None])
    rounded = np.rint(axes)
    # fixed point moves a whole number by less than this
    axes = np.where(np.abs(axes - rounded) < 1e-6 * axes, rounded, axes)
    mean = tally.sums[:, STEP] / unit / count
    square = tally.sums[:, STEP_2] / unit / count
    computes = tally.sums[:, COMPUTES].astype(float)
    compute = tally.sums[:, COMPUTE] / unit / np.maximum(computes, 1.0)
    return Cells(
        nodes=axes[:, 0],
        replicas=axes[:, 1],
        batch=axes[:, 2],
        accumulation=axes[:, 3] - 1.0,
        count=count,
        log_step=mean * LOG_2,
        spread=np.maximum(square - mean**2, 0.0) * LOG_2**2,
        computes=computes,
        log_compute=compute * LOG_2,
    )


def document(tally: Tally) -> dict[str, Any]:
    """As JSON values."""
    return {
        "shift": tally.shift,
        "keys": tally.keys.tolist(),
        "sums": tally.sums.tolist(),
        "lowest": list(tally.lowest),
        "highest": list(tally.highest),
    }


def read(values: dict[str, Any]) -> Tally:
    """The inverse of `document`; KeyError, TypeError or ValueError when it is not one."""
    keys = np.array(values["keys"], dtype=np.int64)
    sums = np.array(values["sums"], dtype=np.int64)
    if keys.shape != (len(sums), 4) or sums.shape[1:] != (COLUMNS,) or not 0 < len(sums) <= CELLS:
        raise ValueError("cells must have four keys and nine sums each")
    if (sums[:, COUNT] < 1).any() or not 0 <= int(values["shift"]) < 64:
        raise ValueError("a cell has no sample")
    if not _possible(sums):
        raise ValueError("a cell lies outside anything that is measured")
    low = three(np.array(values["lowest"], dtype=float))
    high = three(np.array(values["highest"], dtype=float))
    if not all(0 < least <= most < MOST_KNOWN for least, most in zip(low, high, strict=True)):
        raise ValueError("lowest and highest must be finite, above 0, and in that order")
    return Tally(int(values["shift"]), keys, sums, low, high)


def _possible(sums: Whole) -> bool:
    """Whether cells (n, 9) can be sums of samples: each logarithm is below 64, its square 4096."""
    unit = float(1 << POINT)
    count, computes = sums[:, COUNT].astype(float), sums[:, COMPUTES].astype(float)
    logs = np.abs(sums[:, [0, 1, 2, 3, STEP]]) / unit
    squares = sums[:, STEP_2] / unit
    return bool(
        (count <= MOST_COUNTED).all()
        and (logs <= 64.0 * count[:, None]).all()
        and ((squares >= 0) & (squares <= 4096.0 * count)).all()
        and ((computes >= 0) & (computes <= count)).all()
        and (np.abs(sums[:, COMPUTE]) / unit <= 64.0 * computes).all()
    )


def _blocks(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Lists of at most BLOCK samples."""
    rest = iter(samples)
    while block := list(islice(rest, BLOCK)):
        yield block


def _columns(block: list[Sample], before: int) -> Array:
    """Checked samples as rows, (n, 6)."""
    numbered = ((before + place, sample_problem(row)) for place, row in enumerate(block, 1))
    problems = [f"sample {number}: {why}" for number, why in numbered if why]
    if problems:
        raise BadSamples(tuple(problems))
    return np.array(
        [
            (
                row.nodes,
                row.replicas,
                row.local_batch,
                row.accumulation,
                row.step_s,
                np.nan if row.sync_s is None else row.sync_s,
            )
            for row in block
        ],
        dtype=float,
    )


def _fitted(
    shift: int,
    keys: Whole,
    sums: Whole,
    lowest: tuple[float, float, float],
    highest: tuple[float, float, float],
) -> Tally:
    """Rows of equal keys added up, with the finest step that needs no more than CELLS."""
    while True:
        order = np.lexsort(keys.T[::-1])
        ranked = keys[order]
        new = np.any(ranked[1:] != ranked[:-1], axis=1)
        starts = np.concatenate([[0], np.flatnonzero(new) + 1])
        if len(starts) <= CELLS:
            break
        coarser = max(shift + 1, FINEST)
        keys = keys >> (coarser - shift)
        shift = coarser
    added = np.add.reduceat(sums[order], starts, axis=0)
    return Tally(shift, ranked[starts], added, lowest, highest)


def _coarser(tally: Tally, shift: int) -> Whole:
    """Keys at a step that is not finer than the table's own."""
    return tally.keys >> (shift - tally.shift)


def _fixed(values: Array) -> Whole:
    return np.rint(values * (1 << POINT)).astype(np.int64)


def three(values: Array) -> tuple[float, float, float]:
    """An array of three as a tuple."""
    first, second, third = (float(value) for value in values)
    return first, second, third
