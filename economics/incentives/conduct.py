"""Who could move prices, and whether somebody did: market power, raised reserves, withholding.

Indices and what they say (economics.md, section 5):

* pivotal supplier: share of the welfare that is lost without a site, its tenants included;
* residual supply: GPU-hours of a type that all others offer, over those that were sold; below 1.1
  the others could hardly have done without (used by system operators of electricity markets;
  Sheffrin, 2002, "Predicting market power using the residual supply index");
* Herfindahl-Hirschman: sum of squared percentage shares, 10,000 for a monopoly;
* conduct and impact: a reserve is replaced only where it is above its reference *and* the round
  without the excess is noticeably cheaper; high conduct alone is no reason.

`owners` names the beneficial owner of each site; sites of one owner count as one, and a site not
named is its own. Documents in, plain values out; nothing here decides what to do about it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from economics.book import Book, read_book
from economics.clearing.program import Program, program_of
from economics.errors import BadBook, Problem
from economics.market import Mask
from economics.rounds import decide
from economics.sharing.coalitions import coalition_value

SCARCE = 1.1  # a residual supply index below this is flagged
NOTICEABLE_IMPACT = 0.05  # relative rise of the cost of a GPU type that calls for mitigation
WITHHELD = 0.2  # share of a site's GPU-hours neither offered nor used that is flagged
AT_CAP = 1e-6  # credits per GPU-hour: nearer to its cap than this, a price is held by it
Document = Mapping[str, Any]
Owners = Mapping[str, str]  # {site: beneficial owner}


@dataclass(frozen=True, slots=True)
class Pivotal:
    """What the federation would lose without an owner's sites."""

    owner: str
    value: float  # largest welfare with everybody, credits a round
    without: float  # largest welfare of the others
    index: float  # share of the value that is lost, 0 to 1


@dataclass(frozen=True, slots=True)
class ResidualSupply:
    """Whether the others could have supplied what was sold of a GPU type."""

    owner: str
    gpu: str
    offered: float  # GPU-hours, by this owner
    others: float  # GPU-hours, by all others
    sold: float  # GPU-hours, by all
    index: float | None  # others over sold; None where nothing was sold
    flagged: bool  # below SCARCE


@dataclass(frozen=True, slots=True)
class Concentration:
    """How concentrated the offers of a GPU type are."""

    gpu: str
    owners: int  # with an offer
    index: float | None  # Herfindahl-Hirschman, 0 to 10,000; None where nothing is offered
    largest: float | None  # share of the largest owner


@dataclass(frozen=True, slots=True)
class PriceChange:
    """A price in two clearings, credits per GPU-hour."""

    name: str  # pool, or GPU type
    price: float  # as the book stands
    otherwise: float  # in the other clearing
    rise: float | None  # of the first over the second, relative; None: from nothing


@dataclass(frozen=True, slots=True)
class Impact:
    """A site's reserves against their references."""

    site: str
    raised: tuple[str, ...]  # pools whose reserve is above its reference by more than the band
    impact: float | None  # largest relative rise of the price of a GPU type; None: from nothing
    mitigate: bool
    types: tuple[PriceChange, ...]  # mean price of the GPU-hours sold, by GPU type
    pools: tuple[PriceChange, ...]


@dataclass(frozen=True, slots=True)
class CapRegret:
    """What price caps cost: regret is what sites and jobs fall short of their best choice by."""

    capped: float  # regret as published, credits a round
    free: float  # regret without any cap
    caused: float  # the difference, at least 0
    binding: tuple[str, ...]  # pools whose price is held by the cap
    pools: tuple[PriceChange, ...]  # `otherwise`: without any cap


@dataclass(frozen=True, slots=True)
class Use:
    """What a site did with its GPU-hours of a type."""

    site: str
    gpu: str
    owned: float  # GPU-hours it could have offered
    offered: float
    used_locally: float  # of those not offered


@dataclass(frozen=True, slots=True)
class Withheld:
    """GPU-hours that were neither offered nor used."""

    site: str
    gpu: str
    withheld: float  # GPU-hours
    share: float  # of those owned
    utilisation: float | None  # of the GPU-hours kept back; None where none were
    flagged: bool  # the share is more than WITHHELD


def pivotal(document: Document, *, owners: Owners | None = None) -> tuple[Pivotal, ...]:
    """The pivotal-supplier index of every owner, by name. Raises BadBook, NotCleared."""
    book = read_book(document)
    program = program_of(book.market)
    everybody = np.ones(len(book.sites), dtype=bool)
    value = _largest(program, everybody, book)
    found = []
    for owner, sites in _by_owner(book.sites, owners).items():
        others = np.array([site not in sites for site in book.sites], dtype=bool)
        without = _largest(program, others, book)
        lost = max(value - without, 0.0) / value if value > 0 else 0.0
        found.append(Pivotal(owner, value, without, min(lost, 1.0)))
    return tuple(found)


def residual_supply(
    document: Document, clearing: Document, *, owners: Owners | None = None
) -> tuple[ResidualSupply, ...]:
    """The residual supply index of every owner and every GPU type it offers, by name.

    Raises BadBook, also when the clearing is that of another book.
    """
    book = read_book(document)
    if clearing["book_sha256"] != book.sha256:
        raise BadBook((Problem("clearing.book_sha256", "is that of another book"),))
    gpu_of = {row.id: row.gpu for row in book.pools}
    sold: dict[str, float] = defaultdict(float)
    for line in clearing["allocation"]:
        sold[gpu_of[line["pool"]]] += line["gpu_hours"]
    offered = _offered(book, owners)
    found = []
    for (owner, gpu), hours in sorted(offered.items()):
        others = sum(more for (name, kind), more in offered.items() if kind == gpu) - hours
        index = others / sold[gpu] if sold[gpu] > 0 else None
        flagged = index is not None and index < SCARCE and hours > 0
        found.append(ResidualSupply(owner, gpu, hours, others, sold[gpu], index, flagged))
    return tuple(found)


def concentration(document: Document, *, owners: Owners | None = None) -> tuple[Concentration, ...]:
    """The Herfindahl-Hirschman index of the offers of every GPU type, by name. Raises BadBook."""
    offers: dict[str, list[float]] = defaultdict(list)
    for (_, gpu), hours in sorted(_offered(read_book(document), owners).items()):
        offers[gpu].append(hours)
    found = []
    for gpu, parts in sorted(offers.items()):
        shares = [part / sum(parts) for part in parts] if sum(parts) > 0 else []
        found.append(
            Concentration(
                gpu=gpu,
                owners=sum(part > 0 for part in parts),
                index=10_000 * sum(share**2 for share in shares) if shares else None,
                largest=max(shares, default=None),
            )
        )
    return tuple(found)


def usual_reserves(documents: Iterable[Document], site: str) -> dict[str, float]:
    """Median reserve of each pool of a site over earlier books, credits per GPU-hour.

    A reference for `conduct_and_impact` where the site has declared no costs.
    """
    asked: dict[str, list[float]] = defaultdict(list)
    for document in documents:
        for row in document["pools"]:
            if row["site"] == site:
                asked[row["id"]].append(row["reserve"])
    return {pool: float(median(reserves)) for pool, reserves in sorted(asked.items())}


def conduct_and_impact(
    document: Document,
    site: str,
    reference: Mapping[str, float],
    *,
    band: float = 0.0,
    threshold: float = NOTICEABLE_IMPACT,
) -> Impact:
    """Clear the book again with a site's raised reserves at their references.

    `reference` is {pool: credits per GPU-hour}, a pool not named is not tested; `band` is how far
    above it, relative, a reserve may be. The impact is on what buyers pay for a GPU-hour of a type,
    wherever they buy it: a price nobody pays because others are cheaper is none. Raises as
    `economics.rounds.decide` does.
    """
    book = read_book(document)
    raised = tuple(
        row.id
        for row in book.pools
        if row.site == site and row.id in reference and row.reserve > reference[row.id] * (1 + band)
    )
    if not raised:
        return Impact(site, (), 0.0, mitigate=False, types=(), pools=())
    stands = decide(book)
    otherwise = decide(read_book(_with_reserves(document, {at: reference[at] for at in raised})))
    types = _compared(_paid_by_type(book, stands), _paid_by_type(book, otherwise))
    rises = [row.rise for row in types]
    impact = None if None in rises else max((rise for rise in rises if rise is not None), default=0)
    return Impact(
        site=site,
        raised=raised,
        impact=impact,
        mitigate=impact is None or impact > threshold,
        types=types,
        pools=_compared(stands["prices"], otherwise["prices"]),
    )


def cap_regret(document: Document) -> CapRegret:
    """Decide with the book's price caps and without; raises as `economics.rounds.decide` does."""
    book = read_book(document)
    capped = decide(book)
    regret = float(capped["regret"])
    if not book.rules.price_cap:
        return CapRegret(regret, regret, 0.0, (), ())
    rules = {key: rule for key, rule in document["rules"].items() if key != "price_cap"}
    free = decide(read_book({**document, "rules": rules}))
    return CapRegret(
        capped=regret,
        free=float(free["regret"]),
        caused=max(regret - float(free["regret"]), 0.0),
        binding=tuple(
            name
            for name, cap in sorted(book.rules.price_cap.items())
            if free["prices"][name] > cap + AT_CAP and capped["prices"][name] >= cap - AT_CAP
        ),
        pools=_compared(capped["prices"], free["prices"]),
    )


def withholding(uses: Iterable[Use], *, threshold: float = WITHHELD) -> tuple[Withheld, ...]:
    """GPU-hours kept from the market that the site did not need itself, by site and GPU type.

    A site that offers little because its own tenants keep its GPUs busy withholds nothing. Raises
    ValueError for amounts that are negative, or offered but not owned.
    """
    found = []
    for use in sorted(uses, key=lambda use: (use.site, use.gpu)):
        kept = use.owned - use.offered
        if min(use.offered, use.used_locally, kept) < 0:
            raise ValueError(f"{use.site}, {use.gpu}: an amount is negative, or more than is owned")
        withheld = max(kept - use.used_locally, 0.0)
        share = withheld / use.owned if use.owned > 0 else 0.0
        utilisation = min(use.used_locally / kept, 1.0) if kept > 0 else None
        flagged = share > threshold
        found.append(Withheld(use.site, use.gpu, withheld, share, utilisation, flagged))
    return tuple(found)


def _largest(program: Program, members: Mask, book: Book) -> float:
    """Largest welfare of some sites, credits; 0 where they have nothing to do together."""
    return coalition_value(program, members, nodes=book.rules.nodes) if members.any() else 0.0


def _by_owner(sites: Iterable[str], owners: Owners | None) -> dict[str, set[str]]:
    """{owner: its sites}, by name."""
    found: dict[str, set[str]] = defaultdict(set)
    for site in sites:
        found[(owners or {}).get(site, site)].add(site)
    return dict(sorted(found.items()))


def _offered(book: Book, owners: Owners | None) -> dict[tuple[str, str], float]:
    """{(owner, GPU type): GPU-hours}."""
    hours: dict[tuple[str, str], float] = defaultdict(float)
    for row, capacity in zip(book.pools, book.market.capacity.tolist(), strict=True):
        hours[(owners or {}).get(row.site, row.site), row.gpu] += capacity
    return hours


def _with_reserves(document: Document, reserve: Mapping[str, float]) -> dict[str, Any]:
    pools = [
        {**row, "reserve": reserve.get(row["id"], row["reserve"])} for row in document["pools"]
    ]
    return {**document, "pools": pools}


def _paid_by_type(book: Book, clearing: Document) -> dict[str, float]:
    """Mean price of the GPU-hours sold of each type; of one nobody bought, the lowest asked."""
    hours, cost = defaultdict[str, float](float), defaultdict[str, float](float)
    asked: dict[str, float] = {}
    gpu_of = {row.id: row.gpu for row in book.pools}
    for line in clearing["allocation"]:
        gpu = gpu_of[line["pool"]]
        hours[gpu] += line["gpu_hours"]
        cost[gpu] += line["gpu_hours"] * clearing["prices"][line["pool"]]
    for row in book.pools:
        if row.gpus:
            price = clearing["prices"][row.id]
            asked[row.gpu] = min(price, asked.get(row.gpu, price))
    return {
        gpu: cost[gpu] / hours[gpu] if hours[gpu] > 0 else price for gpu, price in asked.items()
    }


def _compared(
    price: Mapping[str, float], otherwise: Mapping[str, float]
) -> tuple[PriceChange, ...]:
    """Two sets of prices of the same things, by name."""
    return tuple(
        PriceChange(name, price[name], otherwise[name], _rise(price[name], otherwise[name]))
        for name in sorted(price)
    )


def _rise(price: float, otherwise: float) -> float | None:
    if otherwise > 0:
        return price / otherwise - 1
    return None if price > 0 else 0.0
