"""Completion of a matrix of speeds: exact on what has structure, honest on what has none."""

import math

import numpy as np
import pytest

from federation.affinity.coldstart.completion import Cell, complete
from federation.affinity.coldstart.kinship import Kind, near_size, same_family

POOLS = ("k80", "p100", "v100", "a100")


def table(rates, families=None):
    """Cells of a (classes, pools) array of rates; every class a family of its own by default."""
    kinds = {
        f"c{row}": Kind(families[row] if families else f"family {row}") for row in range(len(rates))
    }
    cells = [
        Cell(f"c{row}", POOLS[column], float(rate))
        for row, line in enumerate(rates)
        for column, rate in enumerate(line)
        if not math.isnan(rate)
    ]
    return cells, kinds


def test_one_factor_is_found_to_the_noise():
    rates = np.outer([1, 2, 5, 9, 20, 33], [1, 3, 5, 11])
    shown = rates.astype(float)
    for row, column in ((0, 3), (2, 0), (3, 1), (5, 2)):
        shown[row, column] = np.nan
    known = complete(*table(shown))
    for row, column in ((0, 3), (2, 0), (3, 1), (5, 2)):
        prior = known.prior(f"c{row}", POOLS[column])
        assert prior.rate == pytest.approx(rates[row, column], rel=0.03)
        assert prior.source == "neighbours"
        low, high = prior.interval()
        assert low < rates[row, column] < high


def rank_one(seed, classes=24, pools=12):
    drawn = np.random.default_rng(seed)
    level = drawn.normal(0, 1, (classes, 1)) + drawn.normal(0, 1, (1, pools))
    beyond = np.outer(drawn.normal(0, 0.7, classes), drawn.normal(0, 1, pools))
    return level + beyond + drawn.normal(0, 0.02, (classes, pools))


def test_a_low_rank_is_found_and_pays():
    logs = rank_one(3)
    drawn = np.random.default_rng(4)
    shown = drawn.random(logs.shape) < 0.6
    cells = [
        Cell(f"c{row}", f"p{column}", math.exp(logs[row, column]))
        for row, column in zip(*np.nonzero(shown), strict=True)
    ]
    kinds = {f"c{row}": Kind(f"family {row}") for row in range(len(logs))}
    hidden = [(f"c{row}", f"p{column}") for row, column in zip(*np.nonzero(~shown), strict=True)]
    truth = logs[~shown]
    known, plain = complete(cells, kinds), complete(cells, kinds, ranks=(0,))
    assert known.rank >= 1
    assert known.errors[known.rank] == min(known.errors.values())
    gaps = [
        np.abs(np.array([p.log_mean for p in model.priors(hidden)]) - truth)
        for model in (known, plain)
    ]
    assert np.median(gaps[0]) < np.median(gaps[1]) / 2
    spread = np.array([p.log_sd for p in known.priors(hidden)])
    assert np.mean(gaps[0] < 1.645 * spread) > 0.8


def test_kin_tell_what_a_pool_does_to_a_family():
    families = ["vision"] * 4 + ["speech"] * 4
    rates = np.array([[1, 2, 4, 8]] * 4 + [[1, 2, 1, 1]] * 4) * np.arange(1.0, 9)[:, None]
    shown = rates.copy()
    shown[0, 1:] = np.nan
    shown[4, 1:] = np.nan
    known = complete(*table(shown, families))
    assert known.prior("c0", "a100").rate == pytest.approx(8, rel=0.25)
    assert known.prior("c4", "a100").rate == pytest.approx(5, rel=0.25)


def test_the_order_of_the_cells_does_not_matter():
    cells, kinds = table(np.exp(rank_one(1, 6, 4)))
    one = complete(cells[1:], kinds).prior("c0", "k80")
    other = complete(cells[:0:-1], dict(reversed(kinds.items()))).prior("c0", "k80")
    assert one == other


def test_a_class_with_one_sample_gets_a_wide_band():
    cells, kinds = table([[3.0]])
    prior = complete(cells, kinds).prior("c0", "k80")
    low, high = prior.interval()
    assert high > 3 * low
    assert prior.n == 1


def test_equal_cells_stay_equal():
    known = complete(*table([[2.0, 2.0, 2.0], [2.0, 2.0, math.nan], [2.0, math.nan, 2.0]]))
    assert known.prior("c1", "v100").rate == pytest.approx(2)
    assert known.prior("c2", "p100").rate == pytest.approx(2)


def test_nothing_is_said_of_what_nothing_is_known_of():
    cells, kinds = table([[1.0, 2.0], [2.0, 4.0]])
    known = complete(cells, kinds | {"new": Kind("another family"), "kin": Kind("family 0")})
    assert known.prior("new", "k80") is None
    assert known.prior("nobody", "k80") is None
    assert known.prior("c0", "b200") is None
    seen, unseen = known.prior("c0", "k80"), known.prior("kin", "k80")
    assert unseen.log_sd > seen.log_sd
    assert known.priors([("c0", "b200"), ("c0", "k80")]) == [None, seen]


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="a rate is a positive, finite number"):
        Cell("c0", "k80", rate)


def test_an_empty_table_and_a_stranger_are_refused():
    with pytest.raises(ValueError, match="No class was measured"):
        complete([], {})
    with pytest.raises(ValueError, match="Nothing says what kind of class x is"):
        complete([Cell("x", "k80", 1.0)], {})
    with pytest.raises(ValueError, match="at least one"):
        Kind("vision", gpus=0)
    with pytest.raises(ValueError, match="log2 of what"):
        Kind("vision", size=math.nan)


def test_a_table_larger_than_one_prediction_takes(monkeypatch):
    monkeypatch.setattr("federation.affinity.coldstart.completion.LARGEST", 40)
    monkeypatch.setattr("federation.affinity.coldstart.completion.LEARNT_FROM", 30)
    rates = np.outer(np.arange(1.0, 31), [1, 2, 4, 8])
    rates[7, 3] = np.nan
    families = [f"family {row % 3}" for row in range(30)]
    known = complete(*table(rates, families))
    assert known.prior("c7", "a100").rate == pytest.approx(64, rel=0.1)
    assert all(len(effects.items) < 80 for effects in known.effects.values())


def test_kinship_is_a_covariance():
    kinds = [Kind("a", 3.0), Kind("a", 5.0), Kind("a"), Kind("b", 3.0), Kind("b", 3.0, 8)]
    near = near_size(kinds, kinds)
    assert np.linalg.eigvalsh(near).min() > -1e-12
    assert near[0, 1] == pytest.approx(math.exp(-2 / 4))
    assert near[0, 2] == pytest.approx(math.exp(-1 / 4))
    assert near[0, 3] == 0
    np.testing.assert_array_equal(same_family(kinds, kinds), near > 0)
