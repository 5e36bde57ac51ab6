"""Markets drawn from a seed by the recipe behind the design's tables, for tests of sharing.

Speeds are log-normal by type and class, with a deviation for each site; capacities, reserves,
values and demands are uniform. Gangs are added until they want about what there is.
"""

from __future__ import annotations

import math
import random
from typing import Any

from economics.sharing.game import Game
from economics.sharing.objections import Objections
from economics.sharing.sought import Sought
from tests.economics.books import PER_HOUR

TYPES, CLASSES = ("H", "V"), ("cnn", "lm", "rec")
Document = dict[str, Any]


def divisible_market(
    seed: int, *, sites: int, jobs: int = 3, types: tuple[str, ...] = TYPES
) -> Document:
    """Divisible jobs, `jobs` for each site, which has a pool of each of the `types`."""
    draw = random.Random(seed)
    book = _without_jobs(draw, sites, (8, 32), types)
    gpus = sum(pool["gpus"] for pool in book["pools"])
    names = sorted({pool["site"] for pool in book["pools"]})
    book["jobs"] = [
        {
            "id": f"{name}-{at}",
            "site": name,
            "class": draw.choice(CLASSES),
            "value": draw.uniform(0.5, 3.0),
            "demand": 1.1 * draw.uniform(0.3, 1.7) * gpus / (jobs * sites),
        }
        for name in names
        for at in range(jobs)
    ]
    return book


def gang_market(
    seed: int, *, sites: int, gpus: tuple[int, int] = (4, 16), gangs: tuple[int, ...] = (1, 2, 4, 8)
) -> Document:
    """Gangs for the whole round, until they want 0.8 to 1.4 of all GPUs."""
    draw = random.Random(seed)
    book = _without_jobs(draw, sites, gpus, TYPES)
    names = sorted({pool["site"] for pool in book["pools"]})
    left = draw.uniform(0.8, 1.4) * sum(pool["gpus"] for pool in book["pools"])
    while left > 0:
        book["jobs"].append(
            {
                "id": f"g{len(book['jobs']):03}",
                "site": draw.choice(names),
                "class": draw.choice(CLASSES),
                "value": draw.uniform(0.5, 3.0),
                "gang": draw.choice(gangs),
            }
        )
        left -= book["jobs"][-1]["gang"]
    return book


def _without_jobs(
    draw: random.Random, sites: int, gpus: tuple[int, int], types: tuple[str, ...]
) -> Document:
    names = [f"S{at:02}" for at in range(sites)]
    common = {(kind, name): draw.gauss(0.0, 0.5) for kind in types for name in CLASSES}
    pools = [
        {
            "id": f"{site}.{kind}",
            "site": site,
            "gpu": kind,
            "gpus": 0 if draw.random() < 0.25 else draw.randint(*gpus),
            "reserve": draw.uniform(0.2, 0.6),
        }
        for site in names
        for kind in types
    ]
    affinity = [
        {
            "pool": pool["id"],
            "class": name,
            "samples_per_s": PER_HOUR * math.exp(common[pool["gpu"], name] + draw.gauss(0.0, 0.5)),
        }
        for pool in pools
        for name in CLASSES
    ]
    transfer = [
        {"from": home, "to": site, "per_gpu_hour": 0.05}
        for home in names
        for site in names
        if home != site
    ]
    return {
        "format": "hanse.book/1",
        "round_hours": 1.0,
        "pools": pools,
        "affinity": affinity,
        "transfer": transfer,
        "jobs": [],
        "rules": {"epsilon": 0.0},
    }


def side_by_side(books: list[Document]) -> Document:
    """Markets whose jobs cannot run in each other's pools, as one book; ids keep their order."""
    joined = _without_jobs(random.Random(0), 0, (1, 1), TYPES)
    for at, book in enumerate(books):
        head = f"{at:02}"
        joined["pools"] += [
            {**row, "id": head + row["id"], "site": head + row["site"]} for row in book["pools"]
        ]
        joined["affinity"] += [
            {**row, "pool": head + row["pool"], "class": head + row["class"]}
            for row in book["affinity"]
        ]
        joined["transfer"] += [
            {**row, "from": head + row["from"], "to": head + row["to"]} for row in book["transfer"]
        ]
        joined["jobs"] += [
            {
                **row,
                "id": head + row["id"],
                "site": head + row["site"],
                "class": head + row["class"],
            }
            for row in book["jobs"]
        ]
    return joined


def searching(game: Game) -> Objections:
    """The oracle that games of many sites use, for a game of any size."""
    return Sought(game)
