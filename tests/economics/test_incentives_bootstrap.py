"""Intervals: as the textbook's, the same for the same seed, and wide enough."""

import numpy as np
import pytest
from scipy import stats

from economics.errors import BadBook
from economics.incentives.bootstrap import JOBS, ROUNDS, Sample
from economics.incentives.sampling import Plan
from tests.economics.books import example


def skewed(seed, size):
    return np.random.default_rng(seed).lognormal(0.0, 0.8, size)


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = skewed(1, 40)
    ours = Sample.of_rounds(values.tolist(), seed=3, draws=20_000).mean(float)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(8)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_the_interval_of_a_ratio_is_that_of_scipy():
    over, under = skewed(2, 30), 1 + skewed(4, 30)
    rows = list(zip(over.tolist(), under.tolist(), strict=True))
    ours = Sample.of_rounds(rows, seed=3, draws=10_000).ratio(
        lambda row: row[0], lambda row: row[1]
    )

    def ratio(some, other, axis=-1):
        return some.mean(axis=axis) / other.mean(axis=axis)

    theirs = stats.bootstrap(
        (over, under), ratio, n_resamples=10_000, paired=True, rng=np.random.default_rng(8)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(over.mean() / under.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


@pytest.mark.parametrize(("rounds", "share"), [(5, 0.80), (10, 0.88), (20, 0.93)])
def test_an_interval_holds_the_mean_less_often_over_few_rounds(rounds, share):
    """The shares are those that the page on joining gives; 95 % is what a long trace tends to."""
    inside = 0
    for seed in range(400):
        values = np.random.default_rng([rounds, seed]).normal(5.0, 1.0, rounds)
        found = Sample.of_rounds(values.tolist(), seed=seed, draws=300).mean(float)
        inside += found.low <= 5.0 <= found.high
    assert inside / 400 == pytest.approx(share, abs=0.03)


def test_rounds_that_are_all_alike_leave_no_doubt():
    found = Sample.of_rounds([4.0] * 5, seed=0, draws=50).mean(float)
    assert (found.value, found.low, found.high) == (4.0, 4.0, 4.0)


def test_draws_of_jobs_give_their_percentiles_and_hold_the_figure():
    draws = np.linspace(0.0, 1.0, 201)
    middle = Sample.of_jobs([0.5, *draws]).mean(float)
    assert (middle.value, middle.low, middle.high) == pytest.approx((0.5, 0.025, 0.975))
    beyond = Sample.of_jobs([1.2, *draws]).mean(float)
    assert (beyond.value, beyond.low, beyond.high) == pytest.approx((1.2, 0.025, 1.2))


def test_the_same_seed_gives_the_same_interval_and_another_another():
    values = skewed(5, 12).tolist()
    first, again, other = (
        Sample.of_rounds(values, seed=seed, draws=200).mean(float) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_one_book_draws_its_jobs_and_several_draw_rounds():
    book = example("book_three_sites")
    one = Plan.of(book, draws=20)
    assert (one.unit, len(one.documents), len(one.rounds)) == (JOBS, 21, 1)
    assert one.documents[0] is book
    several = Plan.of([book, book], draws=20)
    assert (several.unit, len(several.documents), len(several.rounds)) == (ROUNDS, 2, 2)


def test_a_draw_keeps_the_number_of_jobs_of_each_site():
    book = example("book_three_sites")
    wanted = {row["id"]: row["demand"] for row in book["jobs"]}
    kinds = set()
    for drawn in Plan.of(book, draws=40).documents[1:]:
        times = {row["id"]: row["demand"] / wanted[row["id"]] for row in drawn["jobs"]}
        kinds.add(tuple(sorted(times.items())))
        for site in "ABC":
            count = sum(times[row["id"]] for row in drawn["jobs"] if row["site"] == site)
            assert count == pytest.approx(2)
    assert len(kinds) > 10


def test_copies_of_a_gang_have_names_of_their_own():
    book = example("book_three_sites")
    book["jobs"] = [
        {"id": f"g{at}", "site": "A", "class": "lm", "value": 20.0, "gang": 2} for at in range(3)
    ]
    for drawn in Plan.of(book, draws=20).documents[1:]:
        names = [row["id"] for row in drawn["jobs"]]
        assert len(names) == len(set(names)) == 3


@pytest.mark.parametrize(
    ("arguments", "path"),
    [({"draws": 3}, "draws"), ({"seed": -1}, "seed")],
)
def test_a_plan_that_says_too_little_is_refused(arguments, path):
    with pytest.raises(BadBook) as refused:
        Plan.of(example("book_three_sites"), **arguments)
    assert refused.value.problems[0].path == path


def test_no_book_is_refused():
    with pytest.raises(BadBook, match="at least one"):
        Plan.of([])


def test_rows_of_a_book_may_stand_in_any_order():
    book = example("book_three_sites")
    turned = {key: value[::-1] if isinstance(value, list) else value for key, value in book.items()}
    for one, other in zip(
        Plan.of(book, draws=20).documents, Plan.of(turned, draws=20).documents, strict=True
    ):
        assert {row["id"]: row for row in one["jobs"]} == {row["id"]: row for row in other["jobs"]}


def test_an_interval_needs_draws():
    with pytest.raises(ValueError, match="draws"):
        Sample.of_jobs([1.0]).mean(float)
    with pytest.raises(ValueError, match="two"):
        Sample.of_rounds([1.0], seed=0)
