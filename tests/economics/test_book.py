"""A book is refused with every problem named, or read the same whatever its order."""

import math

import pytest

from economics.book import read_book
from economics.errors import BadBook, BadMarket
from economics.market import Market
from tests.economics.books import a_book, a_job, a_pool, books, clear, example

BAD = math.nan


def changed(path, value):
    """A sound book with one field replaced; a path such as ("jobs", 0, "value")."""
    document = a_book(
        a_job("g", gang=2),
        a_job("d", demand=3.0),
        a_job("b", demand=3.0, budget=9.0),
        pools=[a_pool("A"), a_pool("B")],
        transfer=[{"from": "A", "to": "B", "per_gpu_hour": 0.1}],
        floors=[{"job": "d", "demand": 1.0}],
        previous_prices={"A.G": 2.0},
    )
    read_book(document)
    at = document
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    elif isinstance(at, list) and path[-1] == len(at):
        at.append(value)
    else:
        at[path[-1]] = value
    return document


REFUSED = [
    (("format",), "hanse.book/2", "format: must be 'hanse.book/1'"),
    (("format",), None, "format: is missing"),
    (("round_hours",), None, "round_hours: is missing"),
    (("round_hours",), 0, "round_hours: must be a positive number"),
    (("round_hours",), "1", "round_hours: must be a number"),
    (("round_hours",), True, "round_hours: must be a number"),
    (("round_hours",), BAD, "round_hours: must be finite"),
    (("round_hours",), math.inf, "round_hours: must be finite"),
    (("rounds",), 1, "rounds: unknown key"),
    (("pools",), None, "pools: is missing"),
    (("pools",), {}, "pools: must be a list"),
    (("jobs",), None, "jobs: is missing"),
    (("affinity",), None, "affinity: is missing"),
    (("pools", 0), 7, "pools[0]: must be an object"),
    (("pools", 0, "id"), "", "pools[0].id: must be a text"),
    (("pools", 0, "id"), "\ud800", "pools[0].id: is not valid Unicode"),
    (("pools", 0, "site"), None, "pools[0].site: is missing"),
    (("pools", 0, "gpus"), -1, "pools[0].gpus: must not be negative"),
    (("pools", 0, "gpus"), 2.5, "pools[0].gpus: must be a whole number"),
    (("pools", 0, "reserve"), -0.1, "pools[0].reserve: must not be negative"),
    (("pools", 0, "reserve"), 1e300, "pools[0].reserve: must be at most"),
    (("pools", 0, "price"), 1, "pools[0].price: unknown key"),
    (("pools", 1, "id"), "A.G", "pools[1]: duplicate A.G"),
    (("affinity", 0, "pool"), "Z.G", "affinity[0].pool: unknown pool 'Z.G'"),
    (("affinity", 0, "samples_per_s"), "fast", "affinity[0].samples_per_s: must be a number"),
    (("affinity", 0, "gpus"), 0, "affinity[0].gpus: must be at least 1"),
    (
        ("affinity", 2),
        {"pool": "A.G", "class": "unit", "samples_per_s": 1.0},
        "affinity[2]: duplicate A.G, unit, 1",
    ),
    (("transfer", 0, "per_gpu_hour"), -1, "transfer[0].per_gpu_hour: must not be negative"),
    (
        ("transfer", 1),
        {"from": "A", "to": "B", "per_gpu_hour": 0.2},
        "transfer[1]: duplicate A, B",
    ),
    (("jobs", 0, "id"), "d", "jobs[1]: duplicate d"),
    (("jobs", 0, "value"), BAD, "jobs[0].value: must be finite"),
    (("jobs", 0, "value"), None, "jobs[0].value: is missing"),
    (("jobs", 0, "value"), [], "jobs[0].value: must be a number"),
    (("jobs", 0, "gang"), 0, "jobs[0].gang: must be at least 1"),
    (("jobs", 0, "gang"), [], "jobs[0].gang: must name at least one size"),
    (("jobs", 0, "gang"), [2, 2], "jobs[0].gang: names a size twice"),
    (("jobs", 0, "gang"), [1, "2"], "jobs[0].gang[1]: must be a number"),
    (("jobs", 0, "max_gpus"), 4, "jobs[0].max_gpus: is for divisible jobs"),
    (("jobs", 1, "demand"), None, "jobs[1].demand: a divisible job needs a demand"),
    (("jobs", 1, "max_gpus"), 1.5, "jobs[1].max_gpus: must be a whole number"),
    (("jobs", 1, "pools"), ["Z.G"], "jobs[1].pools[0]: unknown pool 'Z.G'"),
    (("jobs", 1, "pools"), ["A.G", "A.G"], "jobs[1].pools[1]: duplicate 'A.G'"),
    (("jobs", 1, "pools"), "A.G", "jobs[1].pools: must be a list"),
    (("jobs", 1, "running_on"), "Z.G", "jobs[1].running_on: unknown pool 'Z.G'"),
    (("jobs", 1, "move_cost"), -1, "jobs[1].move_cost: must not be negative"),
    (("jobs", 1, "extra"), {"Z.G": 1}, "jobs[1].extra.Z.G: unknown pool"),
    (("jobs", 1, "extra"), {"A.G": "1"}, "jobs[1].extra.A.G: must be a number"),
    (("jobs", 1, "extra"), [], "jobs[1].extra: must be an object"),
    (("jobs", 1, "tenant"), 5, "jobs[1].tenant: must be a text"),
    (("jobs", 1, "weight"), -1, "jobs[1].weight: must not be negative"),
    (("jobs", 1, "deadline_h"), "soon", "jobs[1].deadline_h: must be a number"),
    (("jobs", 1, "colour"), "red", "jobs[1].colour: unknown key"),
    (("floors", 0, "job"), "z", "floors[0].job: unknown job 'z'"),
    (("floors", 0, "job"), "g", "floors[0].job: g is a gang"),
    (("floors", 0, "job"), "b", "floors[0].job: b has a budget"),
    (("floors", 0, "demand"), 4.5, "delivers alone"),
    (("floors", 1), {"job": "d", "demand": 0.5}, "floors[1]: duplicate d"),
    (("previous_prices",), {"Z.G": 1.0}, "previous_prices.Z.G: unknown pool"),
    (("previous_prices",), {"A.G": -1.0}, "previous_prices.A.G: must not be negative"),
    (("rules",), [], "rules: must be an object"),
    (("rules", "policy"), "dutch", "rules.policy: unknown policy 'dutch'"),
    (("rules", "epsilon"), 1.5, "rules.epsilon: must be at most 1"),
    (("rules", "seller_share"), 2, "rules.seller_share: must be at most 1"),
    (("rules", "core_repair"), 1, "rules.core_repair: must be true or false"),
    (("rules", "nodes"), 0, "rules.nodes: must be at least 1"),
    (("rules", "price_cap"), {"A.G": 0.5}, "rules.price_cap.A.G: is below the pool's reserve"),
    (("rules", "price_cap"), {"Z.G": 5.0}, "rules.price_cap.Z.G: unknown pool"),
    (("rules", "seed"), 1, "rules.seed: unknown key"),
]


@pytest.mark.parametrize(("path", "value", "why"), REFUSED)
def test_a_bad_field_is_refused_by_its_path(path, value, why):
    with pytest.raises(BadBook) as refused:
        read_book(changed(path, value))
    assert any(why in str(problem) for problem in refused.value.problems)


def test_all_problems_are_named_at_once():
    document = a_book(a_job("a", value=-1.0), a_job("b", gang=0), wrong=1)
    with pytest.raises(BadBook) as refused:
        read_book(document)
    assert [problem.path for problem in refused.value.problems] == [
        "wrong",
        "jobs[0].value",
        "jobs[1].gang",
    ]
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize("document", [None, [], "book", 3.0])
def test_what_is_no_object_is_no_book(document):
    with pytest.raises(BadBook, match="must be an object"):
        read_book(document)


def test_floors_that_do_not_fit_together_are_refused():
    """Each fits its site's four GPUs, both do not; only a solver can tell in general."""
    jobs = (a_job("a", demand=4.0), a_job("b", demand=4.0))
    document = a_book(*jobs, floors=[{"job": name, "demand": 3.0} for name in "ab"])
    with pytest.raises(BadBook, match="those of site A are more than it delivers alone"):
        clear(document)


def test_whole_numbers_may_be_written_as_decimals():
    document = a_book(a_job(gang=2.0), pools=[a_pool(gpus=4.0)])
    assert read_book(document).sha256 == read_book(a_book(a_job(gang=2))).sha256


def test_columns_exist_only_where_a_job_can_run():
    pools = [
        a_pool("A", gpus=4),
        a_pool("B", gpus=0),
        a_pool("C", gpus=1),
        a_pool("D", reserve=9.0),
    ]
    jobs = [
        a_job("everywhere", demand=9.0),
        a_job("gang", gang=2),
        a_job("one pool", demand=9.0, pools=["C.G"]),
        a_job("poor gang", gang=[1, 2], budget=5.0),
        a_job("nowhere", demand=9.0, pools=[]),
        a_job("worthless", value=0.0, demand=9.0),
    ]
    book = read_book(a_book(*jobs, pools=pools))
    names = [
        (book.jobs[job].id, book.pools[pool].id, float(hours))
        for job, pool, hours in zip(
            book.market.job, book.market.pool, book.market.gpu_hours, strict=True
        )
    ]
    assert names == [
        ("everywhere", "A.G", 4.0),
        ("everywhere", "C.G", 1.0),
        ("gang", "A.G", 2.0),
        ("one pool", "C.G", 1.0),
        ("poor gang", "A.G", 1.0),
        ("poor gang", "C.G", 1.0),
    ]


def test_a_budget_caps_the_demand_of_a_divisible_job():
    book = read_book(a_book(a_job(demand=10.0, value=4.0, budget=6.0)))
    assert book.market.demand.tolist() == [1.5]


def test_gangs_use_the_row_of_their_size():
    rows = [
        {"pool": "A.G", "class": "unit", "samples_per_s": 100.0},
        {"pool": "A.G", "class": "unit", "samples_per_s": 150.0, "gpus": 2},
    ]
    book = read_book(a_book(a_job(gang=[1, 2, 4], value=99.0), affinity=rows))
    assert book.market.msamples.tolist() == pytest.approx([0.36, 0.54, 1.44])


def test_the_examples_are_books():
    for name in ("book_gangs", "book_three_sites"):
        assert read_book(example(name)).market.columns > 0
    assert books() is not None


def test_a_market_checks_itself():
    market = read_book(a_book(a_job())).market
    fields = {name: getattr(market, name) for name in Market.__slots__}
    for name, value in (
        ("capacity", -market.capacity),
        ("reserve", market.reserve * math.nan),
        ("home", market.home + 5),
        ("pool", market.pool - 1),
        ("gpu_hours", market.gpu_hours * 0),
        ("value", market.value[:0]),
    ):
        with pytest.raises(BadMarket, match=name):
            Market(**{**fields, name: value})
