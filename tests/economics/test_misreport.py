"""What lies bring a site: little, less the more sites there are, and none by claiming speed."""

import copy
import json
from dataclasses import asdict

import numpy as np
import pytest

from economics.book import read_book
from economics.clearing.program import program_of
from economics.errors import BadBook
from economics.incentives.claims import Pay, claim_payoff, claim_study, claimed, claims
from economics.incentives.draws import draw
from economics.incentives.intervals import mean_interval, share_interval
from economics.incentives.misreport import (
    LIES,
    Kind,
    Lie,
    by_programme,
    by_round,
    gains,
    misreport,
    study,
    true_payoffs,
)
from economics.sharing.coalitions import coalition_value
from tests.economics.books import a_book, a_job, a_pool


def scarce():
    """Four GPUs of A at a reserve of 1, which two tenants of B want: at 4 and at 2, 3 hours each.

    The second tenant is served in part, so the price is its bid.
    """
    return a_book(
        a_job("high", "B", 4.0, demand=3.0),
        a_job("low", "B", 2.0, demand=3.0),
        pools=[a_pool("A", gpus=4, reserve=1.0)],
    )


@pytest.mark.parametrize(
    ("site", "lie", "honest", "gain"),
    [
        ("A", Lie(Kind.RESERVE, 3.0), 4.0, 2.0),  # sells 3 hours at 3 instead of 4 at 2
        ("A", Lie(Kind.RESERVE, 1.5), 4.0, 0.0),  # below the price: nothing changes
        ("A", Lie(Kind.CAPACITY, 0.5), 4.0, 2.0),  # sells 2 hours at 4
        ("B", Lie(Kind.VALUE, 0.75), 6.0, 2.0),  # pays 1.5 instead of 2 for 4 hours
        ("B", Lie(Kind.VALUE, 0.4), 6.0, 3.0),  # 3 hours at the reserve; the rest is left idle
        ("B", Lie(Kind.VALUE, 0.1), 6.0, -6.0),  # nobody runs
    ],
)
@pytest.mark.parametrize("clear", [by_round, by_programme])
def test_a_lie_is_paid_by_what_is_true(site, lie, honest, gain, clear):
    welfare, payoff, added = gains(scarce(), site, [lie], clear)
    assert welfare == pytest.approx(10.0)
    assert payoff == pytest.approx(honest, abs=1e-6)
    assert added[0] == pytest.approx(gain, abs=1e-6)


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_changes_the_rows_of_its_site_alone(lie):
    book = draw(3, sites=4)
    before = copy.deepcopy(book)
    told = lie.told(book, "S02")
    assert book == before
    assert told != book
    for rows in ("pools", "jobs"):
        others = [row for row in told[rows] if row["site"] != "S02"]
        assert others == [row for row in book[rows] if row["site"] != "S02"]
    read_book(told)


def test_the_truth_gains_nothing():
    truths = [Lie(kind, 1.0) for kind in Kind]
    for seed in range(4):
        _, _, added = gains(draw(seed, sites=4), "S01", truths, by_programme)
        assert np.abs(added).max() < 1e-9
    rows = claims([draw(seed, sites=4, suppliers=1) for seed in range(4)], "S00", factors=[1.0])
    assert [row.pay for row in rows] == list(Pay)
    for row in rows:
        assert row.credits.estimate == pytest.approx(0.0, abs=1e-5)  # of whole samples


@pytest.mark.parametrize("seed", range(4))
def test_the_quick_way_decides_what_the_round_decides(seed):
    book = draw(seed, sites=5)
    quick, whole = by_programme(book), by_round(book)
    truth = quick.book
    assert quick.price == pytest.approx(whole.price, abs=1e-6)
    assert true_payoffs(quick, truth) == pytest.approx(true_payoffs(whole, truth), abs=1e-5)


def test_the_quick_way_refuses_books_whose_prices_are_no_duals():
    capped = {**scarce(), "rules": {"price_cap": {"A.G": 1.5}}}
    otherwise = {**scarce(), "rules": {"policy": "makespan"}}
    for book in (draw(0, sites=2, gangs=True), capped, otherwise):
        with pytest.raises(BadBook, match="divisible"):
            by_programme(book)


def test_gains_fall_with_the_number_of_sites():
    """Dearer reserves and fewer GPUs pay well among three sites and next to nothing among more."""
    rows = {(row.sites, row.kind): row for row in study((3, 12), 60, seed=0)}
    for kind in (Kind.RESERVE, Kind.CAPACITY):
        few, many = rows[3, kind], rows[12, kind]
        assert 0.01 < few.gain.low < few.gain.estimate
        assert many.gain.high < few.gain.low
        assert many.gaining.estimate < few.gaining.estimate
    assert rows[12, Kind.VALUE].gain.estimate < 0.001
    assert rows[12, Kind.VALUE].gain.estimate <= rows[3, Kind.VALUE].gain.estimate


def test_overclaiming_pays_by_the_hour_and_not_by_the_sample():
    """The shipped settlement against what it replaces, on the same hundred markets."""
    rules = (Pay.HOURLY, Pay.SHIPPED)
    hourly, shipped = claim_study(100, seed=0, factors=(1.5,), rules=rules)
    assert hourly.gain.low > 0.10
    assert shipped.gain.high < 0.0
    assert shipped.credits.high < 0.0
    assert shipped.gaining.count == 100
    assert shipped.gaining.estimate <= 0.05
    assert shipped.welfare_loss.estimate > 0.03  # what the claim costs everybody


def test_a_site_with_tenants_hurts_them_by_overclaiming():
    """Its own jobs are planned on the same claim: even paid by the hour it loses."""
    (row,) = claim_study(60, seed=0, tenants=True, factors=(1.5,), rules=(Pay.HOURLY,))
    assert row.gain.high < 0.0
    assert row.gaining.estimate < 0.25


def test_a_cap_takes_away_the_gain_of_claiming_less():
    rules = (Pay.SAMPLES, Pay.CAPPED, Pay.SHIPPED)
    uncapped, capped, shipped = claim_study(100, seed=0, factors=(0.7,), rules=rules)
    assert uncapped.gain.low > capped.gain.high
    assert uncapped.gaining.estimate > capped.gaining.estimate
    assert shipped.gain == capped.gain  # all that is contracted is delivered: no penalty


@pytest.mark.parametrize(
    ("factor", "pay", "payoff", "welfare"),
    [
        # Claiming 2, A sells its 4 hours as 8 samples: all 6 that are wanted, in 3 hours at the
        # reserve of 1, and delivers 3 of them, worth 1.5 of the 3 at 4 and 1.5 of the 3 at 2.
        (2.0, Pay.HOURLY, 0.0, 6.0),
        (2.0, Pay.SAMPLES, -1.5, 6.0),
        (2.0, Pay.CAPPED, -1.5, 6.0),
        (2.0, Pay.HALF_PENALTY, -2.25, 6.0),
        (2.0, Pay.FULL_PENALTY, -3.0, 6.0),
        (2.0, Pay.SHIPPED, -2.1, 6.0),  # half of 45 % is more than the bond of 20 %
        # Claiming a half, A sells 4 hours as 2 samples of the job at 4, at 2 an hour: 8 credits.
        # Paid for those alone it stops after 2 hours, and goes on where it is paid for 4.
        (0.5, Pay.HOURLY, 4.0, 4.0),
        (0.5, Pay.SAMPLES, 12.0, 4.0),
        (0.5, Pay.CAPPED, 6.0, 6.0),
        (0.5, Pay.SHIPPED, 6.0, 6.0),
    ],
)
def test_what_each_pay_rule_gives_a_claim(factor, pay, payoff, welfare):
    struck = by_round(claimed(scarce(), "A", factor))
    found = claim_payoff(struck, by_round(scarce()), "A", factor, pay)
    assert found == pytest.approx((payoff, welfare), abs=1e-5)


def test_a_report_is_plain_values_and_repeats_itself():
    books = [draw(seed, sites=3) for seed in range(5)]
    report = misreport(books, "S00", seed=7, clear=by_programme)
    assert report == misreport(books, "S00", seed=7, clear=by_programme)
    read = json.loads(json.dumps(asdict(report), allow_nan=False))
    assert (read["rounds"], read["resampled"]) == (5, "rounds")
    assert [row["kind"] for row in read["best"]] == ["reserve", "capacity", "value"]
    for row in read["lies"]:
        assert row["credits"]["low"] <= row["credits"]["estimate"] <= row["credits"]["high"]


def test_a_single_book_has_an_interval_when_its_jobs_are_drawn_again():
    lies = [Lie(Kind.RESERVE, 3.0), Lie(Kind.CAPACITY, 0.5)]
    alone = misreport(scarce(), "A", lies=lies)
    assert alone.best[0].gain.estimate == pytest.approx(0.5)
    assert (alone.best[0].gain.low, alone.best[0].gain.high) == (None, None)
    drawn = misreport(scarce(), "A", lies=lies, draws=30, seed=1, clear=by_programme)
    assert (drawn.rounds, drawn.resampled) == (1, "jobs")
    assert drawn.best[0].gaining.count == 1
    assert drawn.best[0].gain.estimate == pytest.approx(0.5)
    assert drawn.best[0].gain.low < drawn.best[0].gain.high


def test_a_site_with_nothing_to_lose_is_left_out_of_relative_gains():
    book = a_book(a_job("j", "B", 4.0, demand=1.0), pools=[a_pool("A", gpus=4)])
    report = misreport(book, "A", lies=[Lie(Kind.RESERVE, 2.0)])
    assert report.left_out == 1
    assert report.lies[0].gain is None
    assert report.lies[0].credits.estimate == pytest.approx(1.0)  # one hour at 2 instead of 1


def test_the_best_lie_may_be_the_truth():
    report = misreport(scarce(), "B", lies=[Lie(Kind.VALUE, 0.1)])
    assert report.lies[0].gain.estimate == pytest.approx(-1.0)
    assert report.best[0].gain.estimate == 0.0
    assert report.best[0].gaining.estimate == 0.0


def test_a_stranger_is_refused():
    with pytest.raises(BadBook, match="'Z'"):
        misreport(scarce(), "Z")


def test_intervals_hold_what_they_should():
    assert mean_interval(np.zeros(0), seed=0) is None
    assert share_interval(0, 0) is None
    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        found = mean_interval(random.exponential(1.0, 40), seed=seed)
        held += found.low <= 1.0 <= found.high
    assert held >= 180
    none = share_interval(0, 100)
    assert (none.low, none.high) == (0.0, pytest.approx(0.0370, abs=1e-4))
    half = share_interval(50, 100)
    assert (half.low, half.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_a_seed_draws_the_same_market_at_other_affinities_and_loads():
    book = draw(5, sites=4)
    assert book == draw(5, sites=4)
    assert book != draw(6, sites=4)
    for other in (draw(5, sites=4, sigma=1.0), draw(5, sites=4, load=0.6)):
        assert other["pools"] == book["pools"]
    lighter = draw(5, sites=4, load=0.55)
    wanted = [row["demand"] for row in book["jobs"]]
    assert [2 * row["demand"] for row in lighter["jobs"]] == pytest.approx(wanted)
    speeds = {
        (row["pool"][-2:], row["class"]): row["samples_per_s"]
        for row in draw(5, sites=4, sigma=0.0)["affinity"]
    }
    assert all(
        row["samples_per_s"] == speeds[row["pool"][-2:], row["class"]]
        for row in draw(5, sites=4, sigma=0.0)["affinity"]
    )


@pytest.mark.parametrize("gangs", [False, True])
def test_drawn_books_can_be_read(gangs):
    for seed in range(5):
        book = read_book(draw(seed, sites=3, types=3, classes=2, load=None, gangs=gangs))
        assert book.market.gang.all() == gangs
        assert len(book.pools) == 9
    supplied = draw(0, sites=3, suppliers=2, gangs=gangs)
    assert {row["site"] for row in supplied["jobs"]} == {"S02"}


@pytest.mark.parametrize("settings", [{"sites": 0}, {"sites": 2, "suppliers": 2}])
def test_a_book_without_anybody_is_refused(settings):
    with pytest.raises(ValueError, match="needs"):
        draw(0, **settings)


def test_alike_sites_have_nothing_to_gain_from_each_other():
    """At sigma 0 a federation of copies is worth the sum of its parts; affinity adds to it."""
    gain = {}
    for sigma in (0.0, 0.5):
        program = program_of(read_book(draw(1, sites=4, sigma=sigma, alike=True)).market)
        parts = [coalition_value(program, np.arange(4) == at, nodes=1) for at in range(4)]
        whole = coalition_value(program, np.ones(4, dtype=bool), nodes=1)
        gain[sigma] = whole / sum(parts) - 1
    assert gain[0.0] == pytest.approx(0.0, abs=1e-9)
    assert gain[0.5] > 0.01
