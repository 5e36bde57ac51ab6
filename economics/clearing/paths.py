"""Which path a book takes. The book alone decides, and the clearing says which it was."""

from __future__ import annotations

from typing import Protocol

from economics.clearing.reference import award_by_reference
from economics.clearing.tiers.allocation import award_by_tiers
from economics.clearing.tiers.grouping import misfits
from economics.errors import NotCleared
from economics.market import Array, Market
from economics.pricing import Wish
from economics.sharing.repair import Repair

FEW_COLUMNS = 2_000  # up to here the reference path is quick, and exact in every tie
AUTOMATIC, REFERENCE, TIERS = "automatic", "reference", "tiers"


class Award(Protocol):
    """Who trains where, and how prices and transfers follow from it."""

    @property
    def share(self) -> Array: ...  # (K,)
    @property
    def welfare(self) -> float: ...
    @property
    def bound(self) -> float: ...
    @property
    def lp_bound(self) -> float: ...
    @property
    def path(self) -> str: ...
    @property
    def best(self) -> bool: ...  # welfare is what was maximised
    @property
    def sees_all(self) -> bool: ...  # prices leave no coalition better off, whichever it is
    def chosen_otherwise(self, share: Array) -> Award: ...  # the same market, a policy's award
    def rents(self, wish: Wish) -> Array: ...
    def repair(self, payoff: Array, rent: Array, tolerance: float) -> Repair: ...


def award(market: Market, *, nodes: int, path: str = AUTOMATIC) -> Award:
    """The award of largest welfare, by the path the market calls for.

    `path` can ask for one of the two; a market with terms no tier describes takes the reference
    path all the same, and so does one whose tiers do not settle.
    """
    few = market.columns <= FEW_COLUMNS
    if path == REFERENCE or (path == AUTOMATIC and few) or not market.columns:
        return award_by_reference(market, nodes=nodes)
    if misfits(market).any():
        return award_by_reference(market, nodes=nodes)
    try:
        return award_by_tiers(market, nodes=nodes)
    except NotCleared:
        return award_by_reference(market, nodes=nodes)
