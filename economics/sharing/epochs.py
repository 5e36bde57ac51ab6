"""The gain of an epoch: what the market paid over its rounds, and the dividend that follows.

The game is that of what was served (economics.md, 3.6), so bids that never ran move nothing, and
nor does what was awarded and not delivered. The dividend of an owner is split among its members
in proportion to their turnover.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from threadpoolctl import threadpool_limits

from economics.accounts import MICRO
from economics.errors import BadBook, Problem
from economics.rounds import WELFARE
from economics.settlement import split
from economics.sharing.dividend import dividend
from economics.sharing.game import Game
from economics.sharing.objections import objections_of
from economics.sharing.served import (
    Owners,
    Round,
    epoch_payoff,
    realised_rounds,
    site_names,
)
from economics.sharing.settled import Settlement, turnover_micro
from economics.sharing.shares import document_of, points_of


def epoch_shares(
    rounds: Sequence[Round],
    game: Game,
    *,
    alpha: float,
    cap: float,
    settled: Sequence[Settlement] | None = None,
    owners: Owners | None = None,
) -> dict[str, Any]:
    """`hanse.shares/1` of an epoch's served-demand game, and the dividend in micro-credits.

    `game` is `epoch_game(rounds, settled=settled, owners=owners)`, perhaps with values found
    elsewhere. Its sites are owners, `owners` of the document says whose members are whose, and
    `transfers_micro` are of members; they sum to zero exactly. The target is the nucleolus; no
    owner pays or receives more than `cap` of all that was paid in the epoch. Penalties stay where
    they fell and are only summed. Raises NotCleared as the game's values do, BadBook for a round
    of another policy than surplus, ValueError for an alpha outside 0 to 1.
    """
    others = sorted({book.rules.policy for book, _ in rounds} - {WELFARE})
    if others:  # such a round makes less of what was served than could be made: nothing to share
        why = f"a dividend shares rounds of policy {WELFARE!r}, not {others[0]!r}"
        raise BadBook((Problem("rules.policy", why),))
    owners = {name: (owners or {}).get(name, name) for name in site_names(rounds)}
    with threadpool_limits(limits=1):  # last digits of sums must not depend on threads
        objections = objections_of(game)
        payoff = epoch_payoff(rounds, settled=settled, owners=owners)
        points = points_of(game, payoff, objections)
        by_member, turnover = _turnover_micro(rounds, settled)
        paid = dividend(
            points.market,
            points.nucleolus,
            alpha=alpha,
            turnover=turnover / MICRO,
            cap=cap,
        )
        amounts = dict(zip(game.names, paid.micro, strict=True))
        return {
            **document_of(game, points, objections, paid.alpha),
            "rounds": len(rounds),
            "turnover_micro": turnover,
            "penalties_micro": sum(
                row.penalty_micro for settlement in settled or () for row in settlement.values()
            ),
            "alpha": paid.alpha,
            "capped": paid.capped,
            "owners": owners,
            "transfers_micro": _among_members(amounts, owners, by_member),
        }


def _turnover_micro(
    rounds: Sequence[Round], settled: Sequence[Settlement] | None
) -> tuple[Mapping[str, int], int]:
    """What each member paid and was paid for GPUs, and what was paid altogether."""
    by_member: dict[str, int] = defaultdict(int)
    paid = 0
    for book, came_to in realised_rounds(rounds, settled):
        for name, amount in zip(book.sites, turnover_micro(book, came_to.paid), strict=True):
            by_member[name] += amount
        paid += round(float(came_to.paid.sum()) * MICRO)
    return by_member, paid


def _among_members(
    amounts: Mapping[str, int], owners: Owners, turnover: Mapping[str, int]
) -> dict[str, int]:
    """Each owner's amount split among its members by turnover, micro-credits, by largest
    remainder; evenly among members none of whom traded."""
    members: dict[str, list[str]] = defaultdict(list)
    for name, owner in sorted(owners.items()):
        members[owner].append(name)
    parts: dict[str, int] = {}
    for owner, names in members.items():
        weights = [turnover.get(name, 0) for name in names]
        shared = split(amounts[owner], weights if any(weights) else [1] * len(names))
        parts.update(zip(names, shared, strict=True))
    return dict(sorted(parts.items()))
