"""Pooling and affinity: what each adds to the gain of a federation."""

import numpy as np
import pytest

from economics.incentives.decomposition import decompose, gain_of
from economics.incentives.draws import draw
from economics.incentives.variations import log_spread, one_type, spread_times
from tests.economics.books import PER_HOUR, a_book, a_pool, example
from tests.economics.random_books import random_book

SIGMAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.slow
def test_sites_alike_gain_nothing_and_more_the_more_their_speeds_differ():
    """Acceptance check 7: 100 seeds, identical loads and capacities."""
    gain = np.array(
        [[gain_of(draw(seed, sites=4, sigma=sigma, alike=True)) for sigma in SIGMAS]
         for seed in range(100)]
    )  # fmt: skip
    mean = gain.mean(axis=0)
    assert gain[:, 0].max() < 1e-3
    assert 0.10 <= mean[-1] <= 0.35
    assert (np.diff(mean) > 0).all()
    # The design's own figures, which are medians here: 0, 0.5, 2.8, 7.8, 14.0, 20.5 %.
    assert np.median(gain, axis=0) == pytest.approx(
        [0, 0.005, 0.028, 0.078, 0.140, 0.205], abs=0.012
    )


@pytest.mark.slow
def test_with_unequal_loads_pooling_is_the_base_and_affinity_comes_on_top():
    found = [decompose(draw(seed, sites=4, sigma=1.0, load=None)) for seed in range(60)]
    pooling = np.median([row.pooling_share for row in found])
    both = np.median([row.gain_share for row in found])
    assert 0.10 <= pooling <= 0.30
    assert both > 1.5 * pooling


def test_sites_of_equal_speed_have_no_affinity_gain():
    for seed in range(10):
        found = decompose(draw(seed, sites=3, sigma=0.0))
        assert found.affinity == pytest.approx(0.0, abs=1e-9 * max(found.gain, 1.0))
        assert found.spread == pytest.approx(0.0, abs=1e-12)


def test_the_worked_example():
    found = decompose(example("book_three_sites"))
    assert found.alone == pytest.approx(102.3379, abs=1e-3)
    assert found.gain == pytest.approx(67.3785, abs=1e-3)
    assert found.gain_share == pytest.approx(0.6584, abs=1e-4)
    assert found.pooling + found.affinity == pytest.approx(found.gain)
    assert found.capacity + found.types == pytest.approx(found.pooling)
    assert 0 < found.affinity < found.pooling


def test_other_gpu_types_are_told_from_pooled_capacity():
    """Each site owns what the other's tenants would choose; of one type, no swap is worth it."""
    pools = [a_pool("A", "G"), a_pool("B", "H")]
    book = a_book(
        {"id": "x", "site": "A", "class": "fast-on-h", "value": 9.0, "demand": 40.0},
        {"id": "y", "site": "B", "class": "fast-on-g", "value": 9.0, "demand": 40.0},
        pools=pools,
    )
    book["affinity"] = [
        {"pool": pool, "class": name, "samples_per_s": PER_HOUR * (4 if name == fast else 1)}
        for pool, fast in (("A.G", "fast-on-g"), ("B.H", "fast-on-h"))
        for name in ("fast-on-g", "fast-on-h")
    ]
    found = decompose(book)
    assert found.alone == pytest.approx(2 * 4 * (9.0 - 1.0))
    assert found.gain == pytest.approx(2 * 4 * 3 * 9.0)
    assert found.types == pytest.approx(found.gain)
    assert (found.capacity, found.affinity) == pytest.approx((0.0, 0.0), abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_the_gain_is_never_negative_and_the_parts_are_all_of_it(seed):
    found = decompose(random_book(seed, gangs=None if seed % 2 else False))
    assert found.gain >= -1e-6 * max(1.0, found.alone)
    assert found.pooling >= -1e-6 * max(1.0, found.pooling_alone)
    assert found.capacity >= -1e-6 * max(1.0, found.alone)
    assert found.capacity + found.types + found.affinity == pytest.approx(found.gain)


def test_mean_speeds_are_geometric_means_over_gpus():
    book = example("book_three_sites")
    flat = {(row["pool"], row["class"]): row["samples_per_s"]
            for row in spread_times(book, 0.0)["affinity"]}  # fmt: skip
    assert flat["A.H", "cnn"] == pytest.approx((1200**8 * 1000**4) ** (1 / 12))
    assert flat["B.H", "cnn"] == flat["A.H", "cnn"]
    assert flat["A.V", "lm"] == pytest.approx((20**4 * 18**16 * 15**24) ** (1 / 44))


def test_the_spread_is_turned_by_its_factor():
    book = draw(4, sites=4, sigma=0.5)
    assert log_spread(spread_times(book, 2.0)) == pytest.approx(2 * log_spread(book))
    assert log_spread(spread_times(book, 0.0)) == pytest.approx(0.0, abs=1e-9)
    same = spread_times(book, 1.0)["affinity"]
    for row, was in zip(same, book["affinity"], strict=True):
        assert row["samples_per_s"] == pytest.approx(was["samples_per_s"])


def test_reserves_keep_their_ratio_to_the_mean_of_their_type():
    reserves = {row["id"]: row["reserve"] for row in one_type(example("book_three_sites"))["pools"]}
    mean = 32.8 / 56
    assert reserves["A.H"] / reserves["B.H"] == pytest.approx(1.5 / 1.6)
    assert (8 * reserves["A.H"] + 4 * reserves["B.H"]) / 12 == pytest.approx(mean)
    of_v = 4 * reserves["A.V"] + 16 * reserves["B.V"] + 24 * reserves["C.V"]
    assert of_v / 44 == pytest.approx(mean)


def test_what_cannot_run_still_cannot():
    book = draw(4, sites=3)
    book["affinity"][0]["samples_per_s"] = 0.0
    assert spread_times(book, 0.0)["affinity"][0]["samples_per_s"] == 0.0


def test_rows_in_another_order_give_the_same_digits():
    book = draw(4, sites=4)
    turned = {key: value[::-1] if isinstance(value, list) else value for key, value in book.items()}
    assert decompose(book) == decompose(turned)
