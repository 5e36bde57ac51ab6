"""Books from a seed, larger and less tidy than those hypothesis draws."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.economics.books import PER_HOUR

CLASSES = ("a", "b", "c")


def random_book(
    seed: int,
    *,
    ties: bool = False,
    gangs: bool | None = False,
    jobs: int | None = None,
    value: float = 10.0,
    money: float = 1.0,
) -> dict[str, Any]:
    """A market of up to five sites; `ties` draws whole numbers, `gangs=None` mixes the kinds."""
    draw = random.Random(seed)

    def amount(most: float, step: float = 1.0) -> float:
        drawn = draw.randint(0, round(most / step)) * step if ties else draw.uniform(0, most)
        return drawn * money

    sites = [f"S{at}" for at in range(draw.randint(1, 5))]
    pools = [
        {
            "id": f"{site}.{gpu}",
            "site": site,
            "gpu": gpu,
            "gpus": draw.choice([0, 2, 4, 8, 16]),
            "reserve": amount(3.0, 0.1),
        }
        for site in sites
        for gpu in ("H", "T", "V")[: draw.randint(1, 3)]
    ]
    speeds = [draw.randint(0, 20) / 10 if ties else draw.uniform(0.05, 2) for _ in range(60)]
    affinity = [
        {"pool": pool["id"], "class": name, "samples_per_s": draw.choice(speeds) * PER_HOUR}
        for pool in pools
        for name in CLASSES
        if draw.random() > 0.15
    ]
    transfer = [
        {"from": home, "to": site, "per_gpu_hour": amount(0.3, 0.1)}
        for home in sites
        for site in sites
        if home != site
    ]
    names = [pool["id"] for pool in pools]
    count = draw.randint(0, 25) if jobs is None else jobs
    rows = []
    for at in range(count):
        row = {"id": f"j{at:03}", "site": draw.choice(sites), "class": draw.choice(CLASSES)}
        gang = draw.random() < 0.5 if gangs is None else gangs
        wants = a_gang(draw, amount, money) if gang else a_divisible_job(draw, amount, money)
        rows.append({**row, "value": amount(value), **wants})
        if draw.random() < 0.3:
            rows[-1]["pools"] = draw.sample(names, draw.randint(1, len(names)))
    rules = {"epsilon": draw.choice([0.0, 0.005, 0.05]), "seller_share": draw.choice([0, 0.5, 1])}
    book: dict[str, Any] = {
        "format": "hanse.book/1",
        "round_hours": draw.choice([0.25, 1.0]),
        "pools": pools,
        "affinity": affinity,
        "transfer": transfer,
        "jobs": rows,
        "rules": rules,
    }
    if draw.random() < 0.67:
        book["previous_prices"] = {
            row["id"]: row["reserve"] + amount(8.0) for row in pools if draw.random() < 0.8
        }
    return book


def a_gang(draw: random.Random, amount: Callable[[float], float], money: float) -> dict[str, Any]:
    """Sizes, and now and then a demand or a budget that binds."""
    wants: dict[str, Any] = {"gang": draw.choice([1, 2, 4, [1, 2, 4]])}
    if draw.random() < 0.3:
        wants["demand"] = amount(3.0) / money
    if draw.random() < 0.2:
        wants["budget"] = amount(30.0)
    return wants


def a_divisible_job(
    draw: random.Random, amount: Callable[[float], float], money: float
) -> dict[str, Any]:
    """A demand, with a budget now and then, a width, or both."""
    if draw.random() < 0.4:
        return {"max_gpus": draw.randint(0, 10)}
    wants = {"demand": amount(20.0) / money}
    if draw.random() < 0.4:
        wants["max_gpus"] = draw.randint(1, 10)
    if draw.random() < 0.2:
        wants["budget"] = amount(40.0)
    return wants
