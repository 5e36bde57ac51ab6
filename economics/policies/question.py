"""What a policy is asked: a market, and what the book says about its jobs beyond their bids.

Shapes: J jobs · K columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from economics.book import Book
from economics.market import Array, Index, Market, Mask


@dataclass(frozen=True, slots=True)
class Question:
    """Everything a policy decides from."""

    market: Market
    weight: Array  # (J,) > 0: what the job may claim of the whole, by member, tenant and job
    attained: Array  # (J,) GPU-seconds attained so far
    deadline: Array  # (J,) hours from now; inf = none
    tenant: Index  # (J,) number of the pair (home site, tenant)
    ids: tuple[str, ...]  # (J,) for ties only
    hours: float  # length of the round
    nodes: int  # limit on branch-and-bound nodes
    parameters: Mapping[str, object]


def question_of(book: Book) -> Question:
    """The question a book asks its policy."""
    rows, market = book.jobs, book.market
    tenant = _numbers([(row.site, row.tenant) for row in rows])
    return Question(
        market=market,
        weight=claims(
            member=market.home,
            tenant=tenant,
            weight=np.array([row.weight for row in rows], dtype=float),
            counts=np.bincount(market.job, minlength=market.jobs) > 0,
        ),
        attained=np.array([row.attained_gpu_s for row in rows], dtype=float),
        deadline=np.array([row.deadline_h for row in rows], dtype=float),
        tenant=tenant,
        ids=tuple(row.id for row in rows),
        hours=book.hours,
        nodes=book.rules.nodes,
        parameters=book.rules.parameters,
    )


def claims(*, member: Index, tenant: Index, weight: Array, counts: Mask) -> Array:
    """What each job may claim of the whole, (J,): those of the jobs that count add up to one.

    The members have equal claims; a member's is split equally among its tenants, a tenant's among
    its jobs by their own weights. Only jobs, tenants and members that count are split among: what
    one cannot use does not lie idle. A job that does not count has the claim it would have in a
    part as it stands, which is positive and means nothing.
    """
    among_jobs = weight / _total(tenant, np.where(counts, weight, 0.0), weight)
    tenants = tenant.max(initial=-1) + 1
    home = np.zeros(tenants, dtype=np.int64)
    home[tenant] = member
    present = np.bincount(tenant, weights=counts, minlength=tenants) > 0
    among_tenants = 1.0 / np.maximum(
        np.bincount(home[present], minlength=member.max(initial=0) + 1), 1
    )
    members = max(1, np.unique(home[present]).size)
    share: Array = among_jobs * among_tenants[member] / members
    return share


def _total(group: Index, counted: Array, weight: Array) -> Array:
    """Weight that counts in each job's group, (J,); a job's own in a group where nothing does."""
    size = group.max(initial=-1) + 1
    total = np.bincount(group, weights=counted, minlength=size)[group]
    return np.where(total > 0, total, weight)


def _numbers(keys: list[tuple[str, str]]) -> Index:
    number = {key: at for at, key in enumerate(sorted(set(keys)))}
    return np.array([number[key] for key in keys], dtype=np.int64)
