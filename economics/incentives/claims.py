"""What a site could gain by claiming another throughput than its GPUs have.

The round is planned with the claim; what is delivered and what it costs follow from the truth.
Whether a claim pays is then a matter of what is paid for: by the GPU-hour a slow site sells slow
hours at the price of fast ones; by the sample it must deliver what it sold (economics.md, 3.5 and
section 5). The pay rules are those of `economics.settlement`, on whole micro-credits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from economics import accounts
from economics.accounts import MICRO
from economics.incentives.draws import draw
from economics.incentives.intervals import Interval, mean_interval, share_interval
from economics.incentives.misreport import (
    NOTICEABLE,
    Clear,
    Document,
    Struck,
    by_programme,
    by_round,
    in_truth,
)
from economics.market import Array
from economics.settlement import PPM, Cause, Delivery, Terms, settle_contract

CLAIMS = (1.25, 1.5, 2.0, 0.7, 0.85)
BOND_PPM = 200_000  # of the payment: the shipped bond
DEAD_BAND_PPM = 50_000
KAPPA_PPM = 500_000
SAMPLES = 1_000_000  # in an Msample
LEAST_MARGIN = 0.1  # of the running cost: relative to a smaller profit, a mean says nothing


class Pay(StrEnum):
    """What is paid for."""

    HOURLY = "hourly"  # GPU-hours, whatever they deliver
    SAMPLES = "samples"  # every sample delivered, also those beyond the contract
    CAPPED = "capped"  # samples of the contract only
    HALF_PENALTY = "half_penalty"  # that, and a missing sample costs half its rate
    FULL_PENALTY = "full_penalty"  # that, and a missing sample costs its rate
    SHIPPED = "shipped"  # that, with half the rate, a dead-band, and no more than the bond


_KAPPA = {Pay.CAPPED: 0, Pay.HALF_PENALTY: PPM // 2, Pay.FULL_PENALTY: PPM}


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """What claiming `factor` times the true throughput brings under one pay rule."""

    factor: float
    pay: Pay
    gain: Interval | None  # relative to the truthful profit, of rounds with LEAST_MARGIN or more
    credits: Interval | None  # credits a round, of all rounds
    gaining: Interval | None  # share of all rounds in which the claim gains
    welfare_loss: Interval | None  # of the truthful welfare, of all rounds


def claimed(document: Document, site: str, factor: float) -> dict[str, Any]:
    """The book in which every GPU of a site is said to be `factor` times as fast as it is."""
    pools = {row["id"] for row in document["pools"] if row["site"] == site}
    rows = [
        {**row, "samples_per_s": row["samples_per_s"] * factor} if row["pool"] in pools else row
        for row in document["affinity"]
    ]
    return {**document, "affinity": rows}


def claim_payoff(
    struck: Struck, truth: Struck, site: str, factor: float, pay: Pay
) -> tuple[float, float]:
    """The payoff of a site whose claim was planned on, and the welfare there really is. Credits.

    GPUs that are faster than claimed stop when the contract is delivered, unless what is beyond
    it is paid too; to the tenant, whose job was planned to end there, it is worth nothing.
    """
    market, share = struck.book.market, struck.share
    seller = struck.book.sites.index(site)
    its = market.owner[market.pool] == seller
    speed = np.where(its, 1 / factor, 1.0)  # (K,) delivered, over what was planned
    real = in_truth(market, truth.book)
    beyond = pay in (Pay.HOURLY, Pay.SAMPLES)
    running = np.ones(speed.shape) if beyond else np.minimum(1 / speed, 1.0)  # (K,) of the hours
    real = replace(
        real,
        value=real.value * np.minimum(speed, 1.0),
        gpu_hours=real.gpu_hours * running,
    )
    paid = struck.paid.copy()
    for column in np.flatnonzero(its & (share > 0)).tolist():
        paid[column] = _paid(struck, column, float(speed[column]), pay)
    payoff = accounts.site_payoffs(real, share, paid) + struck.transfer
    return float(payoff[seller]), accounts.welfare(real, share)


def _paid(struck: Struck, column: int, speed: float, pay: Pay) -> float:
    """What the tenant pays for one line in the end, less the penalty it gets, credits."""
    payment = float(struck.paid[column])
    if pay is Pay.HOURLY:
        return payment
    if pay is Pay.SAMPLES:
        return payment * speed
    market = struck.book.market
    pool, hours = market.pool[column], float(market.gpu_hours[column] * struck.share[column])
    contracted = round(float(market.msamples[column] * struck.share[column]) * SAMPLES)
    amount, shipped = round(payment * MICRO), pay is Pay.SHIPPED
    outcome = settle_contract(
        Terms(
            payment_micro=amount,
            contracted=contracted,
            bond_micro=amount * BOND_PPM // PPM if shipped else amount,
            price_micro=round(float(struck.price[pool]) * MICRO),
            reserve_micro=round(float(market.reserve[pool]) * MICRO),
            kappa_ppm=KAPPA_PPM if shipped else _KAPPA[pay],
            dead_band_ppm=DEAD_BAND_PPM if shipped else 0,
        ),
        Delivery(
            delivered=round(contracted * speed),
            counted=None,
            gpu_ms=round(hours * 3_600_000),
            cause=Cause.SITE,
        ),
    )
    return (outcome.pay_micro - outcome.penalty_micro) / MICRO


def claims(
    books: Document | Sequence[Document],
    site: str,
    *,
    factors: Sequence[float] = CLAIMS,
    rules: Sequence[Pay] = tuple(Pay),
    seed: int = 0,
    clear: Clear = by_round,
) -> tuple[ClaimRow, ...]:
    """What each claim of a site brings under each pay rule, over one book or several.

    `seed` is that of the bootstrap. Raises ValueError when a book does not know the site, and as
    `clear` does.
    """
    documents = [books] if isinstance(books, Mapping) else list(books)
    cells = [(factor, rule) for factor in factors for rule in rules]
    honest, ends = [], []
    for document in documents:
        truth = clear(document)
        planned = {factor: clear(claimed(document, site, factor)) for factor in factors}
        honest.append(
            (*claim_payoff(truth, truth, site, 1.0, Pay.HOURLY), _running_cost(truth, site))
        )
        ends.append([claim_payoff(planned[told], truth, site, told, rule) for told, rule in cells])
    return _rows(
        cells,
        np.array(honest, dtype=float).reshape(-1, 3),
        np.array(ends, dtype=float).reshape(-1, len(cells), 2),
        seed,
    )


def claim_study(
    instances: int,
    seed: int,
    *,
    sites: int = 6,
    tenants: bool = False,
    factors: Sequence[float] = CLAIMS,
    rules: Sequence[Pay] = tuple(Pay),
) -> tuple[ClaimRow, ...]:
    """Claims of one site among so many, in as many drawn books; without `tenants` it only sells."""
    suppliers = 0 if tenants else 1
    books = [draw(seed + number, sites=sites, suppliers=suppliers) for number in range(instances)]
    first = books[0]["pools"][0]["site"]
    return claims(books, first, factors=factors, rules=rules, seed=seed, clear=by_programme)


def _running_cost(struck: Struck, site: str) -> float:
    """Reserve price of the GPU-hours a site sold, credits."""
    market = struck.book.market
    cost = market.reserve[market.pool] * market.gpu_hours * struck.share
    return float(cost[market.owner[market.pool] == struck.book.sites.index(site)].sum())


def _rows(
    cells: Sequence[tuple[float, Pay]], honest: Array, ends: Array, seed: int
) -> tuple[ClaimRow, ...]:
    """From the site's payoff and the welfare, (M, cells, 2), and those of the truth with what the
    site's running cost is then, (M, 3)."""
    profit, welfare, running = honest.T
    added = ends[:, :, 0] - profit[:, None]
    lost = 1 - ends[:, :, 1] / np.maximum(welfare, 1e-12)[:, None]
    profits = profit > LEAST_MARGIN * running + NOTICEABLE * welfare
    relative = added[profits] / profit[profits, None]
    gaining = np.count_nonzero(added > NOTICEABLE * welfare[:, None], axis=0)
    return tuple(
        ClaimRow(
            factor=factor,
            pay=rule,
            gain=mean_interval(relative[:, at], seed=seed),
            credits=mean_interval(added[:, at], seed=seed),
            gaining=share_interval(int(gaining[at]), profit.size),
            welfare_loss=mean_interval(lost[:, at], seed=seed),
        )
        for at, (factor, rule) in enumerate(cells)
    )
