"""The worked examples of the design, figure by figure, and tiny books solved by hand."""

import pytest

from economics.book import read_book
from economics.certificate import verify
from tests.economics.books import PER_HOUR, a_book, a_job, a_pool, clear, example, only_sites


def lines(clearing):
    return {(row["job"], row["pool"]): row["gpu_hours"] for row in clearing["allocation"]}


@pytest.fixture(scope="module")
def three_sites():
    return clear(example("book_three_sites"))


def test_three_sites_welfare(three_sites):
    assert three_sites["status"] == "optimal"
    for figure in ("welfare", "bound", "lp_bound"):
        assert three_sites[figure] == pytest.approx(169.7164, abs=1e-3)
    assert three_sites["gap"] == 0.0
    assert three_sites["regret"] == pytest.approx(0.0, abs=1e-6)


def test_three_sites_allocation(three_sites):
    assert lines(three_sites) == pytest.approx(
        {
            ("c-lm", "A.H"): 8.0,
            ("c-lm", "B.H"): 4.0,
            ("a-rec", "A.V"): 4.0,
            ("a-rec", "B.V"): 4.0625,
            ("c-rec", "B.V"): 11.9375,
            ("c-rec", "C.V"): 0.3444,
            ("a-cnn", "C.V"): 7.1212,
            ("b-cnn", "C.V"): 16.5344,
        },
        abs=1e-3,
    )
    delivered = {row["job"]: row["msamples"] for row in three_sites["allocation"]}
    assert delivered["a-cnn"] == pytest.approx(10.7672, abs=1e-3)


def test_three_sites_prices(three_sites):
    assert three_sites["prices"] == pytest.approx(
        {"A.H": 8.374, "A.V": 2.193, "B.H": 9.31, "B.V": 2.2892, "C.V": 1.462}, abs=1e-3
    )


def test_three_sites_money(three_sites):
    assert sum(row["payment_micro"] for row in three_sites["allocation"]) == 184_719_200
    assert three_sites["payoffs"] == pytest.approx(
        {"A": 70.8890, "B": 64.3672, "C": 34.4602}, abs=1e-3
    )
    assert set(three_sites["transfers_micro"].values()) == {0}
    document = example("book_three_sites")
    site = {row["id"]: row["site"] for row in document["pools"] + document["jobs"]}
    owed: dict[tuple[str, str], float] = {}
    for row in three_sites["allocation"]:
        pair = site[row["job"]], site[row["pool"]]
        owed[pair] = owed.get(pair, 0.0) + row["payment_micro"] / 1e6
    between = {pair: credits for pair, credits in owed.items() if pair[0] != pair[1]}
    assert between == pytest.approx(
        {
            ("A", "B"): 9.2999,
            ("A", "C"): 10.4111,
            ("B", "C"): 24.1733,
            ("C", "A"): 66.9920,
            ("C", "B"): 64.5673,
        },
        abs=1e-3,
    )


@pytest.mark.parametrize(
    ("sites", "value"),
    [
        ("A", 33.5806),
        ("B", 34.5613),
        ("C", 34.1960),
        ("AB", 71.0863),
        ("AC", 104.3670),
        ("BC", 95.8768),
    ],
)
def test_three_sites_coalitions(sites, value):
    alone = clear(only_sites(example("book_three_sites"), set(sites)))
    assert alone["welfare"] == pytest.approx(value, abs=1e-3)


def test_three_sites_unplaced(three_sites):
    rows = {row["job"]: row for row in three_sites["unplaced"]}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "a-cnn": "partly_served",
        "b-lm": "priced_out",
        "c-lm": "partly_served",
    }
    assert rows["b-lm"]["would_run_at"] == {
        "pool": "B.H",
        "value": pytest.approx(25.8611, abs=1e-3),
    }
    assert "bid of 22" in rows["b-lm"]["why"]


def test_floors_of_the_three_sites():
    document = example("book_three_sites")
    floors = []
    for site in "ABC":
        given: dict[str, float] = {}
        for row in clear(only_sites(document, {site}))["allocation"]:
            given[row["job"]] = given.get(row["job"], 0.0) + row["msamples"]
        floors += [{"job": job, "demand": max(amount - 1e-8, 0.0)} for job, amount in given.items()]
    clearing = clear({**document, "floors": floors})
    assert clearing["welfare"] == pytest.approx(157.9632, abs=1e-3)
    assert clearing["prices"] == pytest.approx(
        {"A.H": 8.374, "A.V": 4.3214, "B.H": 9.310, "B.V": 4.5594, "C.V": 2.8809}, abs=1e-3
    )
    assert clearing["payoffs"] == pytest.approx(
        {"A": 42.8976, "B": 74.1415, "C": 40.9241}, abs=1e-3
    )


def test_gang_example():
    document = example("book_gangs")
    clearing = clear(document)
    assert clearing["welfare"] == pytest.approx(32.2, abs=1e-6)
    assert clearing["bound"] == pytest.approx(32.2, abs=1e-6)
    assert clearing["lp_bound"] == pytest.approx(32.3, abs=1e-6)
    assert clearing["regret"] == pytest.approx(0.1, abs=1e-6)
    assert lines(clearing) == {("a1", "B.G"): 4.0, ("b1", "A.G"): 2.0, ("c1", "A.G"): 4.0}
    assert sum(clearing["payoffs"].values()) == pytest.approx(32.2, abs=1e-6)
    assert sum(clearing["transfers_micro"].values()) == 0
    assert all(check.holds for check in verify(document, clearing))


def test_one_pool_two_bidders_meet_halfway():
    """Bids worth 7.2 and 3.6, reserve 1: every price in [3.6, 7.2] supports; the rule takes 5.4."""
    jobs = (a_job("high", value=7.2, demand=8.0), a_job("low", value=3.6, demand=8.0))
    book = a_book(*jobs, pools=[a_pool(gpus=8)])
    assert clear(book)["prices"]["A.G"] == pytest.approx(5.4, abs=1e-6)
    for share, price in ((0.0, 3.6), (1.0, 7.2), (0.25, 4.5)):
        rules = {"epsilon": 0.0, "seller_share": share}
        assert clear({**book, "rules": rules})["prices"]["A.G"] == pytest.approx(price, abs=1e-6)


@pytest.mark.parametrize(("previous", "price"), [(5.0, 5.0), (9.0, 7.2), (0.5, 3.6)])
def test_price_stays_as_near_to_the_last_one_as_it_can(previous, price):
    jobs = (a_job("high", value=7.2, demand=8.0), a_job("low", value=3.6, demand=8.0))
    book = a_book(*jobs, pools=[a_pool(gpus=8)], previous_prices={"A.G": previous})
    assert clear(book)["prices"]["A.G"] == pytest.approx(price, abs=1e-6)


def test_epsilon_lets_the_price_lag():
    """With epsilon the price may stay outside the interval until it costs that much regret."""
    jobs = (a_job("high", value=7.2, demand=8.0), a_job("low", value=3.6, demand=8.0))
    book = a_book(*jobs, pools=[a_pool(gpus=8)], previous_prices={"A.G": 3.0})
    clearing = clear({**book, "rules": {"epsilon": 0.05}})
    welfare = clearing["welfare"]
    assert welfare == pytest.approx(49.6)
    assert clearing["regret"] == pytest.approx(0.05 * welfare, rel=1e-4)
    assert clearing["prices"]["A.G"] == pytest.approx(3.6 - 0.05 * welfare / 8, abs=1e-4)


def test_a_binding_cap_costs_published_regret():
    jobs = (a_job("high", value=7.2, demand=8.0), a_job("low", value=3.6, demand=8.0))
    book = a_book(*jobs, pools=[a_pool(gpus=8)])
    clearing = clear({**book, "rules": {"epsilon": 0.0, "price_cap": {"A.G": 3.0}}})
    assert clearing["prices"]["A.G"] == pytest.approx(3.0, abs=1e-6)
    assert clearing["regret"] == pytest.approx(0.6 * 8, abs=1e-5)


def test_elastic_job_takes_the_size_that_pays():
    """Eight GPUs are hardly faster than four: the wide size costs more than it brings."""
    affinity = [
        {"pool": "A.G", "class": "unit", "samples_per_s": PER_HOUR * speed, "gpus": gpus}
        for gpus, speed in ((1, 1.0), (2, 2.0), (4, 3.6), (8, 4.8))
    ]
    book = a_book(a_job(value=3.0, gang=[1, 2, 4, 8]), pools=[a_pool(gpus=8)], affinity=affinity)
    [line] = clear(book)["allocation"]
    assert (line["gpu_hours"], line["msamples"]) == (4.0, pytest.approx(3.6))


def test_a_running_job_moves_only_when_it_pays():
    pools = [a_pool("A", reserve=1.0), a_pool("B", reserve=0.4)]
    stays = a_job(gang=4, running_on="A.G", move_cost=3.0)
    moves = a_job(gang=4, running_on="A.G", move_cost=2.0)
    assert lines(clear(a_book(stays, pools=pools))) == {("j", "A.G"): 4.0}
    moved = clear(a_book(moves, pools=pools))
    assert lines(moved) == {("j", "B.G"): 4.0}
    assert moved["welfare"] == pytest.approx(4 * 3.6 - 2.0)


def test_a_divisible_job_pays_for_moving_once():
    pools = [
        a_pool("A", gpus=2),
        a_pool("B", gpus=2, reserve=0.5),
        a_pool("C", gpus=2, reserve=0.5),
    ]
    job = a_job(demand=6.0, running_on="A.G", move_cost=5.0)
    clearing = clear(a_book(job, pools=pools))
    assert lines(clearing) == {("j", "A.G"): 2.0, ("j", "B.G"): 2.0, ("j", "C.G"): 2.0}
    assert clearing["welfare"] == pytest.approx(2 * 3.0 + 4 * 3.5 - 5.0)
    dear = clear(a_book({**job, "move_cost": 15.0}, pools=pools))
    assert lines(dear) == {("j", "A.G"): 2.0}


def test_a_site_that_loses_by_the_prices_is_repaired():
    """The market alone pays some sites of gang rounds less than they make alone."""
    document = example("book_gangs")
    market = read_book(document).market
    assert market.columns == 8
    pools = [a_pool("A", gpus=3, reserve=0.0), a_pool("B", gpus=2, reserve=0.0)]
    jobs = [
        a_job("a", "A", value=1.0, gang=2),
        a_job("b", "B", value=2.0, gang=3),
        a_job("c", "B", value=3.0, gang=2),
    ]
    clearing = clear(a_book(*jobs, pools=pools))
    alone = clear(a_book(jobs[0], pools=pools[:1]))["welfare"]
    assert clearing["payoffs"]["A"] >= alone - 1e-6
