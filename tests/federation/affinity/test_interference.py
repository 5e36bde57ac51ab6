"""What two jobs on one GPU lose to each other."""

import itertools
import math

import numpy as np
import pytest

from federation.affinity.coldstart.kinship import Kind
from federation.affinity.interference import Pairing, study

KINDS = [Kind(family, size) for family in ("vision", "speech", "tables") for size in (4, 5, 6, 7)]


def table(seed=0, meeting=0.0, noise=0.02, spread=0.3):
    """Rates of every ordered pair from known sensitivities and pressures."""
    drawn = np.random.default_rng(seed)
    sensitivity, pressure = drawn.normal(0, spread, (2, len(KINDS)))
    met = drawn.normal(0, meeting, (3, 3)) if meeting else np.zeros((3, 3))
    found = []
    for a, b in itertools.product(range(len(KINDS)), repeat=2):
        log = -0.7 + sensitivity[a] + pressure[b] + met[a // 4, b // 4] + noise * drawn.normal()
        found.append(Pairing(KINDS[a], KINDS[b], math.exp(log)))
    return found


def halves(pairings, seed=1):
    order = np.random.default_rng(seed).permutation(len(pairings))
    cut = len(order) // 3
    return [pairings[i] for i in order[cut:]], [pairings[i] for i in order[:cut]]


def missed(model, hidden):
    medians, lows = model.rates([(one.own, one.other) for one in hidden])
    true = np.array([one.rate for one in hidden])
    return float(np.abs(np.log(medians / np.minimum(true, 1))).mean()), float((true >= lows).mean())


def test_sensitivity_and_pressure_are_found():
    shown, hidden = halves(table())
    error, above = missed(study(shown, kin=False), hidden)
    assert error < 0.06
    assert above >= 0.85


def test_meetings_of_families_need_kin():
    shown, hidden = halves(table(meeting=0.5))
    with_kin, above = missed(study(shown), hidden)
    without, _ = missed(study(shown, kin=False), hidden)
    assert with_kin < without / 2
    assert above >= 0.85


def test_a_new_size_of_a_known_family_is_told_with_a_wider_band():
    shown = [one for one in table(spread=0.1) if KINDS[1] not in (one.own, one.other)]
    model = study(shown)
    new, seen = model.predict(KINDS[1], KINDS[8]), model.predict(KINDS[0], KINDS[8])
    assert new.low / new.rate < seen.low / seen.rate < 1
    assert new.n > 0


def test_admission_looks_at_the_lower_bound():
    shown, _ = halves(table())
    model = study(shown)
    told = model.predict(KINDS[0], KINDS[5])
    assert told.low < told.rate
    assert model.admits(KINDS[5], KINDS[0], slowdown=1.01 / told.low)
    assert not model.admits(KINDS[5], KINDS[0], slowdown=1 / told.rate)
    surer = model.predict(KINDS[0], KINDS[5], confidence=0.99)
    assert surer.low < told.low
    assert surer.rate == told.rate


def test_what_is_unknown_is_not_admitted():
    model = study([one for one in table() if "tables" not in (one.own.family, one.other.family)])
    strange = Kind("graphs", 4)
    assert model.predict(strange, Kind("more graphs")) is None
    assert not model.admits(Kind("more graphs"), strange, slowdown=100.0)
    assert not model.admits(strange, KINDS[0], slowdown=1e9)  # the host is known, the guest is not
    assert not model.admits(KINDS[0], strange, slowdown=1e9)
    half_known = model.predict(strange, KINDS[0])
    assert half_known.low < model.predict(KINDS[4], KINDS[0]).low


@pytest.mark.parametrize("slowdown", [0, -1, 0.5, math.nan, math.inf])
def test_a_slowdown_that_is_none_is_a_sentence(slowdown):
    with pytest.raises(ValueError, match="it is at least 1"):
        study(table()).admits(KINDS[0], KINDS[5], slowdown=slowdown)


def test_no_rate_exceeds_running_alone():
    pairings = [Pairing(a, b, 1.3) for a in KINDS[:4] for b in KINDS[:4]]
    told = study(pairings).predict(KINDS[0], KINDS[1])
    assert told.rate == 1.0
    assert told.low <= 1.0


def test_equal_rates_stay_equal():
    pairings = [Pairing(a, b, 0.5) for a in KINDS for b in KINDS]
    told = study(pairings).predict(KINDS[0], KINDS[9])
    assert told.rate == pytest.approx(0.5)
    assert 0.45 < told.low < 0.5


def test_the_order_of_the_pairings_does_not_matter():
    shown, _ = halves(table())
    assert study(shown).predict(*KINDS[:2]) == study(shown[::-1]).predict(*KINDS[:2])


@pytest.mark.parametrize("rate", [0.0, math.nan, -0.2, math.inf])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="A pair that does not fit together has none"):
        Pairing(KINDS[0], KINDS[1], rate)


def test_too_few_pairings_are_refused():
    with pytest.raises(ValueError, match="1 pairings were measured on this GPU: at least 3"):
        study(table()[:1])
