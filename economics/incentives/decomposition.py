"""Where the gain of a federation comes from: pooled capacity, or speeds that differ.

The gain is what all sites make together less what they make one by one. It is computed twice more:

* at the geometric mean speed over the GPUs of a type that run the class, weighed by GPUs: sites
  differ in what they own and in what they want, no longer in how fast it is. What is left is
  *pooling*; the difference is *affinity*, that of sites.
* as if all GPUs were of one type, the geometric mean in speed and the mean in cost. What is left of
  pooling is *capacity*: load that finds idle GPUs. The difference is *types*: sites that own other
  GPU types than their tenants would choose.

Affinity and types can be negative: to be fast alone at what one's tenants want is a reason not to
trade. Floors are left out of all three: at other speeds a home may not be able to keep them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from economics.book import Book, read_book
from economics.clearing.program import program_of
from economics.incentives.variations import log_spread, one_type, spread_times, without_floors
from economics.sharing.coalitions import coalition_value


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Credits per round. `gain` = `pooling` + `affinity`, `pooling` = `capacity` + `types`."""

    alone: float  # sum of what sites make alone
    gain: float
    pooling: float  # the gain at mean speeds of types
    pooling_alone: float  # sum of what sites make alone at mean speeds of types
    capacity: float  # the gain if all GPUs were of one type
    spread: float  # standard deviation of log-speeds about the mean of their type and class

    @property
    def affinity(self) -> float:
        return self.gain - self.pooling

    @property
    def types(self) -> float:
        return self.pooling - self.capacity

    @property
    def gain_share(self) -> float:
        """The gain over what sites make alone; 0 where that is nothing."""
        return self.gain / self.alone if self.alone > 0 else 0.0

    @property
    def pooling_share(self) -> float:
        """The same at mean speeds."""
        return self.pooling / self.pooling_alone if self.pooling_alone > 0 else 0.0


def decompose(document: Mapping[str, Any]) -> Decomposition:
    """The parts of the gain of a `hanse.book/1` document. Raises BadBook, NotCleared."""
    alone, together = _values(read_book(without_floors(document)))
    mean_alone, mean_together = _values(read_book(spread_times(document, 0.0)))
    level_alone, level_together = _values(read_book(one_type(document)))
    return Decomposition(
        alone=alone,
        gain=together - alone,
        pooling=mean_together - mean_alone,
        pooling_alone=mean_alone,
        capacity=level_together - level_alone,
        spread=log_spread(document),
    )


def _values(book: Book) -> tuple[float, float]:
    """What all sites make one by one, and together: programmes only, no prices."""
    program, sites = program_of(book.market), np.arange(len(book.sites))
    nodes = book.rules.nodes
    alone = sum(coalition_value(program, sites == site, nodes=nodes) for site in sites)
    return alone, coalition_value(program, sites >= 0, nodes=nodes)


def gain_of(document: Mapping[str, Any]) -> float:
    """The gain over what sites make alone, a share; 0 where that is nothing."""
    alone, together = _values(read_book(document))
    return together / alone - 1.0 if alone > 0 else 0.0
