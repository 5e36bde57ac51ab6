"""Which job classes are kin: the same family, near in size, near in GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIZE_REACH = 4.0  #: doublings of the batch over which likeness falls to 1/e
GPUS_REACH = 2.0  #: doublings of the GPUs over which likeness falls to 1/e


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """What is known of a job class before it ever ran."""

    family: str  #: the model, or its kind: "ResNet-50", "transformer decoder"
    size: float | None = None  #: log2 of the batch per GPU; None when it has none
    gpus: int = 1

    def __post_init__(self) -> None:
        if self.size is not None and not math.isfinite(self.size):
            raise ValueError(f"The size of a class of {self.family} is {self.size}: log2 of what?")
        if self.gpus < 1:
            raise ValueError(f"A class of {self.family} runs on {self.gpus} GPUs: at least one.")


def same(own: Sequence[object], other: Sequence[object]) -> Array:
    """(K, M): 1 where the things are equal."""
    place: dict[object, int] = {}
    rows = np.array([place.setdefault(thing, len(place)) for thing in own])
    columns = np.array([place.setdefault(thing, len(place)) for thing in other])
    return np.asarray(rows[:, None] == columns[None, :], dtype=float)


def same_family(kinds: Sequence[Kind], others: Sequence[Kind]) -> Array:
    """(K, M): 1 where the family is the same."""
    return same([kind.family for kind in kinds], [kind.family for kind in others])


def same_gpus(kinds: Sequence[Kind], others: Sequence[Kind]) -> Array:
    """(K, M): 1 where the number of GPUs is the same."""
    return same([kind.gpus for kind in kinds], [kind.gpus for kind in others])


def near_size(kinds: Sequence[Kind], others: Sequence[Kind]) -> Array:
    """(K, M): exp(-doublings apart / SIZE_REACH) within a family, 0 between families.

    A class without a size is one doubling from those that have one. The exponential of absolute
    differences is a covariance (Ornstein-Uhlenbeck; Rasmussen and Williams, Gaussian Processes for
    Machine Learning, section 4.2.1), and so is its product with another.
    """
    own, other = _sizes(kinds), _sizes(others)
    apart = np.abs(np.nan_to_num(own)[:, None] - np.nan_to_num(other)[None, :])
    lacks, lack = np.isnan(own)[:, None], np.isnan(other)[None, :]
    apart = np.where(lacks != lack, 1.0, np.where(lacks & lack, 0.0, apart))
    return np.asarray(same_family(kinds, others) * np.exp(-apart / SIZE_REACH))


def near_gpus(kinds: Sequence[Kind], others: Sequence[Kind]) -> Array:
    """(K, M): exp(-doublings apart / GPUS_REACH) in GPUs within a family, 0 between families."""
    own = np.log2([kind.gpus for kind in kinds])
    other = np.log2([kind.gpus for kind in others])
    apart = np.abs(own[:, None] - other[None, :])
    return np.asarray(same_family(kinds, others) * np.exp(-apart / GPUS_REACH))


def _sizes(kinds: Sequence[Kind]) -> Array:
    return np.array([np.nan if kind.size is None else kind.size for kind in kinds])
