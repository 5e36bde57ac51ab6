"""Effects with learnt variances: closed forms against doing it the long way."""

import numpy as np
import pytest

from federation.affinity.coldstart.components import condition, learn
from federation.affinity.coldstart.kinship import same

CITIES = [place % 8 for place in range(64)]


def by_city(own, other):
    return same([item[0] for item in own], [item[0] for item in other])


def alike(own, other):
    return np.ones((len(own), len(other)))


def drawn(seed=0, spread=0.8, noise=0.2):
    random = np.random.default_rng(seed)
    of_city = random.normal(0, spread, 8)
    items = [(city, place) for place, city in enumerate(CITIES)]
    return items, of_city[CITIES] + random.normal(0, noise, len(CITIES))


def test_variances_are_found():
    found = [learn([by_city], *drawn(seed)) for seed in range(8)]
    assert np.mean([effects.weights[0] for effects in found]) == pytest.approx(0.64, rel=0.3)
    assert np.mean([effects.noise for effects in found]) == pytest.approx(0.04, rel=0.15)


def test_left_out_equals_leaving_out():
    items, values = drawn()
    effects = learn([by_city], items, values)
    groups = [city for city, _ in items]
    error, deviation = effects.left_out(groups)
    for group in (0, 5):
        kept = [place for place, own in enumerate(groups) if own != group]
        out = [place for place, own in enumerate(groups) if own == group]
        again = condition(effects, [items[p] for p in kept], values[kept])
        means, spreads = again.predict([items[p] for p in out])
        np.testing.assert_allclose(error[out], values[out] - means, atol=1e-9)
        np.testing.assert_allclose(deviation[out], spreads, rtol=1e-9)


def test_an_unseen_effect_falls_back_to_the_mean_and_a_wide_band():
    effects = learn([by_city], *drawn())
    (seen, unseen), (narrow, wide) = effects.predict([(0, 99), (8, 99)])
    assert unseen == pytest.approx(effects.mean)
    assert seen != pytest.approx(effects.mean)
    assert wide == pytest.approx(np.sqrt(effects.weights[0] + effects.noise))
    assert narrow < wide / 2


def test_bands_are_widened_for_groups_and_never_narrowed():
    random = np.random.default_rng(1)
    items = [(place % 6, place) for place in range(60)]
    values = random.standard_t(1.5, 6)[[city for city, _ in items]]
    values = values + 0.05 * random.normal(size=60)
    plain = learn([by_city], items, values)
    widened = learn([by_city], items, values, groups=[city for city, _ in items])
    error, deviation = plain.left_out([city for city, _ in items])
    assert widened.widening >= 1
    assert np.mean(np.abs(error) <= 1.645 * widened.widening * deviation) >= 0.9


def test_many_are_predicted_as_one_by_one():
    items, values = drawn()
    effects = learn([by_city, alike], items, values)
    asked = [(place % 9, place) for place in range(150)]
    means, spreads = effects.predict(asked)
    one = [effects.predict([item]) for item in asked]
    np.testing.assert_allclose(means, [mean[0] for mean, _ in one])
    np.testing.assert_allclose(spreads, [spread[0] for _, spread in one])
    np.testing.assert_allclose(means, effects.means(asked))


def test_nothing_and_no_number_are_refused():
    with pytest.raises(ValueError, match="Nothing was observed"):
        learn([by_city], [], np.array([]))
    with pytest.raises(ValueError, match="not a finite number"):
        learn([by_city], [(0, 0)], np.array([np.nan]))
