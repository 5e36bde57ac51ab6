"""The step-time model: what it must give back, what it refuses, and what order cannot change."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.affinity import residuals, tally
from federation.affinity.allreduce import Links, all_reduce, prior_of_links, ring, tree
from federation.affinity.fitting import target
from federation.affinity.models_file import document, read
from federation.affinity.network_prior import PLAIN, NetworkPrior, pool_prior
from federation.affinity.placement import one_node_penalty, penalties
from federation.affinity.pools import fit_all
from federation.affinity.samples import BadSamples, Configuration, Sample
from federation.affinity.step_time import FIXED, Runs, growth, overlap, times
from federation.affinity.throughput import fit, priced, refit, why_not_priced

SIZES = [(1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (2, 8), (4, 4), (4, 16)]
BATCHES = (8, 16, 32, 64)


def true_step(nodes, replicas, batch, accumulation=0):
    """Seconds by a formula of the family, without noise."""
    grad = 0.02 + 0.002 * batch
    first = 0.01 if nodes == 1 else 0.05
    sync = 0.0 if replicas == 1 else first * (1 + float(growth(np.array([replicas]))[0]))
    return accumulation * grad + math.hypot(grad, sync)


def sampled(sizes=SIZES, batches=BATCHES, spread=0.0, seed=0, waits=True, repeats=1):
    rng = np.random.default_rng(seed)
    found = []
    for nodes, replicas in sizes:
        for batch in batches:
            for _ in range(repeats):
                step = true_step(nodes, replicas, batch) * math.exp(rng.normal(0, spread))
                sync = max(step - (0.02 + 0.002 * batch), 0.0) if waits else None
                found.append(Sample(nodes, replicas, batch, 0, step, sync))
    return found


def test_the_gradient_is_that_of_the_formula():
    rng = np.random.default_rng(3)
    counts = (2, 4)
    theta = rng.normal(-1.0, 0.5, FIXED + 2)
    shape = [np.array(column, dtype=float) for column in zip(*SIZES, strict=True)]
    runs = Runs(*shape, rng.uniform(4, 90, 8), np.arange(8.0) % 3, rng.uniform(0.9, 1.1, 8))
    at = times(theta, counts, runs)
    for place in range(len(theta)):
        ahead, behind = theta.copy(), theta.copy()
        ahead[place] += 1e-6
        behind[place] -= 1e-6
        there, here = times(ahead, counts, runs), times(behind, counts, runs)
        slope = (there.log_step - here.log_step) / 2e-6
        np.testing.assert_allclose(at.step_gradient[:, place], slope, atol=1e-7)
        slope = (there.log_grad - here.log_grad) / 2e-6
        np.testing.assert_allclose(at.grad_gradient[:, place], slope, atol=1e-7)


def test_full_overlap_is_the_longer_time_and_no_overlap_is_the_sum():
    runs = Runs(*(np.array([value]) for value in (2.0, 2.0, 1.0, 0.0, 1.0)))
    theta = np.log([1.0, 1e-9, 1.0, 1e-9, 1.0, 1e-9, 1.0])
    for value, expected in ((-40.0, 2.0), (40.0, 2.0**0.1)):
        theta[6] = value
        assert math.exp(times(theta, (), runs).log_step[0]) == pytest.approx(expected, rel=1e-6)
    assert overlap(-40.0) == pytest.approx(1.0)
    assert overlap(40.0) == pytest.approx(10.0)


def test_growth_lies_between_ring_and_tree():
    sizes = np.arange(2.0, 200.0)
    ours, the_tree, the_ring = (growth(sizes, power) for power in (0.5, 0.0, 1.0))
    assert growth(np.array([1.0, 2.0])).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(the_tree, np.log2(sizes) - 1)
    bent = ours / ours[2], the_tree / the_tree[2], the_ring / the_ring[2]  # alike at 4 replicas
    assert (bent[0][3:] <= bent[1][3:]).all()
    assert (bent[0][3:] >= bent[2][3:]).all()


@pytest.mark.parametrize("waits", [True, False])
def test_an_exact_formula_is_found_again(waits):
    model = fit(sampled(waits=waits))
    for nodes, replicas, batch in ((2, 6, 24), (1, 3, 12), (4, 10, 50), (1, 1, 40)):
        forecast = model.forecast(Configuration(nodes, replicas, batch))
        assert forecast.step_s == pytest.approx(true_step(nodes, replicas, batch), rel=0.04)
        assert not forecast.extrapolated
        assert priced(forecast)
        assert forecast.lower_s < forecast.step_s < forecast.upper_s
        assert forecast.samples_per_s == pytest.approx(replicas * batch / forecast.step_s)


def test_accumulation_adds_passes_without_waiting():
    model = fit(sampled())
    forecast = model.forecast(Configuration(4, 16, 32, 3))
    assert forecast.step_s == pytest.approx(true_step(4, 16, 32, 3), rel=0.05)
    assert forecast.samples_per_s == pytest.approx(16 * 32 * 4 / forecast.step_s)


def test_samples_with_accumulation_tell_of_the_same_passes():
    seen = [
        Sample(nodes, replicas, batch, passes, true_step(nodes, replicas, batch, passes))
        for nodes, replicas in SIZES
        for batch in BATCHES
        for passes in (0, 2)
    ]
    forecast = fit(seen).forecast(Configuration(2, 6, 24, 1))
    assert forecast.step_s == pytest.approx(true_step(2, 6, 24, 1), rel=0.05)


@pytest.mark.parametrize("repeats", [1, 2, 5])
@pytest.mark.parametrize("spread", [0.05, 0.08, 0.12])
def test_bands_hold_nine_of_ten_whether_or_not_samples_repeat(spread, repeats):
    held = []
    sizes = [(1, 3), (2, 6), (2, 5), (4, 8), (4, 12)]
    for seed in range(12):
        seen = sampled(spread=spread, seed=seed, waits=False, repeats=repeats)
        hidden = sampled(sizes, spread=spread, seed=seed + 100, waits=False)
        forecasts = fit(seen).forecasts([one.configuration for one in hidden])
        held += [f.lower_s <= s.step_s <= f.upper_s for f, s in zip(forecasts, hidden, strict=True)]
    assert 0.83 <= np.mean(held) <= 0.95  # of 240, so within 0.02 or so of what it is


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (Configuration(8, 16, 16), "8 nodes where 1 to 4 was measured"),
        (Configuration(4, 32, 16), "32 replicas where 1 to 16 was measured"),
        (Configuration(4, 16, 128), "128 local batch where 8 to 64 was measured"),
        (Configuration(1, 1, 4), "4 local batch"),
    ],
)
def test_outside_the_samples_a_forecast_says_so_and_prices_nothing(asked, named):
    model = fit(sampled(spread=0.05))
    forecast = model.forecast(asked)
    assert forecast.extrapolated
    assert named in forecast.why
    assert not priced(forecast)
    assert why_not_priced(forecast).startswith("probe at size needed: extrapolated")
    inside = model.forecast(Configuration(4, 16, 16))
    assert why_not_priced(inside) == ""
    width, narrow = (math.log(f.upper_s / f.lower_s) for f in (forecast, inside))
    assert width > 1.5 * narrow


def test_the_farther_outside_the_wider():
    model = fit(sampled(spread=0.05))
    asked = [Configuration(4, replicas, 16) for replicas in (16, 32, 64, 256)]
    widths = [f.upper_s / f.lower_s for f in model.forecasts(asked)]
    assert widths == sorted(widths)


def test_a_probe_at_size_narrows_the_band_and_is_believed():
    seen = [one for one in sampled(spread=0.03) if one.replicas <= 4]
    slow = 3.0 * true_step(4, 16, 32)
    asked = Configuration(4, 16, 32)
    before = fit(seen).forecast(asked)
    after = fit([*seen, Sample(4, 16, 32, 0, slow)]).forecast(asked)
    assert before.extrapolated
    assert not after.extrapolated
    assert after.upper_s / after.lower_s < before.upper_s / before.lower_s
    assert abs(math.log(after.step_s / slow)) < 0.5 * abs(math.log(before.step_s / slow))


def test_order_and_batches_of_samples_change_nothing():
    seen = sampled(spread=0.1, repeats=3)
    shuffled = [seen[place] for place in np.random.default_rng(1).permutation(len(seen))]
    one, other = fit(seen), fit(shuffled)
    assert document({("c", "p"): one}) == document({("c", "p"): other})
    merged = tally.merge(tally.gather(seen[:40]), tally.gather(seen[40:]))
    assert tally.document(merged) == tally.document(one.tally)


def test_a_refit_is_close_to_a_fit_of_everything():
    seen = sampled(spread=0.05, repeats=3)
    asked = [Configuration(2, 6, 24), Configuration(4, 12, 40)]
    step = refit(fit(seen[: len(seen) // 2 * 2 - 6]), seen[-6:])
    whole = fit([*seen[: len(seen) // 2 * 2 - 6], *seen[-6:]])
    assert tally.document(step.tally) == tally.document(whole.tally)
    for one, other in zip(step.forecasts(asked), whole.forecasts(asked), strict=True):
        assert one.step_s == pytest.approx(other.step_s, rel=0.01)


def test_a_refit_with_a_new_number_of_nodes_learns_its_factor():
    model = refit(fit(sampled(spread=0.02)), [Sample(8, 16, 16, 0, 1.0)])
    assert model.node_counts == (2, 4, 8)
    assert not model.forecast(Configuration(8, 16, 16)).extrapolated


def test_a_model_survives_json():
    models = {("a", ""): fit(sampled(spread=0.05)), ("b", "X.H"): fit(sampled(waits=False))}
    again = read(document(models))
    asked = [Configuration(2, 6, 24), Configuration(9, 32, 500)]
    for key, model in models.items():
        assert again[key].forecasts(asked) == model.forecasts(asked)
    more = refit(again["a", ""], sampled(seed=4))
    assert more.tally.samples == 2 * models["a", ""].tally.samples


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"step_s": math.nan}, "step_time_s is nan"),
        ({"step_s": 0.0}, "step_time_s is 0"),
        ({"step_s": -1.0}, "step_time_s is -1"),
        ({"step_s": math.inf}, "step_time_s is inf"),
        ({"sync_s": math.nan}, "sync_time_s is nan"),
        ({"sync_s": -0.1}, "sync_time_s is -0.1"),
        ({"sync_s": 9.0}, "sync_time_s 9 is not below step_time_s"),
        ({"nodes": 0}, "nodes is 0"),
        ({"replicas": 1, "nodes": 2}, "1 replicas cannot stand on 2 nodes"),
        ({"local_batch": 0}, "local_bsz is 0"),
        ({"accumulation": -1}, "accum_steps is -1"),
    ],
)
def test_a_useless_sample_is_named(change, sentence):
    seen = sampled()
    with pytest.raises(BadSamples) as refused:
        fit([*seen, replace(seen[0], **change)])
    assert refused.value.problems[0].startswith(f"sample {len(seen) + 1}: ")
    assert sentence in refused.value.problems[0]


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        ([], "there is no sample"),
        ([Sample(1, 1, 8, 0, 0.1)], "1 sample of one configuration only (1 nodes, 1 replicas"),
        ([Sample(1, 2, 8, 0, 0.1)] * 50, "50 samples of one configuration only"),
    ],
)
def test_too_little_is_a_sentence(seen, sentence):
    with pytest.raises(BadSamples, match=sentence.replace("(", r"\(")):
        fit(seen)


def test_equal_times_everywhere_give_that_time():
    model = fit([Sample(1, size, batch, 0, 0.25) for size in (1, 2, 4) for batch in (8, 64)])
    forecast = model.forecast(Configuration(1, 3, 16))
    assert forecast.lower_s < 0.25 < forecast.upper_s
    assert forecast.step_s == pytest.approx(0.25, rel=0.1)


def test_what_cannot_be_run_is_not_foretold():
    with pytest.raises(BadSamples, match="2 replicas cannot stand on 4 nodes"):
        fit(sampled()).forecast(Configuration(4, 2, 8))


def test_many_samples_take_a_bounded_table_whatever_their_order():
    rng = np.random.default_rng(0)
    columns = np.column_stack(
        [
            *(np.full(200_000, 2.0), np.full(200_000, 4.0), rng.uniform(1, 1e4, 200_000)),
            *(np.zeros(200_000), rng.uniform(0.1, 1.0, 200_000), np.full(200_000, np.nan)),
        ]
    )
    whole = tally.gather_columns(columns)
    parts = [tally.gather_columns(part) for part in np.array_split(columns[::-1], 7)]
    merged = parts[0]
    for part in parts[1:]:
        merged = tally.merge(merged, part)
    assert len(whole.keys) <= tally.CELLS
    assert tally.document(merged) == tally.document(whole)
    assert whole.samples == 200_000


steps = st.builds(
    lambda nodes, more, batch, milli: Sample(nodes, nodes + more, batch, 0, milli / 1000),
    st.integers(1, 40),
    st.integers(0, 200),
    st.integers(1, 100_000),
    st.integers(1, 10_000_000),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(steps, min_size=2, max_size=12))
def test_any_samples_give_finite_ordered_forecasts_or_a_sentence(seen):
    if len({one.configuration for one in seen}) == 1:
        with pytest.raises(BadSamples, match="of one configuration only"):
            fit(seen)
        return
    model = fit(seen)
    asked = [seen[0].configuration, Configuration(50, 5000, 3), Configuration(1, 1, 1e6)]
    for forecast in model.forecasts(asked):
        values = (forecast.lower_s, forecast.step_s, forecast.upper_s)
        assert all(math.isfinite(value) and value > 0 for value in values)
        assert values[0] < values[1] < values[2]


def test_cells_left_out_are_foretold_as_by_a_fit_without_them():
    cells = tally.cells(tally.gather(sampled(spread=0.1, seed=2)))
    aim = target(cells, np.ones(len(cells.count)), PLAIN)
    theta = fit(sampled(spread=0.1, seed=2)).theta
    at = aim.times(np.array(theta))
    places = residuals.Places(cells.nodes, np.log(cells.replicas), np.log(cells.batch))
    noise = np.full(len(cells.count), 0.01)
    off = cells.log_step - at.log_step
    kernel = residuals.covariance(places, places)
    process = residuals.condition(places, kernel, off, noise, at.step_gradient, aim.rows)
    inverse = residuals.inverse_covariance(process)
    prior = np.linalg.inv(aim.rows.T @ aim.rows)
    slope = at.step_gradient
    cover = kernel + np.diag(noise) + slope @ prior @ slope.T
    for groups in (np.arange(len(off)) % 5.0, np.arange(len(off)) * 1.0):
        error, variance = residuals.left_out(inverse, off, groups)
        for group in np.unique(groups):
            out, kept = groups == group, groups != group
            pull = np.linalg.solve(cover[np.ix_(kept, kept)], cover[np.ix_(kept, out)])
            np.testing.assert_allclose(error[out], off[out] - pull.T @ off[kept], atol=1e-8)
            spread = cover[np.ix_(out, out)] - cover[np.ix_(out, kept)] @ pull
            np.testing.assert_allclose(variance[out], np.diag(spread), rtol=1e-6)


def test_a_pool_tells_a_class_that_never_left_one_node():
    tallies = {
        (name, "X"): tally.gather(sampled(spread=0.03, seed=seed))
        for seed, name in enumerate(("a", "b", "c"))
    }
    alone = sampled([(1, 1), (1, 2), (1, 4)], spread=0.03, seed=9)
    tallies["new", "X"] = tally.gather(alone)
    model = fit_all(tallies).models["new", "X"]
    assert model.prior.factors
    assert fit(alone).prior == PLAIN
    assert model.forecast(Configuration(2, 4, 16)).extrapolated
    prior = pool_prior(
        [one.fitted() for key, one in fit_all(tallies).models.items() if key[0] != "new"]
    )
    assert prior.overlap[1] < PLAIN.overlap[1]


def test_all_reduce_costs():
    assert ring(1e9, 1, 100, 0.0) == tree(1e9, 1, 100, 0.0) == 0.0
    assert ring(1e9, 4, 100, 0.0) == pytest.approx(2 * 0.75 * 0.08)
    assert tree(1e9, 4, 100, 1e-3) == pytest.approx(2 * 0.08 + 4e-3)
    links = Links(intra_gbit_s=1000, inter_gbit_s=100)
    one, two = (all_reduce(1e9, Configuration(n, 4, 1), links) for n in (1, 2))
    assert two > 5 * one
    prior = prior_of_links(1e9, links)
    assert math.exp(prior.node_s[0]) == pytest.approx(0.08, rel=0.01)


def test_links_and_gradients_that_are_none_are_sentences():
    for speeds, sentence in (
        ((0, 100), "intra_gbit_s is 0"),
        ((100, -1), "inter_gbit_s is -1"),
        ((100, math.nan), "inter_gbit_s is nan"),
        ((100, 100, -1.0), "latency_s is -1"),
    ):
        with pytest.raises(BadSamples, match=sentence):
            Links(*speeds)
    for size in (0.0, math.nan, math.inf, -1.0):
        with pytest.raises(BadSamples, match="a gradient of"):
            prior_of_links(size, Links(100, 100))


def test_links_are_a_prior_where_nothing_was_measured():
    seen = [Sample(1, 1, batch, 0, 0.02 + 0.002 * batch) for batch in BATCHES]
    slow, fast = (
        fit(seen, prior_of_links(1e9, Links(100, gbit))).forecast(Configuration(2, 2, 16)).step_s
        for gbit in (1, 100)
    )
    assert slow > 8.0
    assert fast < 0.3


def test_spreading_over_nodes_has_its_price():
    model = fit(sampled(spread=0.02))
    found = penalties(model, replicas=4, local_batch=8, gpus_per_node=4, most_nodes=4)
    assert [row.nodes for row in found] == [1, 2, 3, 4]
    assert found[0].penalty == 1.0
    expected = true_step(2, 4, 8) / true_step(1, 4, 8)
    assert found[1].penalty == pytest.approx(expected, rel=0.1)
    assert one_node_penalty(model, 4, 8, 2) == pytest.approx(found[1].penalty)
    with pytest.raises(BadSamples, match="40 replicas do not fit 4 nodes of 4 GPUs"):
        penalties(model, replicas=40, local_batch=8, gpus_per_node=4, most_nodes=4)


def test_the_power_of_the_growth_is_a_belief():
    seen = [one for one in sampled() if one.replicas <= 4]
    asked = Configuration(4, 64, 8)
    flat, steep = (
        fit(seen, NetworkPrior(power=power)).forecast(asked).step_s for power in (1.0, 0.0)
    )
    assert flat < steep
