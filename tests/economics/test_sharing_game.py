"""Small clouds that share: the exact chain, best replies, cycles, and what taking part is worth."""

import itertools
import json
import math
import random

import numpy as np
import pytest

from bench.sharing_game import HEADER, LOADS, RATIOS, played, table
from economics.incentives.sharing_chain import (
    MOST_STATES,
    BadFederation,
    Cloud,
    TooManyStates,
    states_of,
    use_of,
)
from economics.incentives.sharing_game import (
    Federation,
    Terms,
    best_replies,
    price_sweep,
    sharing_game,
)
from tests.docs.reading import DOCS

PAGE = DOCS / "explanation" / "sharing-and-price.md"

# Shares, savings and efficiency at each price ratio, from the design notes; two clouds of six.
ALONE = {"3,5.5": (0.156, 1.260), "4.5,4.5": (0.694, 0.694), "2,6": (0.024, 1.590)}
KNOWN = {
    "3,5.5": [
        ((0, 0), (0, 0), 0),
        ((2, 0), (0.064, 0.491), 0.65),
        ((6, 2), (0.348, 0.495), 0.99),
        ((6, 6), (0.517, 0.335), 1),
        ((6, 6), (0.676, 0.175), 1),
    ],
    "4.5,4.5": [
        ((0, 0), (0, 0), 0),
        ((0, 0), (0, 0), 0),
        ((4, 4), (0.318, 0.318), 0.99),
        ((6, 6), (0.320, 0.320), 1),
        ((6, 6), (0.320, 0.320), 1),
    ],
    "2,6": [
        ((2, 0), (0.025, 0.762), 0.65),
        ((4, 0), (0.235, 0.873), 0.92),
        ((6, 0), (0.495, 0.659), 0.96),
        ((6, 6), (0.795, 0.408), 1),
        ((6, 6), (1.044, 0.158), 1),
    ],
}
# Three small clouds whose best replies go round for ever.
RESTLESS = (Cloud(3, 1.9), Cloud(3, 2.0), Cloud(2, 2.9))


@pytest.mark.parametrize("loads", LOADS)
def test_the_two_site_table(loads):
    for path, (shares, savings, efficiency) in zip(
        played(loads, 6, RATIOS), KNOWN[loads], strict=True
    ):
        assert path.kind == "equilibrium"
        assert path.profile == shares
        assert path.alone == pytest.approx(ALONE[loads], abs=0.0006)
        assert path.savings == pytest.approx(savings, abs=0.0006)
        assert path.efficiency == pytest.approx(efficiency, abs=0.0051)


@pytest.mark.parametrize("loads", LOADS)
def test_sharing_one_machine_is_a_fixed_point_when_utilisation_counts_fully(loads):
    for path in played(loads, 6, RATIOS, gamma=1.0):
        assert path.kind == "equilibrium"
        assert path.visited == ((1, 1),)
        assert 0.385 <= path.efficiency <= 0.535


def test_the_page_shows_the_table_that_the_command_prints():
    text = PAGE.read_text().splitlines()
    at = text.index(HEADER[0])
    lines = list(itertools.takewhile(lambda line: line.startswith("|"), text[at:]))
    assert lines == table({loads: played(loads, 6, RATIOS) for loads in LOADS})


def test_what_the_page_says_about_the_table():
    for loads in LOADS:
        low, _, middle, high, highest = played(loads, 6, RATIOS)
        assert low.efficiency < 0.66
        for path in (middle, high):
            assert path.efficiency > 0.955
            assert min(path.savings) > 0
        assert high.profile == highest.profile == (6, 6)
    assert f"{MOST_STATES:,} states" in PAGE.read_text()
    assert states_of([Cloud(20, 1.0)] * 2, (20, 20)) < MOST_STATES
    assert states_of([Cloud(4, 1.0)] * 4, (4,) * 4) < MOST_STATES


# The game


def improvements(federation, terms, profile):
    """How much each cloud could gain by any other share of its own."""
    here = terms.utilities(federation, profile)
    for player, choices in enumerate(federation.choices):
        for own in choices:
            other = (*profile[:player], own, *profile[player + 1 :])
            yield terms.utilities(federation, other)[player] - here[player]


@pytest.mark.parametrize("seed", range(8))
def test_nobody_could_gain_at_what_is_called_an_equilibrium(seed):
    draw = random.Random(seed)
    clouds = tuple(Cloud(draw.randint(1, 5), draw.uniform(0.5, 6)) for _ in range(2))
    gamma, ratio = draw.choice([0.0, 0.4, 1.0]), draw.choice([0.2, 0.5, 0.8])
    path = sharing_game(clouds, ratio, gamma=gamma)
    assert path.kind == "equilibrium"
    assert path.cycle == ()
    federation, terms = Federation(clouds), Terms(ratio, gamma)
    assert max(improvements(federation, terms, path.profile)) <= 1e-9
    assert path.savings == pytest.approx(terms.savings(federation, path.profile), abs=1e-12)


@pytest.mark.parametrize("start", [(1, 1, 1), (0, 0, 0), (3, 3, 2)])
def test_a_cycle_is_never_called_an_equilibrium(start):
    path = sharing_game(RESTLESS, 0.55, gamma=0.5, start=start)
    assert path.kind == "cycle"
    assert path.profile is None
    assert path.savings is None
    assert path.efficiency is None
    federation, terms = Federation(RESTLESS), Terms(0.55, 0.5)
    lap = [standing.profile for standing in path.cycle]
    assert set(lap) == {(2, 1, 1), (2, 3, 1), (3, 3, 1), (3, 1, 1)}
    for before, after in itertools.pairwise([lap[-1], *lap]):
        [player] = [at for at in range(3) if before[at] != after[at]]
        gain = np.subtract(terms.utilities(federation, after), terms.utilities(federation, before))
        assert gain[player] > 1e-9
    for cloud, (least, most) in enumerate(path.savings_range):
        savings = [standing.savings[cloud] for standing in path.cycle]
        assert (least, most) == (min(savings), max(savings))
        assert least < most


def test_a_path_that_is_cut_short_is_called_stopped():
    [path] = price_sweep([Cloud(6, 3.0), Cloud(6, 5.5)], [0.3], rounds=1)
    assert path.kind == "stopped"
    assert path.visited == ((1, 1), (3, 1), (3, 0))
    assert path.profile == (3, 0)


def test_matching_pennies_goes_round():
    def pennies(player, profile):
        return float((profile[0] == profile[1]) == (player == 0))

    trail = best_replies([(0, 1), (0, 1)], pennies, (0, 0))
    assert trail.kind == "cycle"
    assert set(trail.cycle) == {(0, 0), (0, 1), (1, 1), (1, 0)}


def test_of_equally_good_shares_a_cloud_keeps_its_own_and_else_takes_the_smallest():
    def flat(player, profile):
        return float(profile[player] >= 2)

    assert best_replies([range(5)], flat, (3,)).visited == ((3,),)
    assert best_replies([range(5)], flat, (0,)).visited == ((0,), (2,))


def test_a_sweep_plays_the_same_games_one_by_one():
    clouds = (Cloud(3, 2.0), Cloud(4, 5.0))
    swept = price_sweep(clouds, (0.2, 0.6), gamma=0.3, alpha=1.0)
    assert swept == tuple(sharing_game(clouds, p, gamma=0.3, alpha=1.0) for p in (0.2, 0.6))


def test_what_is_found_can_be_written_as_json():
    for alpha in (0.0, math.inf):
        path = sharing_game(RESTLESS, 0.55, gamma=0.5, alpha=alpha)
        read = json.loads(json.dumps(path.document(), allow_nan=False))
        assert read["kind"] == "cycle"
        assert read["savings_range"] == [list(each) for each in path.savings_range]


# Welfare


@pytest.mark.parametrize(
    ("alpha", "welfare"), [(0, 5.0), (0.5, 4.5), (1, 4.0), (2, 3.2), (math.inf, 2.0)]
)
def test_welfare_is_the_alpha_fair_mean(alpha, welfare):
    assert Terms(0.5, alpha=alpha).welfare((2.0, 8.0)) == pytest.approx(welfare)
    assert Terms(0.5, alpha=alpha).welfare((8.0, 2.0)) == pytest.approx(welfare)


def test_welfare_of_a_loss_is_only_counted_without_fairness():
    assert Terms(0.5).welfare((-1.0, 3.0)) == 1.0
    for alpha in (0.5, 1.0, math.inf):
        assert Terms(0.5, alpha=alpha).welfare((-1.0, 3.0)) is None
    assert Terms(0.5, alpha=1.0).welfare((0.0, 3.0)) == 0.0
    assert Terms(0.5, alpha=0.5).welfare((0.0, 4.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0, math.inf])
def test_efficiency_is_one_at_the_best_profile_and_at_most_one(alpha):
    clouds = (Cloud(3, 1.5), Cloud(3, 3.0))
    federation, terms = Federation(clouds), Terms(0.6, alpha=alpha)
    every = {p: terms.welfare(terms.savings(federation, p)) for p in federation.profiles()}
    best = max((w, p) for p, w in every.items() if w is not None)
    path = sharing_game(clouds, 0.6, alpha=alpha, start=best[1], rounds=0)
    assert path.efficiency == pytest.approx(1.0)
    [other] = price_sweep(clouds, [0.6], alpha=alpha, start=(1, 0), rounds=0)
    assert other.efficiency == pytest.approx(every[1, 0] / best[0])
    assert other.efficiency < 1


def test_where_nothing_can_be_gained_there_is_no_efficiency():
    assert sharing_game([Cloud(2, 0.0)] * 2, 0.5).efficiency is None


# Refusals


@pytest.mark.parametrize(
    ("refused", "because"),
    [
        (lambda: Cloud(0, 1.0), "machine"),
        (lambda: Cloud(2, math.nan), "load"),
        (lambda: use_of([], ()), "at least one cloud"),
        (lambda: use_of([Cloud(2, 1.0)], (3,)), "cannot offer 3"),
        (lambda: sharing_game([Cloud(2, 1.0)] * 2, 1.5), "price ratio"),
        (lambda: sharing_game([Cloud(2, 1.0)] * 2, 0.5, gamma=2.0), "gamma"),
        (lambda: sharing_game([Cloud(2, 1.0)] * 2, 0.5, alpha=-1.0), "alpha"),
        (lambda: sharing_game([Cloud(70, 1.0), Cloud(70, 1.0)], 0.5), "states"),
        (lambda: sharing_game([Cloud(1, 1.0)] * 8 + [Cloud(8, 1.0)], 0.5), "states"),
        (lambda: Federation((Cloud(50, 1.0),) * 2).profiles(), "2601 profiles"),
    ],
)
def test_what_is_no_game_is_refused(refused, because):
    with pytest.raises((BadFederation, TooManyStates), match=because):
        refused()
