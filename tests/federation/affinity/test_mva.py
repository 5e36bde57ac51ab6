"""Queues of a parameter server: the exact mean, the bounds, the event model, two-point profiles."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.throughput import exponential_steps, networks
from federation.affinity.events import Machine, replay
from federation.affinity.mva import Network, bound, rounds_per_s
from federation.affinity.parameter_server import Profile, calibrate, transfer_s
from federation.affinity.samples import BadSamples
from federation.affinity.step_profile import Operation, Resource, StepProfile, chain, layered

times = st.integers(1, 1000).map(lambda value: value / 1000)


def test_one_station_by_hand():
    network = Network(1.0, (1.0,))
    assert rounds_per_s(network, 3) == pytest.approx((0.5, 2 / 2.5, 3 / 3.2))
    assert network.knee == 2.0


@settings(deadline=None)
@given(times, st.lists(times, min_size=1, max_size=4))
def test_rates_rise_and_keep_below_the_bound(delay, demands):
    network = Network(delay, tuple(demands))
    rates = rounds_per_s(network, 40)
    assert rates[0] == pytest.approx(1 / network.round_s)
    for workers, rate in enumerate(rates, 1):
        assert rate <= bound(network, workers) * (1 + 1e-12)
    assert all(b >= a * (1 - 1e-12) for a, b in pairwise(rates))


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("workers", [1, 4, 32])
def test_exponential_stages_take_as_long_as_the_mean_value_says(place, workers):
    network = networks()[place]
    profiles = exponential_steps(network, 5000, seed=place)
    story = replay(
        profiles, Machine(1.0), workers, seed=workers, steps=15_000, warm_up=10 * workers
    )
    assert story.steps_per_s == pytest.approx(rounds_per_s(network, workers)[-1], rel=0.03)


@settings(deadline=None, max_examples=25)
@given(
    delay=st.integers(1, 50).map(lambda v: v / 100),
    slow=st.integers(5, 50).map(lambda v: v / 1000),
    station=st.integers(0, 2),
)
def test_equal_steps_never_pass_the_bound_and_come_close(delay, slow, station):
    demands = [slow / 20] * 3
    demands[station] = slow
    network = Network(delay, tuple(demands))
    down, server, up = demands
    for workers in (1, 3, math.ceil(4 * network.knee)):
        story = replay(
            [chain(down, delay, server, up)],
            Machine(1.0),
            workers,
            seed=0,
            steps=20 * workers + 200,
            warm_up=5 * workers,
        )
        most = bound(network, workers)
        # those who had begun before may end within the window
        assert story.steps <= most * story.seconds * (1 + 1e-9) + workers
        if workers != 3:
            assert story.steps_per_s >= 0.95 * most


def test_the_same_seed_gives_the_same_story():
    profiles = exponential_steps(networks()[0], 50, seed=1)
    one, two, other = (
        replay(profiles, Machine(1.0, window_bytes=0.002), 4, seed=seed) for seed in (1, 1, 2)
    )
    assert one == two != other


def test_a_worker_alone_takes_its_critical_path():
    step = layered([2.0, 2.0], [1.0, 1.0], [3.0, 3.0], [0.5, 0.5])
    # 2 s and 2 s down; forwards end at 3 and 5, backwards at 8 and 11, last gradient up at 13
    story = replay([step], Machine(1.0), 1, seed=0, steps=10, warm_up=1)
    assert 1 / story.steps_per_s == pytest.approx(13.5)
    slower = replay([step], Machine(1.0, worker_bytes_s=0.5), 1, seed=0, steps=10, warm_up=1)
    # down at 4 and 8; forwards to 5 and 9, backwards to 12 and 15, up to 16 and 20
    assert 1 / slower.steps_per_s == pytest.approx(20.5)


def test_streams_by_turns_delay_the_first_layer():
    step = layered([1.0] * 4, [1.0] * 4, [0.0] * 4, [0.0] * 4)
    ordered, turns = (
        replay([step], Machine(1.0, window_bytes=window), 1, seed=0, steps=10, warm_up=1)
        for window in (math.inf, 0.01)
    )
    assert turns.steps_per_s < 0.9 * ordered.steps_per_s


def test_servers_of_their_own_do_not_queue():
    profiles = [chain(0.0, 0.1, 1.0, 0.0)]
    shared, own = (
        replay(profiles, Machine(1.0, one_server=one), 4, seed=0, steps=200).steps_per_s
        for one in (True, False)
    )
    assert shared == pytest.approx(1.0, rel=0.02)
    assert own == pytest.approx(4 / 1.1, rel=0.02)


@settings(deadline=None)
@given(
    delay=st.integers(10, 500).map(lambda v: v / 1000),
    server=st.integers(0, 100).map(lambda v: v / 1000),
)
def test_two_points_give_the_network_back(delay, server):
    transfer = transfer_s(1e8, 40)
    network = Network(delay, (transfer, server, transfer))
    one, two = rounds_per_s(network, 2)
    model = calibrate(Profile(one, two, 32, 1e8, 40))
    truth = rounds_per_s(network, 16)[-1]
    forecast = model.forecast(16)
    assert forecast.samples_per_s == pytest.approx(32 * truth, rel=1e-3)
    assert forecast.extrapolated
    assert forecast.lower_s <= forecast.step_s == forecast.upper_s
    assert not model.forecast(2).extrapolated


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        (Profile(100.0, 150.0, 32, 1e9, 10), "shorter than its two transfers"),
        (Profile(1.0, 0.6, 32, 1e6, 10), "something else slows the second"),
        (Profile(1.0, 2.2, 32, 1e6, 10), "at 2.2 steps/s are faster than twice the 1 of one"),
        (Profile(math.nan, 1.0, 32, 1e6, 10), "above 0"),
        (Profile(1.0, 0.0, 32, 1e6, 10), "above 0"),
    ],
)
def test_contradictions_are_sentences(profile, sentence):
    with pytest.raises(BadSamples, match=sentence):
        calibrate(profile)


def test_nonsense_is_refused():
    for wrong in (
        lambda: Network(-1.0, ()),
        lambda: Network(0.0, (0.0,)),
        lambda: rounds_per_s(Network(1.0, ()), 0),
        lambda: StepProfile(()),
        lambda: StepProfile((Operation(Resource.GPU, math.nan),)),
        lambda: StepProfile((Operation(Resource.GPU, 1.0, (0,)),)),
        lambda: Machine(0.0),
        lambda: replay([], Machine(1.0), 1, seed=0),
        lambda: replay([chain(0, 0, 0, 0)], Machine(1.0), 1, seed=0),
    ):
        with pytest.raises(BadSamples):
            wrong()
