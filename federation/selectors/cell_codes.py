"""Cells of the affinity matrix as whole numbers: class, then pool, then GPUs.

Arrays of codes are sorted, so that the cells of a class stand together and pools in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

Cell = tuple[UUID, UUID, int]  #: pool, job class, GPUs
Codes = NDArray[np.int64]
SIZE_BITS = 31  #: of a code: the GPUs; above them class * pools + pool
SIZES = (1 << SIZE_BITS) - 1


@dataclass(frozen=True, slots=True)
class Axes:
    """The pools and classes that codes count."""

    pools: tuple[UUID, ...]
    classes: tuple[UUID, ...]

    def cell(self, code: int) -> Cell:
        row, gpus = code >> SIZE_BITS, code & SIZES
        return self.pools[row % len(self.pools)], self.classes[row // len(self.pools)], gpus

    def pools_of(self, codes: Codes) -> Codes:
        """Places of the codes' pools, (n,)."""
        return (codes >> SIZE_BITS) % max(len(self.pools), 1)

    def slice_of(self, codes: Codes, job_class: int) -> slice:
        """The rows of one class."""
        many = len(self.pools)
        ends = [(job_class * many) << SIZE_BITS, ((job_class + 1) * many) << SIZE_BITS]
        first, last = np.searchsorted(codes, ends)
        return slice(int(first), int(last))


class CodeIndex:
    """Codes of rows whose ids are read as halves, (n, 2) each."""

    def __init__(self, axes: Axes) -> None:
        self._pools = _Keys(axes.pools)
        self._classes = _Keys(axes.classes)
        self._many = len(axes.pools)

    def codes(
        self, pools: NDArray[np.uint64], classes: NDArray[np.uint64], gpus: NDArray[np.int32]
    ) -> Codes:
        """(n,) of n rows."""
        rows = self._classes.places(classes) * self._many + self._pools.places(pools)
        return (rows << SIZE_BITS) | gpus.astype(np.int64)


class _Keys:
    """Places of ids in a list, found by one number each that is theirs alone."""

    def __init__(self, ids: Sequence[UUID]) -> None:
        whole = [(one.int >> 64, one.int & (2**64 - 1)) for one in ids]
        halves = np.array(whole, dtype=np.uint64).reshape(len(ids), 2)
        self._odd = np.uint64(1)
        while len(np.unique(self._mixed(halves))) < len(ids):
            self._odd += np.uint64(2)
        keys = self._mixed(halves)
        self._order = np.argsort(keys)
        self._sorted = keys[self._order]

    def _mixed(self, halves: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return (halves[:, 0] * self._odd) ^ halves[:, 1]

    def places(self, halves: NDArray[np.uint64]) -> Codes:
        """Of ids that are all in the list, (n,)."""
        if not len(halves):
            return np.zeros(0, dtype=np.int64)
        return self._order[np.searchsorted(self._sorted, self._mixed(halves))].astype(np.int64)


def ranked(codes: Codes, *columns: NDArray[Any]) -> list[NDArray[Any]]:
    """Codes and columns in the order of the codes."""
    order = np.argsort(codes, kind="stable")
    return [codes[order], *(column[order] for column in columns)]
