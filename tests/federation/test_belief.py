"""What is planned on, when an alarm is due and what a record is worth: the pure rules."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from statistics import NormalDist, mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.affinity.alarms import (
    cusum,
    deviations,
    forged,
    non_start_share,
    slow_in_a_row,
    trimmed,
)
from federation.affinity.belief import (
    COMMON,
    SETTLED_IN,
    UNCONFIRMED,
    UNSEEN,
    caution,
    claims_spread,
    observed,
    planned,
    with_claim,
)
from federation.affinity.believed import believe
from federation.affinity.coldstart.blend import Prior
from federation.affinity.reputation import bond_rate, pinball, score

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
speeds = st.floats(1e-3, 1e9)
spreads = st.floats(0.0, 1.0)


@given(speeds, speeds, spreads, st.integers(1, 20))
def test_the_posterior_mean_is_the_blend(claim, measured, log_sd, leases):
    belief = observed(measured=measured, log_sd=log_sd, leases=leases)
    blend = believe(declared=claim, measured=measured, leases=leases)
    assert with_claim(belief, claim).speed() == pytest.approx(blend.samples_per_s)


def test_the_posterior_is_that_of_the_textbook():
    """The conjugate update one observation at a time gives the same as all at once."""
    claim, seen = math.log(900.0), [math.log(x) for x in (700.0, 760.0, 640.0, 820.0)]
    weight, centre, count, squares = 2.0, claim, 2.0, 2.0 * 0.1**2
    for x in seen:
        squares += weight / (weight + 1) * (x - centre) ** 2
        centre = (weight * centre + x) / (weight + 1)
        weight, count = weight + 1, count + 1
    belief = observed(measured=math.exp(mean(seen)), log_sd=stdev(seen), leases=len(seen))
    joint = with_claim(belief, 900.0)
    assert joint.mean_log == pytest.approx(centre)
    assert joint.noise_log == pytest.approx(math.sqrt(squares / count))
    assert joint.sd_log == pytest.approx(math.sqrt(squares / count / weight + COMMON**2))


def test_a_claim_that_nothing_was_measured_of_is_planned_on_as_it_stands():
    cell = planned(declared=1000.0, belief=None, contracts=0, source="probed", known_at=NOW)
    assert (cell.samples_per_s, cell.source, cell.leases) == (1000.0, "probed", 0)
    assert (cell.measured, cell.known_at, cell.priced) == (None, NOW, True)
    assert math.log(cell.high / cell.low) == pytest.approx(2 * 1.6449 * UNSEEN, rel=1e-4)
    assert planned(declared=None, belief=None, contracts=0) is None


def test_a_claim_is_as_uncertain_as_claims_were():
    assert claims_spread([0.3] * 19) == UNSEEN  # too few to say
    assert claims_spread([-0.3] * 10 + [0.1] * 10) == pytest.approx(math.sqrt(0.05))
    assert claims_spread([0.0] * 40) == COMMON
    near = planned(declared=1000.0, belief=None, contracts=0, unseen=0.05)
    assert near.high < planned(declared=1000.0, belief=None, contracts=0).high


def test_what_a_prior_alone_says_is_shown_with_all_it_knows_and_not_priced_on():
    prior = Prior(math.log(700.0), 0.3, "neighbours", 41)
    cell = planned(declared=None, belief=None, contracts=0, prior=prior, known_at=NOW)
    assert cell.samples_per_s == pytest.approx(700.0)
    assert (cell.source, cell.leases, cell.known_at) == ("neighbours", 41, NOW)
    assert (cell.low, cell.high) == pytest.approx(prior.interval())
    assert not cell.priced
    assert not cell.times(4).priced


@pytest.mark.parametrize(
    ("spread", "leases", "source"), [(0.3, 1, "measured"), (0.06, 1, "roofline")]
)
def test_leases_that_nobody_claimed_are_planned_on_and_shown_weighed_with_the_prior(
    spread, leases, source
):
    belief = observed(measured=1000.0, log_sd=0.0, leases=leases)
    prior = Prior(math.log(700.0), spread, "roofline", 7)
    cell = planned(declared=None, belief=belief, contracts=0, prior=prior)
    shares = [belief.sd_log**-2, spread**-2]
    log = (shares[0] * math.log(1000) + shares[1] * math.log(700)) / sum(shares)
    assert cell.samples_per_s == pytest.approx(1000.0)
    assert cell.with_prior == pytest.approx(math.exp(log))
    assert cell.low < cell.with_prior < cell.high
    assert cell.times(3).with_prior == pytest.approx(3 * math.exp(log))
    assert (cell.source, cell.leases, cell.priced) == (source, leases, True)
    assert cell.measured == pytest.approx(1000.0)


def test_a_claim_stands_before_any_prior():
    prior = Prior(math.log(700.0), 0.05, "roofline", 7)
    for belief in (None, observed(measured=900.0, log_sd=0.0, leases=3)):
        told = {"declared": 950.0, "belief": belief, "contracts": 3}
        assert planned(**told, prior=prior) == planned(**told)


def test_a_speed_that_nobody_claimed_is_planned_on_at_its_mean():
    belief = observed(measured=990.0, log_sd=0.0, leases=1)
    cell = planned(declared=None, belief=belief, contracts=0)
    assert (cell.samples_per_s, cell.source) == (pytest.approx(990.0), "measured")
    assert cell.low < 990.0 < cell.high


def test_a_newcomer_is_planned_on_with_its_20_percent_quantile_and_the_mean_comes_with_contracts():
    belief = observed(measured=950.0, log_sd=0.1, leases=6)
    joint = with_claim(belief, 1000.0)
    told = [planned(declared=1000.0, belief=belief, contracts=n).samples_per_s for n in range(25)]
    law = NormalDist(joint.mean_log, joint.sd_log)
    assert told[0] == pytest.approx(math.exp(law.inv_cdf(0.2)))
    assert told[10] == pytest.approx(math.exp(law.inv_cdf(0.35)))
    assert told[SETTLED_IN:] == pytest.approx([joint.speed()] * 5)
    assert told == sorted(told)
    assert caution(10**9) == 0.0


@given(speeds, st.floats(1.3, 20.0), st.integers(3, 20))
def test_a_claim_far_above_what_many_leases_showed_is_not_planned_on(measured, factor, leases):
    belief = observed(measured=measured, log_sd=0.05, leases=leases)
    cell = planned(declared=measured * factor * 1.2, belief=belief, contracts=99)
    assert cell.source == UNCONFIRMED
    assert cell.samples_per_s == pytest.approx(measured)


@given(speeds, st.floats(0.05, 1.05), st.integers(1, 20), spreads)
def test_a_claim_that_was_about_reached_is_never_held_back(measured, factor, leases, log_sd):
    belief = observed(measured=measured, log_sd=log_sd, leases=leases)
    cell = planned(declared=measured * factor, belief=belief, contracts=99)
    assert cell.source == "blended"


def test_one_slow_lease_does_not_decide_but_a_claim_raised_after_it_is_set_aside():
    belief = observed(measured=1000.0, log_sd=0.0, leases=1)
    assert planned(declared=2000.0, belief=belief, contracts=0).samples_per_s > 1300
    held = planned(declared=2000.0, belief=belief, contracts=0, unconfirmed=True)
    assert (held.source, held.samples_per_s) == (UNCONFIRMED, pytest.approx(1000.0))


def test_a_gang_is_taken_as_so_many_times_as_fast_with_its_interval():
    belief = observed(measured=100.0, log_sd=0.0, leases=3)
    one = planned(declared=110.0, belief=belief, contracts=0)
    four = one.times(4)
    assert four.low == pytest.approx(4 * one.low)
    assert (four.declared, four.leases, four.source) == (440.0, 3, "blended")


# alarms


def drawn(mean_log, count, seed, spread=0.05):
    draw = random.Random(seed)
    return [draw.gauss(mean_log, spread) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_honest_noise_raises_no_alarm_and_a_lasting_shift_does(seed):
    honest = drawn(0.0, 40, seed)
    assert cusum(deviations(honest)) is None
    slower = cusum(deviations(honest + drawn(math.log(0.8), 10, seed + 99)))
    assert slower is not None
    assert not slower.faster
    assert cusum(deviations(drawn(math.log(1.25), 20, seed))).faster


def test_a_site_that_mended_is_clear_again_after_some_contracts_as_claimed():
    logs = [-0.3] * 30
    assert cusum(deviations(logs)) is not None
    assert cusum(deviations(logs + [0.0] * 10)) is None


def test_a_season_of_the_whole_class_is_no_drift_of_one_site():
    slow = drawn(-0.3, 20, 1)
    everybody = [-0.31, -0.28, -0.33]
    assert cusum(deviations(slow)) is not None
    assert cusum(deviations(slow, everybody)) is None
    assert cusum(deviations(slow, everybody[:2])) is not None  # two others are no season


def test_ten_slow_contracts_in_a_row_are_told_and_nine_are_not():
    slow = math.log(0.89)
    assert slow_in_a_row([0.0] + [slow] * 10)
    assert not slow_in_a_row([slow] * 9)
    assert not slow_in_a_row([slow] * 9 + [math.log(0.91)])
    assert not slow_in_a_row([])


@pytest.mark.parametrize(
    ("leases", "broken", "share"), [(0, 0, 0.0), (10, 2, 0.0), (10, 3, 0.3), (4, 4, 1.0)]
)
def test_the_first_leases_that_do_not_start_say_nothing(leases, broken, share):
    assert non_start_share(leases=leases, non_starts=broken) == share


@given(st.integers(0, 1000), st.floats(0.0, 1.0), st.integers(0, 1000))
def test_a_trimmed_pool_keeps_what_is_busy_and_one_gpu(gpus, share, busy):
    kept = trimmed(gpus=gpus, share=share, busy=busy)
    assert min(gpus, max(1, busy)) <= kept <= gpus
    assert kept <= max(busy, 1, gpus * (1 - share))


def test_more_samples_than_the_hardware_can_make_are_a_forgery():
    assert forged(samples=2_100, gpu_seconds=1.0, fastest=1000.0)
    assert not forged(samples=1_900, gpu_seconds=1.0, fastest=1000.0)
    assert forged(samples=1, gpu_seconds=0.0, fastest=1000.0)
    assert not forged(samples=0, gpu_seconds=0.0, fastest=1000.0)


# records


def test_the_loss_is_least_for_who_claims_the_speed_that_nine_contracts_in_ten_reach():
    real = [NormalDist(0.0, 0.1).inv_cdf((at + 0.5) / 2000) for at in range(2000)]
    losses = {claim / 100: mean(pinball(x - claim / 100) for x in real) for claim in range(-40, 41)}
    best = min(losses, key=losses.__getitem__)
    assert best == pytest.approx(NormalDist(0.0, 0.1).inv_cdf(0.1), abs=0.011)
    assert losses[0.2] > 5 * losses[best]  # one that claims more
    assert losses[-0.4] > losses[best]  # and one that claims less


def test_a_score_stays_between_0_and_1_and_falls_with_what_was_not_kept():
    assert score([]) == 0.5
    kept, over = score([0.0] * 50), score([math.log(0.6)] * 50)
    assert 0.9 < kept <= 1.0
    assert 0.0 <= over < 0.1
    assert score([0.0] * 10, non_starts=5) < score([0.0] * 10)
    assert 0.0 <= score([], non_starts=100) < 0.05


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.integers(0, 1_000_000))
def test_the_bond_lies_between_half_and_three_times_the_rate_and_falls_with_the_score(a, b, base):
    low, high = sorted((bond_rate(base, a), bond_rate(base, b)))
    assert base // 2 <= low <= high <= min(1_000_000, 3 * base)
    assert bond_rate(base, max(a, b)) == low
    assert bond_rate(base, 0.5) == base
