"""The game of what was delivered, in one round or over the rounds of an epoch.

Demands are replaced by what was delivered. The round's prices still support it, so what the market
paid is in its core as well, and bids that were never served change nothing (economics.md, 1.3.6).
An elastic gang counts what it delivered at most, at any of its sizes; a gang that was not awarded
is left out. Under another policy than surplus a coalition of all sites could often make more of
what was delivered than the policy did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from economics import accounts
from economics.book import Book
from economics.clearing.program import Program, program_of
from economics.market import COLUMN_ARRAYS, Array, Index, Market
from economics.published import read_published
from economics.sharing.game import Game

Round = tuple[Book, Mapping[str, Any]]  # a book, and its clearing as a document


def served_game(book: Book, clearing: Mapping[str, Any]) -> Game:
    """The game of one round with what was delivered in place of what was wanted."""
    return epoch_game([(book, clearing)])


def epoch_game(rounds: Sequence[Round], known: Mapping[int, float] | None = None) -> Game:
    """The games of what was delivered in each round, added up, over all sites of all rounds.

    `known` are values found before, by coalition. Raises BadBook where a clearing is not one of
    its book's.
    """
    names = site_names(rounds)
    programs = tuple(
        _with_owners(program_of(served_market(book, clearing)), _places(book, names))
        for book, clearing in rounds
    )
    return Game(
        names=names,
        programs=programs,
        sha256=_digest(rounds),
        nodes=max((book.rules.nodes for book, _ in rounds), default=1),
        known=dict(known or {}),
    )


def epoch_payoff(rounds: Sequence[Round]) -> Array:
    """What each site was paid over the rounds, core repair included, (N,) credits."""
    names = site_names(rounds)
    payoff = np.zeros(len(names))
    for book, clearing in rounds:
        payoff[_places(book, names)] += read_published(book, clearing).payoff
    return payoff


def site_names(rounds: Sequence[Round]) -> tuple[str, ...]:
    """Every site named in any of the books, sorted."""
    return tuple(sorted({name for book, _ in rounds for name in book.sites}))


def served_market(book: Book, clearing: Mapping[str, Any]) -> Market:
    """The market of a book with only what its clearing delivers still wanted."""
    market = book.market
    delivered = accounts.delivered(market, read_published(book, clearing).share)  # (J,) Msamples
    # A gang counts no more than it delivered; a divisible job's columns are shares of full use.
    counted = np.where(
        market.gang[market.job],
        np.minimum(1.0, delivered[market.job] / market.msamples),
        1.0,
    )
    value = market.value * counted
    gain = value - market.reserve[market.pool] * market.gpu_hours - market.cost
    kept = np.flatnonzero((delivered[market.job] > 0) & (gain > 0))
    columns = {name: getattr(market, name)[kept] for name in COLUMN_ARRAYS}
    columns["msamples"] = (market.msamples * np.where(counted > 0, counted, 1.0))[kept]
    columns["value"] = value[kept]
    return replace(
        market,
        demand=np.where(market.gang, market.demand, delivered),
        floor=np.minimum(market.floor, delivered),  # rounding may leave a floor a digit short
        **columns,
    )


def _with_owners(program: Program, place: Index) -> Program:
    return replace(program, owner=place[program.owner].astype(np.int64))


def _places(book: Book, names: tuple[str, ...]) -> Index:
    """Where each site of the book stands among all names, (sites of the book,)."""
    number = {name: at for at, name in enumerate(names)}
    return np.array([number[name] for name in book.sites], dtype=np.int64)


def _digest(rounds: Sequence[Round]) -> str:
    """Of the books and their clearings, in order."""
    parts = [f"{book.sha256} {clearing.get('sha256', '')}" for book, clearing in rounds]
    return hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()
