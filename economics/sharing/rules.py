"""The ways to share a round's surplus, each judged by the same question: would a coalition leave?

A rule is a name, payoffs, and a verdict. Nothing is called stable here but what no coalition of
sites could beat alone; that a rule is famous, or even, does not make it so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array
from economics.sharing.objections import Objections
from economics.sharing.tables import CoalitionGame

MARKET, DIVIDEND, SHAPLEY, NUCLEOLUS = "market", "dividend", "shapley", "nucleolus"
EQUAL_SPLIT, PROPORTIONAL, MARGINAL = "equal_split", "proportional", "marginal"
RELATIVE = 1e-6  # of the value of all together: excesses and sums this near to zero are zero


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a rule stands with the coalitions. Credits."""

    rule: str
    payoff: Array  # (N,)
    worst_excess: float  # over the proper coalitions; 0 where there are none
    in_core: bool  # nobody objects, and the payoffs sum to the value of all together
    blocking: tuple[str, ...] | None  # names of the sites that object most; None: nobody does


def equal_split(game: CoalitionGame) -> Array:
    """What each site makes alone and an equal part of the surplus, (N,) credits.

    Also the Nash bargaining solution with transferable utility, if staying alone is all that a
    site can threaten with.
    """
    alone = game.alone
    payoff: Array = alone + (game.grand - alone.sum()) / max(alone.size, 1)
    return payoff


def proportional(game: CoalitionGame) -> Array:
    """The value of all together in proportion to what each makes alone, (N,) credits.

    Sites that lose alone count as zero; where nobody makes anything alone, equal parts.
    """
    weight = np.maximum(game.alone, 0.0)
    if not weight.sum() > 0.0:
        weight = np.ones(weight.shape)
    payoff: Array = game.grand * weight / max(weight.sum(), 1.0e-300)
    return payoff


def marginal(game: CoalitionGame) -> Array:
    """What all together would lose without each site, (N,) credits.

    The payoffs of a Vickrey-Clarke-Groves exchange. Their sum is not the value of all together:
    whenever the core is not empty it is at least that, so somebody would have to add money.
    """
    sites = len(game.names)
    everybody = (1 << sites) - 1
    without = [game.value(everybody ^ (1 << at)) for at in range(sites)]
    payoff: Array = game.grand - np.array(without, dtype=float)
    return payoff


def judged(game: CoalitionGame, objections: Objections, rule: str, payoff: Array) -> Verdict:
    """Ask which coalition objects most to these payoffs (N,)."""
    tolerance = RELATIVE * max(1.0, abs(game.grand))
    worst = objections.worst(payoff)
    excess = 0.0 if worst is None else worst.excess
    sums_up = abs(float(payoff.sum()) - game.grand) <= tolerance
    objects = worst is not None and excess > tolerance
    members = np.flatnonzero(worst.members) if worst is not None and objects else ()
    return Verdict(
        rule=rule,
        payoff=payoff,
        worst_excess=excess,
        in_core=sums_up and not objects,
        blocking=tuple(game.names[at] for at in members) if objects else None,
    )
