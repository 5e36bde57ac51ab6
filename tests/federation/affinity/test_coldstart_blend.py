"""Blending what several sources say."""

import math

import pytest

from federation.affinity.belief import NOISE, Belief
from federation.affinity.coldstart.blend import Prior, blend, blend_known, measured

CATALOGUE = Prior(math.log(100), 0.5, "catalogue", 634)
KIN = Prior(math.log(130), 0.25, "neighbours", 40)


def test_precisions_weigh():
    both = blend([CATALOGUE, KIN])
    assert both.log_mean == pytest.approx((4 * math.log(100) + 16 * math.log(130)) / 20)
    assert both.log_sd == pytest.approx(1 / math.sqrt(20))
    assert (both.source, both.n) == ("neighbours", 40)


def test_one_voice_is_itself():
    assert blend([KIN]).log_mean == pytest.approx(KIN.log_mean)
    assert blend([KIN]).log_sd == pytest.approx(KIN.log_sd)


def test_the_order_does_not_matter():
    third = Prior(math.log(90), 0.25, "catalogue", 1)
    one, other = blend([CATALOGUE, KIN, third]), blend([third, KIN, CATALOGUE])
    assert (one.source, one.n) == (other.source, other.n)
    assert one.log_mean == pytest.approx(other.log_mean, abs=1e-15)


def test_strangers_who_disagree_make_no_certainty():
    far = Prior(math.log(1000), 0.25, "neighbours", 3)
    near = blend([KIN, Prior(KIN.log_mean, 0.25, "catalogue", 3)])
    apart = blend([KIN, far])
    assert near.log_sd == pytest.approx(0.25 / math.sqrt(2))
    assert apart.log_sd == pytest.approx(abs(KIN.log_mean - far.log_mean) / 2)


def test_measurements_take_over():
    weights = []
    for leases in (1, 5, 50):
        belief = Belief(math.log(200), math.hypot(0.1 / math.sqrt(leases), 0.05), leases, 0.1)
        told = blend([KIN, measured(belief)])
        assert (told.source, told.n) == ("measured", leases)
        weights.append(told.rate)
    assert weights == sorted(weights)
    assert weights[-1] == pytest.approx(200, rel=0.03)


def test_interval_holds_ninety_per_cent():
    low, high = KIN.interval()
    assert math.log(high / low) == pytest.approx(2 * 1.6449 * 0.25, rel=1e-4)
    assert math.sqrt(low * high) == pytest.approx(130)


def test_to_and_from_the_markets_belief():
    belief = Belief(math.log(200), 0.07, 4, NOISE)
    assert measured(belief).belief() == belief
    assert KIN.belief().n == 0, "kin are not leases"
    assert KIN.belief().speed() == pytest.approx(130)


def test_nothing_known_is_nothing_said():
    assert blend_known(None, None) is None
    assert blend_known(None, KIN).rate == pytest.approx(130)
    with pytest.raises(ValueError, match="Nothing is known of this speed"):
        blend([])


@pytest.mark.parametrize(
    ("mean", "sd"), [(math.nan, 0.1), (1.0, 0.0), (1.0, math.inf), (1.0, -1.0)]
)
def test_a_prior_is_a_number_and_a_spread(mean, sd):
    with pytest.raises(ValueError, match="finite mean and a positive spread"):
        Prior(mean, sd, "catalogue", 1)
