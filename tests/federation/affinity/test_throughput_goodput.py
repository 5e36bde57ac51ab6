"""Efficiency of large batches, and the batch of greatest goodput."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.affinity.goodput import Limits, Noise, best, candidates, noise_of, speedup
from federation.affinity.samples import BadSamples, Configuration, Sample
from federation.affinity.throughput import fit

LIMITS = Limits(least_local=8, most_local=64, most_batch=4096)


@pytest.fixture(scope="module")
def model():
    return fit(
        [
            Sample(1, size, batch, 0, math.hypot(0.02 + 0.001 * batch, 0.02 * (size - 1)))
            for size in (1, 2, 4, 8)
            for batch in (8, 16, 32, 64)
        ]
    )


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 64))
def test_efficiency_is_one_at_the_first_batch_and_falls(variance, square, times):
    noise = Noise(128.0, variance / 10, square / 10)
    assert noise.efficiency(128.0) == pytest.approx(1.0)
    here, more = noise.efficiency(128.0 * times), noise.efficiency(128.0 * times * 2)
    assert 0 < more < here <= 1 + 1e-12
    phi = noise.scale()
    assert here == pytest.approx((phi + 128.0) / (phi + 128.0 * times))
    assert noise.at(512.0).efficiency(1024.0) == pytest.approx(
        noise.efficiency(1024.0) / noise.efficiency(512.0)
    )


def test_noise_of_gradients():
    found = noise_of([5.0, 7.0], 4.0, 64)  # two replicas: L = 6, A = 4
    assert found == Noise(64, variance=2.0, square=2.0)
    assert noise_of([1.0, 1.0], 1.0, 64).variance == 0
    assert noise_of([4.0, 4.0], 2.0, 64).scale() == math.inf
    for wrong in ([1.0], [math.nan, 1.0], [-1.0, 1.0]):
        with pytest.raises(BadSamples):
            noise_of(wrong, 1.0, 64)


def test_noise_that_says_nothing_is_a_sentence():
    with pytest.raises(BadSamples, match="both 0: report gradients first"):
        Noise(32, 0.0, 0.0).efficiency(64)
    for wrong in ((0.0, 1.0, 1.0), (32, -5.0, 1.0), (32, 1.0, math.nan), (math.inf, 1.0, 1.0)):
        with pytest.raises(BadSamples, match="a batch above 0, and a variance"):
            Noise(*wrong)
    for batch in (0.0, -1.0, math.nan):
        with pytest.raises(BadSamples, match="a batch of"):
            Noise(32, 1.0, 1.0).efficiency(batch)


def test_candidates_hold_the_limits():
    found = candidates(1, 4, 64, LIMITS)
    for one in found:
        assert 8 <= one.local_batch <= 64
        assert one.samples_per_step >= 64
        assert one.local_batch == int(one.local_batch)
    assert any(one.accumulation for one in found)
    once = Limits(least_local=8, most_local=64, most_batch=4096, accumulates=False)
    assert all(one.accumulation == 0 for one in candidates(1, 4, 64, once))
    with pytest.raises(BadSamples, match="no batch of 4 replicas lies in 64 to 32"):
        candidates(1, 4, 64, Limits(8, 64, 32))


def test_one_replica_takes_two_passes_beyond_the_first_batch():
    first, *rest = candidates(1, 1, 32, LIMITS)
    assert (first.local_batch, first.accumulation) == (32, 0)
    assert all(one.accumulation >= 1 for one in rest)


def test_the_best_batch_is_the_best_of_all_that_were_tried(model):
    noise = Noise(32, 10.0, 1.0)
    found = best(model, 1, 4, noise, LIMITS)
    every = [
        model.forecast(one).samples_per_s * noise.efficiency(one.samples_per_step)
        for one in candidates(1, 4, 32, LIMITS)
    ]
    assert found.goodput == pytest.approx(max(every))
    assert found.efficiency <= 1


def test_noisy_gradients_ask_for_larger_batches(model):
    quiet = best(model, 1, 4, Noise(32, 0.1, 1.0), LIMITS)
    noisy = best(model, 1, 4, Noise(32, 1000.0, 1.0), LIMITS)
    assert quiet.configuration.samples_per_step < noisy.configuration.samples_per_step
    assert speedup(model, 1, 4, Noise(32, 1000.0, 1.0), LIMITS) > 1
    assert speedup(model, 1, 1, Noise(32, 1.0, 1.0), LIMITS) == 1


def test_throughput_grows_with_the_local_batch(model):
    rates = [model.forecast(Configuration(1, 4, batch)).samples_per_s for batch in (8, 16, 32, 64)]
    assert rates == sorted(rates)
