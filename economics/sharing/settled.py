"""What a round came to: awards are promises, contracts say what was delivered and paid.

A job's *part* is what it delivered of what it was awarded: below one after a shortfall, above one
where the contract went on beyond its round. Axes as in market.py: N sites · J jobs · K columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from economics import accounts
from economics.book import Book
from economics.errors import BadBook, Problem
from economics.market import Array, Market
from economics.published import Published, read_published

MICRO = accounts.MICRO
SAMPLES = 1e6  # in a Msample


@dataclass(frozen=True, slots=True)
class Settled:
    """What the settled contract of a job says. A job without one delivered nothing."""

    samples: int  # accepted, at most those contracted
    paid_micro: int  # to the seller, micro-credits
    penalty_micro: int = 0  # of the seller's bond, to the buyer


Settlement = Mapping[str, Settled]  # by job of one round


@dataclass(frozen=True, slots=True)
class Realised:
    """A clearing with what its contracts came to."""

    share: Array  # (K,) awarded
    part: Array  # (J,) delivered of what was awarded; 0 where nothing was
    paid: Array  # (K,) credits
    payoff: Array  # (N,) credits

    @property
    def surplus(self) -> float:
        """Credits that all sites made together."""
        return float(self.payoff.sum())


def realised(book: Book, clearing: object, settled: Settlement | None) -> Realised:
    """What a round came to; `settled` None = all that was awarded was delivered and paid.

    A site has the value that its jobs were delivered, less what it paid and the transfer, plus
    what it was paid less the reserve of the GPU time that was paid for; stability transfers as
    posted. Penalties are not in it: they are moved once, by the contract, and a dividend that made
    up for a part of them would make them smaller. Raises BadBook for a job without an award.
    """
    read, market = read_published(book, clearing), book.market
    if settled is None:
        whole = (accounts.delivered(market, read.share) > 0).astype(float)
        return Realised(read.share, whole, read.paid, read.payoff)
    samples, paid = _by_job(book, settled)
    awarded: Array = np.rint(accounts.delivered(market, read.share) * SAMPLES).astype(np.float64)
    strangers = np.flatnonzero((awarded <= 0) & ((samples > 0) | (paid > 0)))
    if strangers.size:
        name = book.jobs[int(strangers[0])].id
        raise BadBook((Problem(f"settled.{name}", "has no award in this round"),))
    due = np.bincount(market.job, weights=read.paid, minlength=market.jobs).astype(np.float64)
    part = _ratio(samples, awarded)
    paid_part = _ratio(paid / MICRO, due)
    credited = read.paid * paid_part[market.job]
    payoff = _payoff(market, read, part, np.maximum(part, paid_part), credited)
    return Realised(read.share, part, credited, payoff)


def _by_job(book: Book, settled: Settlement) -> tuple[Array, Array]:
    """Samples and micro-credits of each job, (J,) both."""
    unknown = sorted(set(settled) - {row.id for row in book.jobs})
    if unknown:
        raise BadBook((Problem(f"settled.{unknown[0]}", "is no job of this book"),))
    nothing = Settled(0, 0)
    rows = [settled.get(row.id, nothing) for row in book.jobs]
    samples = np.array([row.samples for row in rows], dtype=float)
    return samples, np.array([row.paid_micro for row in rows], dtype=float)


def _payoff(market: Market, read: Published, part: Array, hours: Array, paid: Array) -> Array:
    """(N,) credits of parts delivered and GPU time paid for, (J,) both, and of payments (K,)."""
    job, home, seller = market.job, market.home[market.job], market.owner[market.pool]
    running = market.reserve[market.pool] * market.gpu_hours * hours[job]
    own = (market.value * part[job] - market.cost * spent(market, part[job])) * read.share - paid
    moved = accounts.moving(market, read.share * (part[job] > 0))
    amounts = ((home, own), (seller, paid - running * read.share), (market.home, -moved))
    total = np.array(read.transfer_micro, dtype=float) / MICRO
    for place, amount in amounts:
        total += np.bincount(place, weights=amount, minlength=market.sites)
    return total


def spent(market: Market, part: Array) -> Array:
    """Part of the transfer that was spent for parts delivered, (K,) both.

    A gang is moved whole, however little it does then.
    """
    whole = market.gang[market.job]
    share: Array = np.where(whole, part > 0, np.minimum(part, 1.0)).astype(np.float64)
    return share


def turnover_micro(book: Book, paid: Array) -> tuple[int, ...]:
    """What each site paid and was paid for GPUs, micro-credits, (N,), of payments (K,) credits."""
    market = book.market
    both = np.bincount(market.home[market.job], weights=paid, minlength=market.sites)
    both += np.bincount(market.owner[market.pool], weights=paid, minlength=market.sites)
    return tuple(round(amount * MICRO) for amount in both.tolist())


def _ratio(amount: Array, of: Array) -> Array:
    """amount / of, 0 where there is nothing to divide by."""
    found: Array = np.divide(amount, of, out=np.zeros(amount.shape), where=of > 0)
    return found
