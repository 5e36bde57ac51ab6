"""The best bundles of all jobs are found together; here each job tries all its vertices alone."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from economics import accounts
from economics.book import read_book
from tests.economics.books import PER_HOUR, a_book, a_job, a_pool
from tests.economics.large import large_book
from tests.economics.varied import Draw, an_award, varied_book, with_floors


def best_of(market, job, rent):
    """Credits of a job's best bundle at these rents."""
    columns = range(*market.columns_of(job).indices(market.columns))
    rows = [
        (
            float(market.gain[at] - rent[market.pool[at]] * market.gpu_hours[at]),
            float(market.gpu_hours[at]),
            float(market.msamples[at]),
            bool(market.stays[at]),
        )
        for at in columns
    ]
    if market.gang[job]:
        return max([0.0, *(margin for margin, *_ in rows)])
    ends = (market.floor[job], market.demand[job])
    anywhere = best_mix(rows, market.width[job], *ends) - market.move_charge[job]
    at_home = best_mix([row for row in rows if row[3]], market.width[job], *ends)
    return max(anywhere, at_home)


def best_mix(rows, width, floor, demand):
    """A linear programme in two rows: its best vertex uses at most two columns."""
    rates = [(margin / hours, msamples / hours) for margin, hours, msamples, _ in rows]
    points = [()] if not floor else []
    for rate, speed in rates:
        limits = (width, floor / speed, demand / speed)
        points.extend(((hours, rate, speed),) for hours in limits)
    for (rate, speed), (other, faster) in combinations(rates, 2):
        for delivery in (floor, demand):
            if speed != faster and np.isfinite(width) and np.isfinite(delivery):
                hours = (delivery - speed * width) / (faster - speed)
                points.append(((width - hours, rate, speed), (hours, other, faster)))
    found = -np.inf
    for point in points:
        used = sum(hours for hours, _, _ in point)
        made = sum(hours * speed for hours, _, speed in point)
        inside = all(0 <= hours < np.inf for hours, _, _ in point)
        room = 1 + 1e-9
        if inside and used <= width * room and floor <= made * room <= demand * room * room:
            found = max(found, sum(hours * rate for hours, rate, _ in point))
    return found


def assert_best(market, rent):
    expected = [best_of(market, job, rent) for job in range(market.jobs)]
    found = accounts.best_gain(market, rent)
    finite = np.isfinite(expected)
    assert (np.isfinite(found) == finite).all()
    assert found[finite] == pytest.approx(np.array(expected)[finite], rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("floors", [False, True])
def test_bundles_of_varied_books(floors):
    for seed in range(120):
        document = with_floors(varied_book(seed), seed) if floors else varied_book(seed)
        book = read_book(document)
        _, price = an_award(book, seed)
        for rent in (price - book.market.reserve, np.zeros(book.market.pools)):
            assert_best(book.market, rent)


def test_bundles_with_both_limits_and_many_pools():
    """Where mixing two pools pays: fast ones dear, slow ones cheap."""
    mixed = 0
    for seed in range(40):
        draw = Draw(seed)
        document = large_book(30, pools=12, classes=2, feasible=12, seed=seed)
        for job in document["jobs"]:
            job.pop("budget", None)
            job.update(max_gpus=draw.random.randint(1, 6), demand=0.5 + draw.amount(9))
        market = read_book(document).market
        single = np.zeros(market.jobs)
        rent = np.array([draw.amount(6) for _ in range(market.pools)])
        assert_best(market, rent)
        margin = market.gain - rent[market.pool] * market.gpu_hours
        np.maximum.at(single, market.job, margin)
        mixed += int((accounts.best_gain(market, rent) > single * (1 + 1e-9)).sum())
    assert mixed > 40


def test_a_mix_of_two_columns_worked_by_hand():
    """Width 2, demand 4; speeds 1 and 3, worth 5 a piece; prices 1 and 11.

    Slow alone: 2 hours x (5 - 1) = 8. Fast alone: 4/3 hours x (15 - 11) = 5 1/3.
    An hour of each delivers 4: 4 + 4 = 8. At a fast price of 9: 4 + 6 = 10.
    """
    document = a_book(
        a_job(value=5.0, demand=4.0, max_gpus=2),
        pools=[a_pool("A", reserve=1.0), a_pool("B", reserve=0.0)],
    )
    document["affinity"][1]["samples_per_s"] = 3 * PER_HOUR
    market = read_book(document).market
    assert accounts.best_gain(market, np.array([0.0, 11.0])) == pytest.approx([8.0])
    assert accounts.best_gain(market, np.array([0.0, 9.0])) == pytest.approx([10.0])


def test_columns_alike_up_to_rounding_settle():
    """Sixty collinear columns: the walk along the hull ends, and at the right height."""
    pools = [a_pool(f"S{at:02}", reserve=0.1 * (at + 1) * 3) for at in range(60)]
    document = a_book(a_job(value=4.0, demand=31.0 * 0.1, max_gpus=1), pools=pools)
    for at, row in enumerate(document["affinity"]):
        row["samples_per_s"] = 0.1 * (at + 1) * PER_HOUR
    market = read_book(document).market
    assert accounts.best_gain(market, np.zeros(60)) == pytest.approx([3.1])
    assert_best(market, np.zeros(60))


def test_payments_of_many_lines_are_those_of_each():
    """Ties, large and negative amounts, and numbers written with nine decimals."""
    draw = Draw(3)
    prices = [round(draw.random.uniform(-1, 9), places) for places in (1, 3, 4, 9) * 200]
    hours = [round(draw.random.uniform(0, 40), places) for places in (0, 2, 3, 4, 9) * 160]
    prices += [0.5e-6, 1.5e-6, 2.5e-6, 1e15, 123456789.123456789, 5e-324]
    hours += [1.0, 1.0, 1.0, 1e15, 987654321.987654321, 1.0]
    together = accounts.payments_micro(np.array(prices), np.array(hours))
    assert together == [accounts.payment_micro(*pair) for pair in zip(prices, hours, strict=True)]
    assert together[-6:-2] == [0, 2, 2, 10**36]


def test_a_higher_rent_never_helps():
    market = read_book(large_book(200, seed=5)).market
    gains = [accounts.best_gain(market, rent * market.reserve) for rent in (0.0, 0.5, 1.0, 4.0)]
    assert all((low >= high - 1e-12).all() for low, high in pairwise(gains))
