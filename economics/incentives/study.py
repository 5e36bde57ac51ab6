"""One round studied for one site: what it makes alone and in the federation, and why.

A `Question` is independent of all others and small enough to be handed to a worker; its `Outcome`
holds numbers and texts only. Reports are made of outcomes, see `economics.incentives.join`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from economics import accounts
from economics.book import Book, read_book
from economics.clearing.allocation import allocate
from economics.errors import BadBook, Problem
from economics.incentives.best_response import best_response
from economics.incentives.decomposition import Decomposition, decompose
from economics.market import Array, Market, Mask
from economics.published import Published, read_published
from economics.rounds import WELFARE, decide
from economics.sharing.game import Game, game_of
from economics.sharing.nucleolus import nucleolus
from economics.sharing.objections import LISTED

ALL_COALITIONS = 10  # sites up to which a site is added to every coalition of the others
DRAWN_COALITIONS = 200  # coalitions drawn beyond


@dataclass(frozen=True, slots=True)
class Split:
    """Where the gain at market prices comes from; the lines sum to it. Credits per round."""

    sales_revenue: float  # paid by tenants of other sites
    cost_of_sales: float  # reserve of the GPU-hours sold to them; at most 0
    tenants_extra_value: float  # value of what the site's tenants are delivered, less that alone
    saved_purchases: float  # what serving them cost alone less what it costs now, bought or run
    stability_transfer: float  # of the core repair
    penalties: float  # as given; at most 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one round comes to. Credits per round; N sites sorted by name."""

    sites: tuple[str, ...]  # (N,)
    alone: tuple[float, ...]  # (N,)
    market: tuple[float, ...]  # (N,) as paid, core repair included
    nucleolus: tuple[float, ...]  # (N,)
    value: float  # of all sites together
    split: Split
    without: float  # value of all other sites together
    contributions: tuple[float, ...]  # of the site to each coalition of the others that was tried
    listed: bool  # whether those are all coalitions
    values: tuple[float, ...] | None  # (2^N,) of each coalition by mask; None beyond LISTED sites
    decomposition: Decomposition
    ending: str | None  # of the best-response path; None where the game was not played
    welfare_ratio: tuple[float, float] | None  # at that ending, over full sharing

    def row(self) -> dict[str, Any]:
        """As JSON; `of_row` reads it back."""
        return asdict(self)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Outcome:
        """Tuples come back from JSON as lists."""
        plain: dict[str, Any] = {
            key: tuple(at) if isinstance(at, list) else at for key, at in row.items()
        }
        plain["split"] = Split(**row["split"])
        plain["decomposition"] = Decomposition(**row["decomposition"])
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class Question:
    """One round and one site."""

    document: Mapping[str, Any]  # hanse.book/1
    site: str
    penalties: float = 0.0  # credits the site expects to pay in a round
    seed: int = 0  # of the coalitions that are drawn where there are too many
    play: bool = True  # the game of offers, which takes long where gangs are whole

    def answer(self) -> Outcome:
        """Raises BadBook where the book cannot be read or has no such site."""
        book = studied(self.document, self.site)
        at = book.sites.index(self.site)
        game, clearing = game_of(book), cleared(book)
        contributions, listed = _contributions(game, at, self.seed)
        path = best_response(book) if self.play else None
        return Outcome(
            sites=book.sites,
            alone=tuple(game.alone.tolist()),
            market=tuple(clearing.payoff.tolist()),
            nucleolus=tuple(nucleolus(game).payoff.tolist()),
            value=game.grand,
            split=_split(book, clearing, at, self.penalties),
            without=game.value(game.everybody ^ (1 << at)),
            contributions=contributions,
            listed=listed,
            values=tuple(game.values().tolist()) if len(book.sites) <= LISTED else None,
            decomposition=decompose(self.document),
            ending=path.outcome if path else None,
            welfare_ratio=path.welfare_ratio if path else None,
        )


def studied(document: Mapping[str, Any], site: str | None = None) -> Book:
    """The book, if it is one whose incentives can be studied; raises BadBook."""
    book = read_book(document)
    problems = []
    if book.rules.policy != WELFARE:
        why = f"incentives are studied for rounds of policy {WELFARE!r}, not {book.rules.policy!r}"
        problems.append(Problem("rules.policy", why))
    if site is not None and site not in book.sites:
        known = ", ".join(book.sites) or "none"
        problems.append(Problem("site", f"unknown site {site!r}; the book has {known}"))
    if problems:
        raise BadBook(tuple(problems))
    return book


def cleared(book: Book) -> Published:
    """The round as it is published."""
    return read_published(book, decide(book))


def _contributions(game: Game, at: int, seed: int) -> tuple[tuple[float, ...], bool]:
    """v(S + i) - v(S) over coalitions S of the others, and whether over all of them."""
    sites, bit = len(game.names), 1 << at
    if sites <= ALL_COALITIONS:
        values = game.values()
        masks = np.arange(1 << sites)
        others = masks[masks & bit == 0]
        added: Array = values[others | bit] - values[others]
        return tuple(added.tolist()), True
    random = np.random.default_rng(seed)
    found = []
    for inside in random.random((DRAWN_COALITIONS, sites)) < 0.5:
        mask = sum(1 << other for other in np.flatnonzero(inside).tolist()) & ~bit
        found.append(game.value(mask | bit) - game.value(mask))
    return tuple(found), False


@dataclass(frozen=True, slots=True)
class _Position:
    """One site's side of an award. Credits."""

    value: float  # of what its tenants are delivered
    cost: float  # of serving them: bought from others, run at home, moved
    revenue: float  # paid by tenants of others
    sold: float  # reserve of the GPU-hours sold to them


def _split(book: Book, clearing: Published, at: int, penalties: float) -> Split:
    market = book.market
    alone = restricted(market, np.arange(market.sites) == at)
    found = allocate(alone, nodes=book.rules.nodes)
    before = _position(alone, found.share, np.zeros(found.share.shape), at)
    now = _position(market, clearing.share, clearing.paid, at)
    return Split(
        sales_revenue=now.revenue,
        cost_of_sales=-now.sold,
        tenants_extra_value=now.value - before.value,
        saved_purchases=before.cost - now.cost,
        stability_transfer=clearing.transfer_micro[at] / accounts.MICRO,
        penalties=-penalties,
    )


def restricted(market: Market, members: Mask) -> Market:
    """The market of these sites with nobody else, on the same axes of pools and jobs."""
    kept = members[market.home[market.job]] & members[market.owner[market.pool]]
    names = ("job", "pool", "gpu_hours", "msamples", "value", "cost", "stays", "speed", "fee")
    columns: dict[str, Any] = {name: getattr(market, name)[kept] for name in names}
    return replace(
        market, capacity=np.where(members[market.owner], market.capacity, 0.0), **columns
    )


def _position(market: Market, share: Array, paid: Array, at: int) -> _Position:
    own = market.home[market.job] == at
    sells = market.owner[market.pool] == at
    running = market.reserve[market.pool] * market.gpu_hours * share
    moving = accounts.moving(market, share)[market.home == at].sum()
    bought = paid[own & ~sells].sum() + running[own & sells].sum()
    return _Position(
        value=float((market.value * share)[own].sum()),
        cost=float(bought + (market.cost * share)[own].sum() + moving),
        revenue=float(paid[sells & ~own].sum()),
        sold=float(running[sells & ~own].sum()),
    )
