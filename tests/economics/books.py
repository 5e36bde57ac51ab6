"""Books for tests: small builders, and books drawn as whole numbers and then scaled."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from economics.book import read_book
from economics.rounds import decide

DATA = Path(__file__).parent / "data"
PER_HOUR = 1e6 / 3600  # samples/s that make one million samples an hour
Document = dict[str, Any]


def example(name: str) -> Document:
    document: Document = json.loads((DATA / f"{name}.json").read_text())
    return document


def a_pool(site: str = "A", gpu: str = "G", gpus: int = 4, reserve: float = 1.0) -> Document:
    return {"id": f"{site}.{gpu}", "site": site, "gpu": gpu, "gpus": gpus, "reserve": reserve}


def a_job(name: str = "j", site: str = "A", value: float = 4.0, **more: Any) -> Document:
    wants = {} if {"gang", "demand", "max_gpus"} & set(more) else {"gang": 2}
    return {"id": name, "site": site, "class": "unit", "value": value, **wants, **more}


def a_book(*jobs: Document, pools: list[Document] | None = None, **more: Any) -> Document:
    """Pools of speed one (million samples per GPU-hour); epsilon 0 unless `rules` are given."""
    pools = [a_pool()] if pools is None else pools
    return {
        "format": "hanse.book/1",
        "round_hours": 1.0,
        "pools": pools,
        "affinity": [
            {"pool": pool["id"], "class": "unit", "samples_per_s": PER_HOUR} for pool in pools
        ],
        "jobs": list(jobs),
        "rules": {"epsilon": 0.0},
        **more,
    }


def clear(document: Document) -> Document:
    return decide(read_book(document))


def only_sites(document: Document, sites: set[str]) -> Document:
    """The book of a coalition: its pools and its jobs, nobody else's."""
    part = copy.deepcopy(document)
    pools = {pool["id"] for pool in part["pools"] if pool["site"] in sites}
    part["pools"] = [row for row in part["pools"] if row["id"] in pools]
    part["affinity"] = [row for row in part["affinity"] if row["pool"] in pools]
    part["jobs"] = [_within(row, pools) for row in part["jobs"] if row["site"] in sites]
    kept = {row["id"] for row in part["jobs"]}
    part["floors"] = [row for row in part.get("floors", []) if row["job"] in kept]
    part.pop("previous_prices", None)
    part["rules"] = {"epsilon": 0.0, "core_repair": False}
    return part


def _within(job: Document, pools: set[str]) -> Document:
    if "pools" in job:
        job["pools"] = [pool for pool in job["pools"] if pool in pools]
    if job.get("running_on") not in pools:
        job.pop("running_on", None)
        job.pop("move_cost", None)
    if "extra" in job:
        job["extra"] = {pool: fee for pool, fee in job["extra"].items() if pool in pools}
    return job


def times(document: Document, factor: float) -> Document:
    """The same book with all money in a unit `factor` times smaller."""
    scaled = copy.deepcopy(document)
    for key, fields in (
        ("pools", ("reserve",)),
        ("transfer", ("per_gpu_hour",)),
        ("jobs", ("value", "budget", "move_cost")),
    ):
        for row in scaled.get(key, []):
            row.update({field: row[field] * factor for field in fields if field in row})
    for row in scaled["jobs"]:
        if "extra" in row:
            row["extra"] = {pool: fee * factor for pool, fee in row["extra"].items()}
    if "previous_prices" in scaled:
        prices = scaled["previous_prices"]
        scaled["previous_prices"] = {pool: price * factor for pool, price in prices.items()}
    return scaled


@st.composite
def books(
    draw: st.DrawFn, *, kinds: tuple[str, ...] = ("divisible",), epsilon: float = 0.0, most: int = 3
) -> Document:
    """A market of up to `most` sites, with ties, empty pools, missing speeds and steep reserves."""
    sites = [f"S{at}" for at in range(draw(st.integers(1, most)))]
    pools = [
        a_pool(site, gpu, draw(st.integers(0, 8)), draw(st.integers(0, 30)) / 10)
        for site in sites
        for gpu in ("H", "V")[: draw(st.integers(0, 2))]
    ]
    affinity = [
        {
            "pool": pool["id"],
            "class": name,
            "samples_per_s": draw(st.integers(0, 20)) * PER_HOUR / 10,
        }
        for pool in pools
        for name in ("cnn", "lm")
    ]
    jobs = [
        _a_drawn_job(draw, f"j{at}", sites, [pool["id"] for pool in pools], kinds)
        for at in range(draw(st.integers(0, 6)))
    ]
    fee = draw(st.integers(0, 3)) / 10
    document = {
        "format": "hanse.book/1",
        "round_hours": draw(st.sampled_from((1.0, 0.5))),
        "pools": pools,
        "affinity": affinity,
        "transfer": [
            {"from": home, "to": site, "per_gpu_hour": fee}
            for home in sites
            for site in sites
            if home != site
        ],
        "jobs": jobs,
        "rules": {"epsilon": epsilon},
    }
    if draw(st.booleans()):
        document["previous_prices"] = {
            pool["id"]: draw(st.integers(0, 60)) / 10 for pool in pools if draw(st.booleans())
        }
    return times(document, draw(st.sampled_from((1.0, 1e-3, 1e4))))


def _a_drawn_job(
    draw: st.DrawFn, name: str, sites: list[str], pools: list[str], kinds: tuple[str, ...]
) -> Document:
    job: Document = {
        "id": name,
        "site": draw(st.sampled_from(sites)),
        "class": draw(st.sampled_from(("cnn", "lm"))),
        "value": float(draw(st.integers(0, 8))),
    }
    kind = draw(st.sampled_from(kinds))
    if kind == "divisible":
        job["demand"] = draw(st.integers(0, 60)) / 10
        if draw(st.integers(0, 2)) == 0:
            job["max_gpus"] = draw(st.integers(1, 6))
    else:
        job["gang"] = draw(st.sampled_from((1, 2, 4, [1, 2, 4])))
    if draw(st.integers(0, 3)) == 0:
        job["budget"] = float(draw(st.integers(0, 20)))
    if pools and draw(st.integers(0, 3)) == 0:
        job["running_on"] = draw(st.sampled_from(pools))
    if "running_on" in job and kind == "gang":
        job["move_cost"] = draw(st.integers(0, 20)) / 10
    return job
