"""What any policy's award must be, whatever it aims at."""

from __future__ import annotations

from typing import Any

import numpy as np

from economics import accounts
from economics.book import read_book
from economics.market import Array, Market
from economics.policies import policy_of, question_of

CLOSE = 1e-6


def awarded(document: dict[str, Any], policy: str, **parameters: object) -> dict[str, Any]:
    """{job: {pool: GPU-hours}} of a book under a policy, after checking that it is feasible."""
    document = {**document, "rules": {"policy": policy, "parameters": parameters}}
    book = read_book(document)
    share = policy_of(policy)(question_of(book))
    assert_feasible(book.market, share)
    hours: dict[str, Any] = {}
    for column in np.flatnonzero(share > 0):
        job, pool = book.jobs[book.market.job[column]].id, book.pools[book.market.pool[column]].id
        amount = float(share[column] * book.market.gpu_hours[column])
        hours.setdefault(job, {})[pool] = round(amount, 6)
    return hours


def assert_feasible(market: Market, share: Array) -> None:
    """Capacity, demand, width, floors; gangs whole and once; no job served at a loss."""
    assert share.shape == (market.columns,)
    assert (share >= 0).all()
    assert (share <= 1 + CLOSE).all()
    gang = market.gang[market.job]
    assert np.isin(share[gang], (0.0, 1.0)).all()
    assert (np.bincount(market.job[gang], weights=share[gang], minlength=market.jobs) <= 1).all()
    assert _at_most(accounts.used_hours(market, share), market.capacity)
    divisible = ~market.gang
    delivered = accounts.delivered(market, share)
    hours = np.bincount(market.job, weights=market.gpu_hours * share, minlength=market.jobs)
    assert _at_most(delivered[divisible], market.demand[divisible])
    assert _at_most(hours[divisible], market.width[divisible])
    assert _at_most(market.floor, delivered)
    unpromised = market.floor == 0
    size = np.abs(market.value).max(initial=0.0)
    assert (accounts.job_gain(market, share)[unpromised] >= -CLOSE * size).all()


def _at_most(amount: Array, limit: Array) -> bool:
    return bool((amount <= limit * (1 + CLOSE) + 1e-9).all())
