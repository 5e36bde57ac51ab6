"""The gain of an epoch: what the market paid over its rounds, and the dividend that follows.

The game is that of what was served (economics.md, 3.6), so bids that never ran move nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from threadpoolctl import threadpool_limits

from economics.accounts import MICRO
from economics.errors import BadBook, Problem
from economics.rounds import WELFARE
from economics.sharing.dividend import dividend
from economics.sharing.game import Game
from economics.sharing.objections import objections_of
from economics.sharing.served import Round, epoch_payoff
from economics.sharing.shares import document_of, points_of


def epoch_shares(
    rounds: Sequence[Round], game: Game, *, alpha: float, cap: float
) -> dict[str, Any]:
    """`hanse.shares/1` of an epoch's served-demand game, and the dividend in micro-credits.

    `game` is `epoch_game(rounds)`, perhaps with values found elsewhere. The target is the
    nucleolus; no member pays or receives more than `cap` of all that was paid in the epoch.
    Raises NotCleared as the game's values do, BadBook for a round of another policy than surplus,
    ValueError for an alpha outside 0 to 1.
    """
    others = sorted({book.rules.policy for book, _ in rounds} - {WELFARE})
    if others:  # such a round makes less of what was served than could be made: nothing to share
        why = f"a dividend shares rounds of policy {WELFARE!r}, not {others[0]!r}"
        raise BadBook((Problem("rules.policy", why),))
    with threadpool_limits(limits=1):  # last digits of sums must not depend on threads
        objections = objections_of(game)
        points = points_of(game, epoch_payoff(rounds), objections)
        turnover = sum(
            line["payment_micro"] for _, clearing in rounds for line in clearing["allocation"]
        )
        paid = dividend(
            points.market,
            points.nucleolus,
            alpha=alpha,
            turnover=turnover / MICRO,
            cap=cap,
        )
        return {
            **document_of(game, points, objections, paid.alpha),
            "rounds": len(rounds),
            "turnover_micro": turnover,
            "alpha": paid.alpha,
            "capped": paid.capped,
            "transfers_micro": dict(zip(game.names, paid.micro, strict=True)),
        }
