"""The game of what was delivered, in one round or over the rounds of an epoch.

Demands are replaced by what was delivered. Where that is what was awarded, the round's prices
still support it, so what the market paid is in its core as well, and bids that were never served
change nothing (economics.md, 1.3.6). An elastic gang counts what it delivered at most, at any of
its sizes; a gang that delivered nothing is left out. Under another policy than surplus a coalition
of all sites could often make more of what was delivered than the policy did.

Where all contracts fell short alike the same holds. Where some did, or went on beyond their
round, the lemma is not exact: all sites together could have made more of what was delivered than
they did, had they known, for a job that failed stood in another's way. The values of all
coalitions in such a round are scaled by one factor, so that all together make what they did make:
every coalition is taken to lose the same part to shortfalls. Payoffs of the market and of the game
then have the same sum. A round that came to nothing, or to less, is in neither.

Members of one owner are one player: coming under several names gives nobody more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

import numpy as np

from economics import accounts
from economics.book import Book
from economics.clearing.program import Program, program_of
from economics.market import COLUMN_ARRAYS, Array, Index, Market
from economics.sharing.game import Game
from economics.sharing.settled import Realised, Settlement, realised, spent

Round = tuple[Book, Mapping[str, Any]]  # a book, and its clearing as a document
Owners = Mapping[str, str]  # site -> who is behind it; itself where it is not named


def served_game(book: Book, clearing: Mapping[str, Any], settled: Settlement | None = None) -> Game:
    """The game of one round with what was delivered in place of what was wanted."""
    return epoch_game([(book, clearing)], settled=None if settled is None else [settled])


def epoch_game(
    rounds: Sequence[Round],
    known: Mapping[int, float] | None = None,
    *,
    settled: Sequence[Settlement] | None = None,
    owners: Owners | None = None,
) -> Game:
    """The games of what was delivered in each round, added up, over the owners of all sites.

    `settled`: for each round what its contracts say; None = all was delivered as awarded. `known`
    are values found before, by coalition. Raises BadBook where a clearing is not one of its
    book's, NotCleared where the solver proves nothing.
    """
    owners = owners or {}
    names = player_names(rounds, owners)
    programs = tuple(
        _with_owners(_program(book, came_to), _places(book, names, owners))
        for book, came_to in realised_rounds(rounds, settled)
    )
    return Game(
        names=names,
        programs=programs,
        sha256=_digest(rounds, settled, owners),
        nodes=max((book.rules.nodes for book, _ in rounds), default=1),
        known=dict(known or {}),
    )


def epoch_payoff(
    rounds: Sequence[Round],
    *,
    settled: Sequence[Settlement] | None = None,
    owners: Owners | None = None,
) -> Array:
    """What each player has of the rounds, (N,) credits: core repair included, penalties not."""
    owners = owners or {}
    names = player_names(rounds, owners)
    payoff = np.zeros(len(names))
    for book, came_to in realised_rounds(rounds, settled):
        np.add.at(payoff, _places(book, names, owners), came_to.payoff)
    return payoff


def realised_rounds(
    rounds: Sequence[Round], settled: Sequence[Settlement] | None
) -> Iterator[tuple[Book, Realised]]:
    """The rounds with what they came to; those whose contracts made nothing are left out."""
    for at, (book, clearing) in enumerate(rounds):
        came_to = realised(book, clearing, None if settled is None else settled[at])
        if settled is None or came_to.surplus > 0:
            yield book, came_to


def site_names(rounds: Sequence[Round]) -> tuple[str, ...]:
    """Every site named in any of the books, sorted."""
    return tuple(sorted({name for book, _ in rounds for name in book.sites}))


def player_names(rounds: Sequence[Round], owners: Owners) -> tuple[str, ...]:
    """Who is behind any of these sites, sorted."""
    return tuple(sorted({owners.get(name, name) for name in site_names(rounds)}))


def served_market(book: Book, came_to: Realised) -> Market:
    """The market of a book with only what was delivered still wanted.

    A job takes GPUs for what it was awarded, and the part of it that was delivered counts with its
    value and its GPU time. More than was awarded was run in more time, not on more GPUs.
    """
    market, part = book.market, came_to.part[book.market.job]
    awarded = accounts.delivered(market, came_to.share)  # (J,) Msamples
    # A gang counts no more than it was awarded; a divisible job's columns are shares of full use.
    counted = np.where(
        market.gang[market.job],
        np.minimum(1.0, awarded[market.job] / market.msamples),
        1.0,
    )
    ran = counted * part
    running = market.reserve[market.pool] * market.gpu_hours
    # A market's GPU time and transfers are whole: what was not run, or run beyond, is in the value.
    value = market.value * ran - running * (ran - 1.0) + market.cost * (1.0 - spent(market, part))
    gain = value - running - market.cost
    kept = np.flatnonzero((awarded[market.job] > 0) & (part > 0) & (gain > 0))
    columns = {name: getattr(market, name)[kept] for name in COLUMN_ARRAYS}
    columns["msamples"] = (market.msamples * np.where(counted > 0, counted, 1.0))[kept]
    columns["value"] = value[kept]
    wanted = np.where(came_to.part > 0, awarded, 0.0)
    return replace(
        market,
        demand=np.where(market.gang, market.demand, wanted),
        floor=np.minimum(market.floor, wanted),  # rounding may leave a floor a digit short
        **columns,
    )


def _program(book: Book, came_to: Realised) -> Program:
    """The programme of a round; all together make what they made, credits."""
    program = program_of(served_market(book, came_to))
    awarded = accounts.delivered(book.market, came_to.share) > 0
    if (came_to.part[awarded] == 1.0).all():
        return program
    whole = Game(book.sites, (program,), book.sha256, book.rules.nodes).grand
    return replace(program, gain=program.gain * (came_to.surplus / whole))


def _with_owners(program: Program, place: Index) -> Program:
    return replace(program, owner=place[program.owner].astype(np.int64))


def _places(book: Book, names: tuple[str, ...], owners: Owners) -> Index:
    """Where who is behind each site of the book stands among all names, (sites of the book,)."""
    number = {name: at for at, name in enumerate(names)}
    return np.array([number[owners.get(name, name)] for name in book.sites], dtype=np.int64)


def _digest(rounds: Sequence[Round], settled: Sequence[Settlement] | None, owners: Owners) -> str:
    """Of the books and their clearings, in order, of what was settled and of who owns whom."""
    parts = [f"{book.sha256} {clearing.get('sha256', '')}" for book, clearing in rounds]
    parts += [
        json.dumps({job: astuple(row) for job, row in sorted(settlement.items())})
        for settlement in settled or ()
    ]
    if owners:
        parts.append(json.dumps(dict(sorted(owners.items()))))
    return hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()
