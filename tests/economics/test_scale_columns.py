"""All columns are laid out at once; here they are written down job by job, pool by pool."""

import math
from collections import defaultdict

import numpy as np
import pytest

from economics.book import read_book
from economics.columns import SAMPLES_PER_S_TO_M_PER_HOUR
from tests.economics.books import PER_HOUR, a_book, a_job, a_pool
from tests.economics.large import large_book
from tests.economics.varied import varied_book, with_floors

COLUMNS = (
    *("job", "pool", "gpu_hours", "msamples", "value", "cost"),
    *("stays", "speed", "fee"),
)


def written_down(document):
    """The columns of a book, one tuple each in the order of COLUMNS."""
    hours = document["round_hours"]
    pools = sorted(document["pools"], key=lambda row: row["id"])
    rates = defaultdict(dict)
    for row in document["affinity"]:
        rates[row["pool"], row["class"]][row.get("gpus", 1)] = row["samples_per_s"]
    fees = {(row["from"], row["to"]): row["per_gpu_hour"] for row in document.get("transfer", [])}
    for number, job in enumerate(sorted(document["jobs"], key=lambda row: row["id"])):
        for at, pool in enumerate(pools):
            if pool["id"] not in job.get("pools", [pool["id"]]):
                continue
            speeds = rates[pool["id"], job["class"]]
            fee = fees.get((job["site"], pool["site"]), 0.0)
            fee += job.get("extra", {}).get(pool["id"], 0.0)
            stays = job.get("running_on") == pool["id"]
            for used, msamples, value, speed in ways(job, pool, speeds, hours):
                moving = 0.0 if stays or "running_on" not in job else job.get("move_cost", 0.0)
                cost = fee * used + (moving if "gang" in job else 0.0)
                if value - pool["reserve"] * used - cost > 0:
                    yield number, at, used, msamples, value, cost, stays, speed, fee


def ways(job, pool, speeds, hours):
    """(GPU-hours, Msamples, credits, Msamples per GPU-hour) of one job in one pool."""
    if "gang" in job:
        sizes = job["gang"] if isinstance(job["gang"], list) else [job["gang"]]
        for gpus in sorted(size for size in sizes if size <= pool["gpus"]):
            rate = speeds.get(gpus, gpus * speeds.get(1, 0.0)) * SAMPLES_PER_S_TO_M_PER_HOUR
            msamples = min(job.get("demand", math.inf), rate * hours)
            value = job["value"] * msamples
            if value <= job.get("budget", math.inf):
                yield gpus * hours, msamples, value, rate / gpus
    elif speeds.get(1):
        speed = speeds[1] * SAMPLES_PER_S_TO_M_PER_HOUR
        wanted = job.get("demand", math.inf)
        if job["value"] and "budget" in job:
            wanted = min(wanted, job["budget"] / job["value"])
        used = min(pool["gpus"], job.get("max_gpus", math.inf)) * hours
        used = min(used, wanted / speed)
        yield used, speed * used, job["value"] * speed * used, speed


def assert_as_written_down(document):
    market = read_book(document).market
    expected = list(written_down(document))
    assert len(expected) == market.columns
    for name, values in zip(COLUMNS, zip(*expected, strict=True), strict=False):
        assert getattr(market, name).tolist() == list(values), name


def test_columns_of_varied_books():
    for seed in range(150):
        assert_as_written_down(varied_book(seed))


@pytest.mark.parametrize("gangs", [False, True])
def test_columns_of_large_books(gangs):
    assert_as_written_down(large_book(400, gangs=gangs, pools=30, classes=8))


def test_what_jobs_bring_along():
    """Home, bid, demand, width, floor and the charge for moving, job by job."""
    for seed in range(60):
        document = with_floors(varied_book(seed), seed)
        book = read_book(document)
        rows = sorted(document["jobs"], key=lambda row: row["id"])
        floors = {row["job"]: row["demand"] for row in document["floors"]}
        for at, row in enumerate(rows):
            assert book.sites[book.market.home[at]] == row["site"]
            assert book.market.bid[at] == row["value"]
            assert book.market.gang[at] == ("gang" in row)
            assert book.market.width[at] == row.get("max_gpus", math.inf) * book.hours
            assert book.market.floor[at] == pytest.approx(floors.get(row["id"], 0.0), rel=1e-6)
            moves = "gang" not in row and "running_on" in row
            assert book.market.move_charge[at] == (row["move_cost"] if moves else 0.0)


def likeness(job, pools):
    """What jobs of a group have in common."""
    sizes = job.get("gang", [])
    return (
        *(job["class"], job["site"]),
        tuple(sorted(sizes)) if isinstance(sizes, list) else (sizes,),
        tuple(sorted(job.get("pools", pools))),
        tuple(sorted(job.get("extra", {}).items())),
        *(job.get("running_on", ""), job.get("move_cost", 0.0)),
    )


def test_groups_are_numbered_in_the_order_of_what_their_jobs_share():
    documents = [varied_book(seed) for seed in range(80)]
    documents += [large_book(300, gangs=gangs, classes=4) for gangs in (False, True)]
    for document in documents:
        pools = [row["id"] for row in document["pools"]]
        keys = [likeness(job, pools) for job in sorted(document["jobs"], key=lambda row: row["id"])]
        number = {key: at for at, key in enumerate(sorted(set(keys)))}
        assert read_book(document).market.group.tolist() == [number[key] for key in keys]


def test_jobs_of_one_group_meet_the_same_terms():
    market = read_book(large_book(500, classes=3, pools=12, feasible=6)).market
    for group in np.unique(market.group):
        at = np.isin(market.job, np.flatnonzero(market.group == group))
        terms = set(zip(market.pool[at], market.speed[at], market.fee[at], strict=True))
        assert len(terms) == len(set(market.pool[at]))


@pytest.mark.parametrize(("speed", "columns"), [(1.0, 1), (4.0, 0)])
def test_a_demand_too_small_for_any_use_makes_no_column(speed, columns):
    """At four times the speed its GPU-hours would round to zero."""
    document = a_book(a_job(demand=5e-324), pools=[a_pool(reserve=0.0)])
    document["affinity"][0]["samples_per_s"] = speed * PER_HOUR
    assert read_book(document).market.columns == columns
