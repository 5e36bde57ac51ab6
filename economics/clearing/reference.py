"""The reference path: every job its own rows, branch and bound for gangs. Readable, and the oracle.

What the fast path is measured against, and what decides small books and those with terms that no
tier describes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from economics import accounts
from economics.clearing.allocation import Allocation, allocate
from economics.market import Array, Market
from economics.pricing import Case, Wish, keeps_core, rents
from economics.sharing.coalitions import blocking
from economics.sharing.repair import Repair, repair

STILL = 1e-7  # excess below this, times max(1, welfare), is solver rounding and moves no money


@dataclass(frozen=True, slots=True)
class ReferenceAward:
    """An award, and what its prices and transfers are derived from."""

    market: Market
    found: Allocation
    nodes: int
    path: str = "reference"
    best: bool = True  # welfare is what was maximised
    sees_all: bool = True  # the oracle looks at every coalition

    @property
    def share(self) -> Array:
        return self.found.share

    @property
    def welfare(self) -> float:
        return self.found.welfare

    @property
    def bound(self) -> float:
        return self.found.bound

    @property
    def lp_bound(self) -> float:
        return self.found.lp_bound

    def chosen_otherwise(self, share: Array) -> ReferenceAward:
        """The same market with another award, (K,), which the prices must then support."""
        other = replace(self.found, share=share, welfare=accounts.welfare(self.market, share))
        return replace(self, found=other, best=False)

    def rents(self, wish: Wish) -> Array:
        """The rents of the price rule, (P,), credits per GPU-hour."""
        found = self.found
        stable = self.best and keeps_core(self.market)
        case = Case(self.market, found.program, found.share, found.welfare, stable)
        return rents(case, wish, self._worst).rent

    def repair(self, payoff: Array, rent: Array, tolerance: float) -> Repair:
        """The transfers that keep every site, and every coalition, from leaving."""
        return repair(self.found.program, payoff, tolerance=tolerance, nodes=self.nodes)

    def _worst(self, payoff: Array) -> tuple[Array, float] | None:
        still = STILL * max(1.0, self.welfare)
        coalition = blocking(self.found.program, payoff, nodes=self.nodes, tolerance=still)
        return None if coalition is None else (coalition.members.astype(float), coalition.value)


def award_by_reference(market: Market, *, nodes: int) -> ReferenceAward:
    """The award of largest welfare, every job for itself."""
    return ReferenceAward(market, allocate(market, nodes=nodes), nodes)
