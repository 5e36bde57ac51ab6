"""The nucleolus: textbook games, a slow method of its own, and Kohlberg's criterion."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from economics.book import read_book
from economics.errors import NotCleared
from economics.sharing.balance import balanced, is_nucleolus
from economics.sharing.game import game_of
from economics.sharing.leastcore import least_core
from economics.sharing.nucleolus import nucleolus
from economics.sharing.span import Span
from economics.sharing.tables import TableGame, mask_of, memberships
from tests.economics.books import example
from tests.economics.markets import divisible_market, gang_market, searching, side_by_side

quick = settings(max_examples=60, deadline=None, derandomize=True)


def coalitions(*letters, sites="ABC"):
    return np.array([[name in word for name in sites] for word in letters])


@st.composite
def tables(draw, most=5):
    """Games of whole numbers, with many ties; all together make at least what each makes alone."""
    sites = draw(st.integers(1, most))
    values = draw(st.lists(st.integers(0, 12), min_size=1 << sites, max_size=1 << sites))
    table = np.array(values, dtype=float)
    table[0] = 0.0
    table[-1] = max(table[-1], table[1 << np.arange(sites)].sum())
    scale = draw(st.sampled_from((1.0, 1e-3, 1e6)))
    return TableGame(tuple(f"S{at}" for at in range(sites)), table * scale)


def excesses(game, payoff):
    return (game.values() - memberships(len(game.names)) @ payoff)[1:-1]


def slowly(game):
    """Maschler, Peleg and Shapley without duals or spans.

    After each least excess, every open coalition is asked whether its own could be lower.
    """
    sites, table = len(game.names), game.values()
    members = memberships(sites)
    size = max(1.0, float(table.max()))
    settled = {(1 << sites) - 1: float(table[-1])}  # mask -> payoff
    open_masks = set(range(1, (1 << sites) - 1))
    bounds = [(float(least), None) for least in game.alone] + [(None, None)]

    def solve(cost, most=None):
        rows = [np.append(-members[mask].astype(float), -1.0) for mask in sorted(open_masks)]
        limits = [-table[mask] for mask in sorted(open_masks)]
        equal = [np.append(members[mask].astype(float), 0.0) for mask in settled]
        within = bounds if most is None else [*bounds[:-1], (None, most)]
        found = linprog(
            cost,
            A_ub=np.array(rows),
            b_ub=limits,
            A_eq=np.array(equal),
            b_eq=list(settled.values()),
            bounds=within,
            method="highs",
        )
        assert found.status == 0, found.message
        return found

    while open_masks:
        least = solve(np.append(np.zeros(sites), 1.0)).fun
        held = []
        for mask in sorted(open_masks):
            lowest = solve(np.append(-members[mask].astype(float), 0.0), most=least + 1e-9 * size)
            if table[mask] + lowest.fun >= least - 1e-6 * size:
                held.append(mask)
        assert held
        for mask in held:
            settled[mask] = float(table[mask] - least)
            open_masks.discard(mask)
    return np.array([settled.get(1 << at, table[-1]) for at in range(sites)])


@pytest.mark.parametrize(
    ("estate", "shares"),
    [
        (100, (100 / 3, 100 / 3, 100 / 3)),
        (200, (50, 75, 75)),
        (300, (50, 100, 150)),
    ],
)
def test_the_three_wives_of_the_talmud(estate, shares):
    """Claims of 100, 200 and 300: the nucleolus is the division of the Mishnah (Aumann, Maschler
    1985)."""
    claims = {"A": 100, "B": 200, "C": 300}
    values = {
        "".join(group): max(0, estate - sum(claims[one] for one in claims if one not in group))
        for size in (1, 2, 3)
        for group in itertools.combinations(claims, size)
    }
    found = nucleolus(TableGame.of("ABC", values))
    assert found.payoff == pytest.approx(shares, abs=1e-9)


def test_gang_example():
    found = nucleolus(game_of(read_book(example("book_gangs"))))
    assert found.payoff == pytest.approx([14.70, 10.45, 7.05], abs=1e-6)
    assert found.least_excess == pytest.approx(-2.7, abs=1e-6)


def test_the_levels_of_the_three_sites():
    found = nucleolus(game_of(read_book(example("book_three_sites"))))
    assert found.payoff == pytest.approx([53.7101, 49.9554, 66.0510], abs=1e-3)
    assert found.least_excess == pytest.approx(-15.394, abs=1e-3)
    assert [level.coalitions for level in found.levels] == [(0b010, 0b101), (0b001, 0b110)]


def test_one_site_and_none():
    assert nucleolus(TableGame.of("A", {"A": 3.0})).payoff.tolist() == [3.0]
    assert nucleolus(TableGame((), np.zeros(1))).payoff.size == 0


def test_sites_that_make_less_together_are_refused():
    with pytest.raises(NotCleared, match="one by one"):
        nucleolus(TableGame.of("AB", {"A": 2.0, "B": 2.0, "AB": 3.0}))


def test_nobody_gets_less_than_alone_even_where_the_excess_would_be_lower():
    """Without that limit A would get -1 here; the pair's complaint is worse than A's own."""
    game = TableGame.of("ABC", {"BC": 4.0, "ABC": 1.0})
    found = nucleolus(game).payoff
    assert found == pytest.approx([0.0, 0.5, 0.5], abs=1e-7)
    assert is_nucleolus(game, found)


@quick
@given(tables(most=4))
def test_the_slow_method_agrees(game):
    size = max(1.0, float(game.values().max()))
    assert nucleolus(game).payoff == pytest.approx(slowly(game), abs=2e-5 * size)


@quick
@given(tables(), st.integers(0, 10**6))
def test_kohlberg_certifies_the_nucleolus_and_nothing_else(game, seed):
    """I22."""
    found = nucleolus(game)
    assert is_nucleolus(game, found.payoff)
    sites = len(game.names)
    away = np.random.default_rng(seed).normal(size=sites)
    away -= away.mean()
    if sites > 1:
        size = max(float(game.values().max()), 1e-6)
        assert not is_nucleolus(game, found.payoff + 1e-3 * size * away / np.abs(away).max())


@quick
@given(tables())
def test_it_sums_up_and_is_in_the_least_core(game):
    """I22."""
    found = nucleolus(game)
    tolerance = 1e-7 * max(1.0, game.grand)
    assert found.payoff.sum() == pytest.approx(game.grand, abs=tolerance)
    assert (found.payoff >= game.alone - tolerance).all()
    if len(game.names) > 1:
        worst = excesses(game, found.payoff).max()
        assert worst == pytest.approx(found.least_excess, abs=tolerance)
        least = least_core(game, np.zeros(len(game.names))).excess
        assert least == pytest.approx(found.least_excess, abs=tolerance)
    excess = [level.excess for level in found.levels]
    assert excess == sorted(excess, reverse=True)


def test_balanced_collections():
    assert balanced(coalitions("AB", "AC", "BC"))
    assert balanced(coalitions("AB", "C"))
    assert balanced(coalitions("A", "B", "C"))
    assert not balanced(coalitions("AB", "AC"))
    assert not balanced(coalitions("A", "B"))
    assert not balanced(coalitions("A", "AB", "C")), "A has weight to spare, and none to give"
    assert not balanced(coalitions("AB"))
    assert balanced(coalitions("AB"), bearing=np.array([False, False, True]))


def test_a_span_is_exact():
    span = Span(3)
    for word, rank in (("AB", 1), ("BC", 2), ("AB", 2), ("AC", 3)):
        span = span.joined_by(coalitions(word)[0])
        assert span.rank == rank
    assert span.normals().shape == (3, 0)


@quick
@given(st.integers(1, 7), st.lists(st.integers(1, 127), min_size=1, max_size=8))
def test_normals_tell_who_is_in_the_span(sites, drawn):
    members, span = memberships(sites), Span(sites)
    taken = [mask % (1 << sites) for mask in drawn]
    for mask in taken:
        span = span.joined_by(members[mask])
    rank = np.linalg.matrix_rank(members[taken].astype(float))
    assert span.rank == rank
    for mask in range(1 << sites):
        inside = np.linalg.matrix_rank(members[[*taken, mask]].astype(float)) == rank
        assert bool(span.misses(members[[mask]])[0]) != inside


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("market", [divisible_market, gang_market])
def test_searching_coalitions_ends_where_listing_them_does(market, seed):
    game = game_of(read_book(market(seed, sites=4)))
    listed, sought = nucleolus(game), nucleolus(game, searching(game))
    assert sought.payoff == pytest.approx(listed.payoff, abs=1e-6 * max(1.0, game.grand))
    assert is_nucleolus(game, sought.payoff)


def test_ten_sites_are_certified():
    """Every coalition counts: moving a thousandth of the value anywhere breaks the proof."""
    game = game_of(read_book(divisible_market(4, sites=10)))
    found = nucleolus(game)
    assert is_nucleolus(game, found.payoff)
    assert excesses(game, found.payoff).max() == pytest.approx(
        found.least_excess, abs=1e-7 * game.grand
    )
    for site in range(10):
        moved = found.payoff + 1e-3 * game.grand * (np.arange(10) == site)
        assert not is_nucleolus(game, moved - 1e-4 * game.grand)


@pytest.mark.parametrize("seed", range(6))
def test_votes_and_bankrupt_estates_are_certified(seed):
    """Games with many equal coalitions, in which the order of settling could go wrong."""
    draw = np.random.default_rng(seed)
    sites = int(draw.integers(6, 11))
    weight, members = draw.integers(1, 6, sites), memberships(sites)
    estate = 0.6 * weight.sum()
    votes = (members @ weight > weight.sum() / 2).astype(float)
    votes[-1] = max(1.0, votes[1 << np.arange(sites)].sum())
    for table in (votes, np.maximum(members @ weight - weight.sum() + estate, 0.0)):
        game = TableGame(tuple(f"S{at}" for at in range(sites)), table)
        assert is_nucleolus(game, nucleolus(game).payoff)


@pytest.mark.slow
def test_more_sites_than_can_be_listed():
    """Markets side by side: where their cores are not empty, each keeps its own nucleolus."""
    sizes = ((1, 4), (2, 5), (3, 4))
    parts = [divisible_market(seed, sites=sites, jobs=2, types=("H",)) for seed, sites in sizes]
    together = game_of(read_book(side_by_side(parts)))
    assert len(together.names) == 13
    found = nucleolus(together)
    apart = [nucleolus(game_of(read_book(part))).payoff for part in parts]
    assert found.payoff == pytest.approx(np.concatenate(apart), abs=1e-5 * together.grand)
    worst = searching(together).worst(found.payoff)
    assert worst.excess == pytest.approx(found.least_excess, abs=1e-6 * together.grand)


def test_masks_are_bits_of_the_sites():
    for mask, members in enumerate(memberships(4)):
        assert mask_of(members) == mask
