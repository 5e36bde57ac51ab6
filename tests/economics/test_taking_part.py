"""What taking part in a cleared market is worth to a site, against staying alone."""

import random

import numpy as np
import pytest

from economics import accounts
from economics.book import read_book
from economics.clearing.allocation import linear_of
from economics.clearing.program import program_of
from economics.clearing.solver import minimise
from economics.sharing.coalitions import coalition_value
from tests.economics.books import PER_HOUR, clear, only_sites


def specialists():
    """Two sites, two classes in equal demand; each site is good at one of them."""
    speeds = {("s1", "a"): 4, ("s1", "b"): 1, ("s2", "a"): 2, ("s2", "b"): 3}
    return {
        "format": "hanse.book/1",
        "round_hours": 1.0,
        "pools": [
            {"id": site, "site": site, "gpu": "G", "gpus": 10, "reserve": 0.0}
            for site in ("s1", "s2")
        ],
        "affinity": [
            {"pool": site, "class": name, "samples_per_s": speed * PER_HOUR}
            for (site, name), speed in speeds.items()
        ],
        "jobs": [
            {"id": f"{site}{name}", "site": site, "class": name, "value": 1.0, "max_gpus": 5}
            for site in ("s1", "s2")
            for name in ("a", "b")
        ],
        "rules": {"epsilon": 0.0},
    }


def test_comparative_advantage_makes_seventy_of_fifty_and_both_gain():
    book = specialists()
    together = clear(book)
    alone = {site: clear(only_sites(book, {site}))["welfare"] for site in ("s1", "s2")}
    assert sum(alone.values()) == pytest.approx(50)
    assert together["welfare"] == pytest.approx(70)
    for site, payoff in together["payoffs"].items():
        assert payoff > alone[site] + 1


def a_federation(seed):
    """Three to six sites with one kind of GPU each, and divisible jobs of three classes."""
    draw = random.Random(seed)
    sites = [f"S{at}" for at in range(draw.randint(3, 6))]
    pools = [
        {"id": s, "site": s, "gpu": "G", "gpus": draw.randint(1, 12), "reserve": draw.random()}
        for s in sites
    ]
    affinity = [
        {"pool": s, "class": name, "samples_per_s": draw.uniform(0.2, 4.0) * PER_HOUR}
        for s in sites
        for name in "abc"
    ]
    jobs = [
        {
            "id": f"{s}{at}",
            "site": s,
            "class": draw.choice("abc"),
            "value": draw.uniform(0.2, 4.0),
            "demand": draw.uniform(1.0, 30.0),
        }
        for s in sites
        for at in range(draw.randint(0, 4))
    ]
    return {
        "format": "hanse.book/1",
        "round_hours": 1.0,
        "pools": pools,
        "affinity": affinity,
        "jobs": jobs,
    }


def market_payoffs(market, program):
    """Each site's credits when the optimum trades at the duals of the pools."""
    solved = minimise(linear_of(program))
    share = program.shares(solved.values, market.columns)
    price = market.reserve - solved.row_dual[: program.pools]
    paid = price[market.pool] * market.gpu_hours * share
    return accounts.site_payoffs(market, share, paid), -solved.objective


@pytest.mark.slow
def test_no_site_of_a_thousand_federations_would_be_better_off_alone():
    gained = 0
    for seed in range(1000):
        book = read_book(a_federation(seed))
        program = program_of(book.market)
        payoffs, welfare = market_payoffs(book.market, program)
        assert payoffs.sum() == pytest.approx(welfare, abs=1e-6)
        for site in range(len(book.sites)):
            alone = coalition_value(program, np.arange(len(book.sites)) == site, nodes=1)
            assert payoffs[site] >= alone - 1e-6
            gained += payoffs[site] > alone + 1e-6
    assert gained > 2000  # or the federations were not worth the question
