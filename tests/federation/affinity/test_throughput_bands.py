"""What neighbours, numbers of nodes and outliers do to a forecast and to its band."""

import math
from dataclasses import replace

import numpy as np
import pytest

from federation.affinity import residuals
from federation.affinity.samples import Configuration, Sample
from federation.affinity.step_time import FIXED, columns_of, growth
from federation.affinity.throughput import fit, priced, why_not_priced
from tests.federation.affinity.test_throughput import BATCHES, sampled


@pytest.mark.parametrize(("kernel", "cell"), [(0.15, 0.0), (0.3, 0.0), (0.0, 0.05)])
def test_a_cell_amid_measured_ones_stays_within_the_band(kernel, cell):
    """Batches that hit other kernels, cells that differ for no reason: half are not measured."""
    held = []
    batches = tuple(8.0 * 2 ** (place / 2) for place in range(5))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        of_batch = {batch: math.exp(rng.normal(0, kernel)) for batch in batches}
        of_cell, seen, hidden = {}, [], []
        for one in sampled(batches=batches, spread=0.01, seed=seed, waits=False, repeats=5):
            drawn = (rng.random() < 0.5, math.exp(rng.normal(0, cell)))
            out, factor = of_cell.setdefault(one.configuration, drawn)
            slower = one.step_s * of_batch[one.local_batch] * factor
            (hidden if out else seen).append(replace(one, step_s=slower))
        forecasts = fit(seen).forecasts([one.configuration for one in hidden])
        held += [f.lower_s <= s.step_s <= f.upper_s for f, s in zip(forecasts, hidden, strict=True)]
    assert 0.82 <= np.mean(held) <= 0.97


def test_a_cell_that_differs_for_no_reason_is_not_believed_of_its_neighbours():
    places = residuals.Places(np.array([2.0, 2.0]), np.log([4.0, 4.0]), np.log([8.0, 8.8]))
    own, across = residuals.covariance(places, places)[0]
    assert own == pytest.approx(residuals.PRIOR_SD**2)
    assert own - across > residuals.S6**2


def test_more_nodes_than_were_measured_cost_like_the_most_that_were():
    per_nodes = {1: 1.0, 2: 1.4, 3: 0.8, 4: 0.8}
    sizes = [(n, n * each) for n in per_nodes for each in (1, 2, 4)]

    def step(nodes, replicas, batch):
        grad = 0.02 + 0.002 * batch
        growing = 1 + float(growth(np.array([replicas]))[0])
        sync = 0.0 if replicas == 1 else (0.1 if nodes > 1 else 0.01) * growing * per_nodes[nodes]
        return math.hypot(grad, sync)

    seen = [Sample(n, k, b, 0, step(n, k, b)) for n, k in sizes for b in BATCHES for _ in range(3)]
    per_nodes[8] = 0.8
    forecast = fit(seen).forecast(Configuration(8, 16, 16))
    assert forecast.extrapolated
    assert forecast.step_s == pytest.approx(step(8, 16, 16), rel=0.05)
    nodes = np.array([1.0, 2.0, 3.0, 8.0])
    assert columns_of(nodes, (2, 3)).tolist() == [-1, FIXED, FIXED + 1, FIXED + 1]
    assert columns_of(nodes, (2,)).tolist() == [-1, FIXED, -1, -1]  # two nodes are no ring


def test_a_few_very_slow_samples_leave_the_other_bands_as_they_were():
    rng = np.random.default_rng(7)
    clean = sampled(spread=0.05, waits=False, repeats=12)
    slow = [replace(one, step_s=one.step_s * (5 if rng.random() < 0.02 else 1)) for one in clean]
    asked = [Configuration(2, 6, 24), Configuration(4, 12, 40), Configuration(1, 3, 12)]
    for before, after in zip(fit(clean).forecasts(asked), fit(slow).forecasts(asked), strict=True):
        widths = [math.log(one.upper_s / one.lower_s) for one in (before, after)]
        assert widths[1] < 2.5 * widths[0]
        assert before.lower_s < after.step_s < before.upper_s


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (Configuration(1, 16, 16), "16 replicas on one node, where 1 to 2 was measured"),
        (Configuration(2, 8, 16), "2 nodes over several nodes, where 4 was measured"),
        (Configuration(4, 4, 16), "4 replicas over several nodes, where 8 to 16 was measured"),
    ],
)
def test_a_combination_unlike_all_measured_ones_is_not_priced_on(asked, named):
    model = fit(sampled([(1, 1), (1, 2), (4, 8), (4, 16)], spread=0.03))
    forecast = model.forecast(asked)
    assert not forecast.extrapolated  # each of the three lies within what was measured
    assert named in forecast.why
    assert not priced(forecast)
    assert why_not_priced(forecast).startswith("probe at size needed: unlike what was measured")
    for like in (Configuration(4, 12, 24), Configuration(1, 2, 8)):
        assert priced(model.forecast(like))


def test_gpus_on_a_node_are_measured_too():
    model = fit(sampled([(1, 1), (2, 2), (2, 4), (4, 8), (4, 16)], spread=0.03))
    forecast = model.forecast(Configuration(2, 16, 16))
    assert not forecast.extrapolated
    assert "8 GPUs on a node over several nodes, where 1 to 4 was measured" in forecast.why
    assert not priced(forecast)
    assert priced(model.forecast(Configuration(3, 12, 16)))
