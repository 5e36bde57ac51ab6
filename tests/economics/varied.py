"""Small books in which every field of the format occurs, and awards for them, from a seed.

Half of them hold whole numbers only, so that equal offers are common.
"""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import numpy as np

from economics.book import Book, read_book
from economics.errors import BadBook
from economics.market import Array
from tests.economics.books import PER_HOUR, Document, a_pool

CLASSES = ("cnn", "lm", "vit")


class Draw:
    """Numbers of one book: whole ones throughout, or not."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.whole = self.random.random() < 0.5

    def amount(self, most: int) -> float:
        if self.whole:
            return float(self.random.randint(0, most))
        return self.random.uniform(0, most)

    def happens(self, chance: float) -> bool:
        return self.random.random() < chance

    def some(self, items: list[Any], chance: float) -> list[Any]:
        return [item for item in items if self.happens(chance)]


def varied_book(seed: int) -> Document:
    """Up to four sites of up to three pools, and up to fourteen jobs of every kind, in no order."""
    draw = Draw(seed)
    sites = [f"S{at}" for at in range(draw.random.randint(1, 4))]
    pools = [
        a_pool(site, gpu, draw.random.randint(0, 9), draw.amount(3))
        for site in sites
        for gpu in ("H", "T", "V")[: draw.random.randint(0, 3)]
    ]
    names = [pool["id"] for pool in pools]
    jobs: list[Document] = []
    for at in range(draw.random.randint(0, 14)):
        job = _job(draw, sites, names)
        if jobs and draw.happens(0.1):
            job = copy.deepcopy(draw.random.choice(jobs))
        jobs.append({**job, "id": f"j{draw.random.randint(0, 99)}-{at}"})
    book: Document = {
        "format": "hanse.book/1",
        "round_hours": draw.random.choice((1.0, 0.5, 0.25)),
        "pools": pools,
        "affinity": _affinity(draw, names),
        "transfer": [
            {"from": home, "to": site, "per_gpu_hour": draw.amount(1)}
            for home in sites
            for site in sites
            if home != site and draw.happens(0.6)
        ],
        "jobs": jobs,
    }
    if draw.happens(0.3):
        book["rules"] = {"price_cap": dict.fromkeys(draw.some(names, 0.4), 9.0)}
    for key in ("pools", "affinity", "jobs"):
        draw.random.shuffle(book[key])
    return book


def _affinity(draw: Draw, pools: list[str]) -> list[Document]:
    rows: list[Document] = []
    for pool in pools:
        for name in CLASSES:
            for gpus in (1, 2, 4):
                if draw.happens(0.8 if gpus == 1 else 0.3):
                    speed = draw.amount(4) * PER_HOUR * gpus
                    rows.append({"pool": pool, "class": name, "samples_per_s": speed, "gpus": gpus})
    return rows


def _job(draw: Draw, sites: list[str], pools: list[str]) -> Document:
    job: Document = {
        "site": draw.random.choice([*sites, "elsewhere"]),
        "class": draw.random.choice(CLASSES),
        "value": draw.amount(9),
        **_wanted(draw),
    }
    if draw.happens(0.3):
        job["budget"] = draw.amount(20)
    if pools and draw.happens(0.3):
        job["running_on"], job["move_cost"] = draw.random.choice(pools), draw.amount(3)
    if draw.happens(0.3):
        job["extra"] = {pool: draw.amount(2) for pool in draw.some(pools, 0.4)}
    if draw.happens(0.3):
        job["pools"] = draw.some(pools, 0.6)
    if draw.happens(0.3):
        job.update(weight=1 + draw.amount(3), tenant="t", attained_gpu_s=7, deadline_h=1.5)
    return job


def _wanted(draw: Draw) -> Document:
    kind = draw.random.choice(("demand", "width", "both", "gang", "gang"))
    if kind == "gang":
        sizes = draw.random.choice((1, 2, 4, [1, 2, 4], [4, 1], [3]))
        return {"gang": sizes, **({"demand": draw.amount(20)} if draw.happens(0.5) else {})}
    demand, width = {"demand": draw.amount(9)}, {"max_gpus": draw.random.randint(0, 6)}
    return {"demand": demand, "width": width, "both": demand | width}[kind]


def with_floors(document: Document, seed: int) -> Document:
    """The same book with small floors for jobs that may have one and whose home can keep it."""
    draw = Draw(seed)
    free = [job for job in document["jobs"] if not {"gang", "budget"} & job.keys()]
    floors = [
        {"job": job["id"], "demand": job.get("demand", 5.0) / 100} for job in draw.some(free, 0.8)
    ]
    try:
        read_book({**document, "floors": floors})
    except BadBook as refused:
        unkept = {problem.path.split(".")[0] for problem in refused.problems}
        floors = [row for at, row in enumerate(floors) if f"floors[{at}]" not in unkept]
    return {**document, "floors": floors}


def an_award(book: Book, seed: int) -> tuple[Array, Array]:
    """Shares (K,) with whole gangs, and prices (P,) at or above the reserves. It need not fit."""
    draw, market = Draw(seed), book.market
    share = np.zeros(market.columns)
    for column, job in enumerate(market.job.tolist()):
        if draw.happens(0.35) and not (market.gang[job] and share[market.columns_of(job)].any()):
            part = draw.random.choice((1.0, 0.5, draw.random.random()))
            hours = round(part * float(market.gpu_hours[column]), 9)
            share[column] = 1.0 if market.gang[job] else hours / market.gpu_hours[column]
    rent = [draw.amount(5) if draw.happens(0.6) else 0.0 for _ in range(market.pools)]
    return share, np.round(market.reserve + np.array(rent), 9)
