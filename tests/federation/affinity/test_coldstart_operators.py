"""Regression on operators, and where to run what never ran."""

import itertools
import math

import numpy as np
import pytest

from bench.coldstart import operators
from bench.synthetic_nets import DEVICES, networks, profile, truth
from federation.affinity.coldstart.operators import (
    Exchange,
    Network,
    Operator,
    Timing,
    Unpredictable,
    fit_operators,
)
from federation.affinity.coldstart.recommending import (
    NothingFits,
    Option,
    Run,
    cheapest_by,
    fastest_within,
    options,
)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unseen_networks_and_the_cheapest_configuration(seed):
    told = operators(seed)
    assert told["operators_error"] <= 0.06
    assert told["operators_right"] >= 0.90


def test_without_noise_the_coefficients_are_found():
    true, nets = truth(5), networks(5, 10)
    model = fit_operators(*profile(true, nets[:8], 5, noise=0.0))
    for net, device in itertools.product(nets[8:], DEVICES):
        compute = [o for o in net.operators if o.on_cpu or o.kind in model.devices[device].heavy]
        for operator in compute:
            told = model.devices[device].seconds(operator)
            assert told == pytest.approx(true.operator(device, operator), rel=1e-6)


def test_the_quadratic_operator_is_told_from_the_linear_ones():
    model = fit_operators(*profile(truth(0), networks(0, 8), 0))
    degrees = {
        kind: [len(model.devices[device].heavy[kind]) - 1 for device in DEVICES]
        for kind in ("ConvFilterGrad", "Conv2D", "MatMul", "Relu")
    }
    assert min(degrees["ConvFilterGrad"]) == 2
    assert sum(map(sum, degrees.values())) < 2 * 4 * len(DEVICES)


def test_the_band_holds_unseen_networks():
    held = []
    for seed in range(4):
        true, nets = truth(seed), networks(seed, 12)
        model = fit_operators(*profile(true, nets[:8], seed))
        for net, device in itertools.product(nets[8:], DEVICES):
            low, high = model.prior(net, device, 4, 32.0).interval()
            held.append(low <= 128 / true.step(net, device, 4) <= high)
    assert np.mean(held) >= 0.9


@pytest.fixture(scope="module")
def model():
    return fit_operators(*profile(truth(0), networks(0, 8), 0))


def test_what_was_never_timed_is_said(model):
    net = networks(0, 9)[8]
    odd = Network("odd", (*net.operators, Operator("Conv3D", 1e6)), 1e7)
    with pytest.raises(Unpredictable, match="Conv3D was never timed here"):
        model.seconds(odd, "V100", 1)
    with pytest.raises(Unpredictable, match="No operator was ever timed on B200"):
        model.seconds(net, "B200", 1)
    with pytest.raises(Unpredictable, match="Communication of 64 V100 was never timed"):
        model.seconds(net, "V100", 64)
    assert model.prior(odd, "V100", 1, 32.0) is None
    assert model.prior(net, "V100", 2, 32.0).source == "operators"


def test_too_little_to_learn_from_is_said():
    timings, exchanges = profile(truth(0), networks(0, 2), 0)
    with pytest.raises(Unpredictable, match="2 networks were profiled: at least 3"):
        fit_operators(timings, exchanges)
    timings, _ = profile(truth(0), networks(0, 4), 0)
    same = [Exchange(f"net{n}", "V100", 2, 1e7, 0.01) for n in range(4)]
    with pytest.raises(Unpredictable, match="timed for one model size"):
        fit_operators(timings, same)
    apart = [Timing(f"n{n}", "V100", Operator(f"kind {n}", 1.0), 1.0) for n in range(4)]
    with pytest.raises(Unpredictable, match="nothing can be checked"):
        fit_operators(apart, [])


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match="a time is a positive, finite number"):
        Timing("net", "V100", Operator("MatMul", 1.0), seconds)
    with pytest.raises(ValueError, match="a time is a positive, finite number"):
        Exchange("net", "V100", 2, 1e6, seconds)


@pytest.mark.parametrize("value", [0.0, -1e6, math.nan, math.inf])
def test_what_describes_no_network_is_a_sentence(model, value):
    fine = Network("net", (Operator("MatMul", 1e6),), 1e6)
    for wrong, sentence in (
        (lambda: Network("net", (), 1e6), "net has no operators: send at least one"),
        (lambda: Network("net", fine.operators, value), "The number of parameters of net is"),
        (lambda: Network("net", fine.operators, 1e6, -1.0), "The memory of net is -1.0 GB"),
        (lambda: Exchange("net", "V100", 2, value, 0.1), "The number of parameters of the comm"),
        (lambda: Exchange("net", "V100", 0, 1e6, 0.1), "at least one GPU is needed"),
        (lambda: Run(fine, value, 32.0), "The samples of net is"),
        (lambda: Run(fine, 1e6, value), "The batch of net is"),
        (lambda: model.prior(fine, "V100", 1, value), "The batch of net is"),
    ):
        with pytest.raises(ValueError, match=sentence):
            wrong()
    with pytest.raises(NothingFits, match="The deadline is no number"):
        cheapest_by(OFFERED, math.nan)


def test_an_operator_larger_than_any_timed_is_marked_and_wider(model):
    kind = sorted(model.devices["V100"].heavy)[0]
    greatest = model.devices["V100"].known[kind]
    inside, one, far = (
        model.prior(Network("n", (Operator(kind, size),), 1e7), "V100", 1, 32.0)
        for size in (greatest, 2 * greatest, 1e6 * greatest)
    )
    assert (inside.extrapolated, one.extrapolated, far.extrapolated) == (False, True, True)
    assert inside.log_sd < one.log_sd < far.log_sd
    assert far.log_sd > 5.0  # twenty doublings: nothing is known


def test_equal_samples_give_their_time():
    timings = [
        Timing(f"n{n}", "V100", Operator("MatMul", 1e6), 0.01) for n in range(3) for _ in range(4)
    ]
    model = fit_operators(timings, [])
    net = Network("new", (Operator("MatMul", 1e6),) * 2, 1e6)
    assert model.seconds(net, "V100", 1) == pytest.approx(0.02)


OFFERED = [
    Option("K80", 1, 9000.0, 2.0),
    Option("V100", 1, 3600.0, 3.0),
    Option("V100", 4, 1000.0, 3.5),
]


def test_cheapest_by_a_deadline_and_fastest_within_a_budget():
    assert cheapest_by(OFFERED, 1e4).device == "K80"
    assert cheapest_by(OFFERED, 3600.0).gpus == 1
    assert cheapest_by(OFFERED, 1500.0).gpus == 4
    assert fastest_within(OFFERED, total=3.2).seconds == 3600.0
    assert fastest_within(OFFERED, per_hour=1.0).device == "K80"
    assert fastest_within(OFFERED).gpus == 4
    with pytest.raises(NothingFits, match="the fastest takes 1000 s"):
        cheapest_by(OFFERED, 10.0)
    with pytest.raises(NothingFits, match="the least is"):
        fastest_within(OFFERED, total=1.0)


def test_every_choice_is_the_best_by_enumeration():
    drawn = np.random.default_rng(0)
    for _ in range(200):
        offered = [
            Option(f"d{n}", 1, float(s), float(c))
            for n, (s, c) in enumerate(drawn.integers(1, 9, (5, 2)))
        ]
        deadline = float(drawn.integers(1, 9))
        in_time = [one.credits for one in offered if one.seconds <= deadline]
        if in_time:
            assert cheapest_by(offered, deadline).credits == min(in_time)
        else:
            with pytest.raises(NothingFits):
                cheapest_by(offered, deadline)


def test_memory_and_missing_prices_are_said(model):
    net = networks(0, 9)[8]
    big = Run(Network("big", net.operators, net.parameters, memory=20.0), 1000.0, 10.0)
    found = options(model, big, {("V100", 2): 6.0, ("K80", 1): 1.0}, {"V100": 32.0, "K80": 12.0})
    assert [(one.device, one.gpus) for one in found] == [("V100", 2)]
    step = model.seconds(big.network, "V100", 2)
    assert found[0].seconds == pytest.approx(50 * step)
    assert found[0].per_hour == pytest.approx(6.0)
    with pytest.raises(NothingFits, match="20 GB are needed and K80 has 12"):
        options(model, big, {("K80", 1): 1.0}, {"K80": 12.0})
    with pytest.raises(NothingFits, match="no configuration has a price"):
        options(model, big, {})
