"""What coalitions make alone: warm solves against cold ones, parts, caches, the core oracle."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from economics.book import read_book
from economics.errors import BadBook, NotCleared
from economics.rounds import decide
from economics.sharing.coalitions import coalition_value
from economics.sharing.game import Game, batches, coalition_sums, game_of, values_of
from tests.economics.books import a_book, a_job, a_pool, books, clear, example, only_sites
from tests.economics.markets import divisible_market, gang_market, side_by_side
from tests.economics.random_books import random_book
from tests.economics.varied import varied_book, with_floors

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def the_game(document):
    return game_of(read_book(document))


def cold(game):
    """Every value by a solve that starts from nothing."""
    members = [
        np.array([mask >> site & 1 for site in range(game.sites)], dtype=bool)
        for mask in range(1 << game.sites)
    ]
    return np.array([coalition_value(game.programs[0], some, nodes=10**5) for some in members])


def excess(game, payoff):
    """Largest v(S) less what S is paid, over coalitions other than nobody and everybody."""
    return float((game.values() - coalition_sums(payoff))[1:-1].max(initial=-np.inf))


def assert_same(found, expected):
    """To nine digits of each, or of all sites' value where a coalition makes next to nothing."""
    size = np.abs(expected)
    assert (np.abs(found - expected) <= 1e-9 * np.maximum(size, 1e-3 * size.max())).all()


@pytest.mark.parametrize("name", ["book_three_sites", "book_gangs"])
def test_the_worked_examples(name):
    values = {
        "book_three_sites": [0, 33.5806, 34.5613, 71.0863, 34.1960, 104.3670, 95.8768, 169.7164],
        "book_gangs": [0, 12.0, 4.7, 17.0, 0.0, 16.0, 14.8, 32.2],
    }[name]
    game = the_game(example(name))
    assert game.names == ("A", "B", "C")
    assert game.values() == pytest.approx(values, abs=1e-3)
    assert game.grand == pytest.approx(values[7], abs=1e-3)
    assert game.alone == pytest.approx([values[1], values[2], values[4]], abs=1e-3)
    assert game.doubt == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_warm_solves_give_what_cold_ones_do(seed):
    game = the_game(divisible_market(seed, sites=7))
    assert_same(game.values(), cold(game))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("gangs", [False, None, True])
def test_ties_and_gangs_and_empty_books_too(ties, gangs):
    for seed in range(6):
        game = the_game(random_book(seed, ties=ties, gangs=gangs, value=4.0, money=100.0**seed))
        assert_same(game.values(), cold(game))


def test_every_field_of_a_book_counts():
    """Moving charges, floors, budgets, elastic gangs, extra fees, homes without pools."""
    played = 0
    for seed in range(40):
        document = with_floors(varied_book(seed), seed)
        try:
            clear(document)
        except BadBook:
            continue  # floors that do not fit together
        game = the_game(document)
        assert_same(game.values(), cold(game))
        played += bool(document["floors"]) and game.grand != 0.0
    assert played >= 10


def test_a_coalition_makes_what_its_own_book_does():
    document = random_book(3, gangs=None)
    game = the_game(document)
    for mask in range(1, 1 << game.sites):
        members = {name for at, name in enumerate(game.names) if mask >> at & 1}
        welfare = clear(only_sites(document, members))["welfare"]
        assert game.value(mask) == pytest.approx(welfare, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("sites", [8, 13])
def test_digits_do_not_depend_on_what_was_asked_before(sites):
    """Also beyond the sites whose coalitions are solved in chains."""
    book = read_book(divisible_market(5, sites=sites, jobs=2))
    masks = random.Random(1).sample(range(1 << sites), 120)
    first = values_of(game_of(book), masks)
    backwards = game_of(book)
    assert (values_of(backwards, masks[::-1])[::-1] == first).all()
    assert (np.array([game_of(book).value(mask) for mask in masks[:5]]) == first[:5]).all()


def test_values_found_elsewhere_are_the_same_and_are_not_solved_again():
    book = read_book(divisible_market(2, sites=8, jobs=2))
    values = game_of(book).values()
    shares = batches(game_of(book), 3)
    assert sorted(mask for share in shares for mask in share) == list(range(1, 1 << 8))
    sizes = [len(share) for share in shares]
    assert max(sizes) <= 2 * min(sizes)
    found = {}
    for share in shares:
        found.update(zip(share, values_of(game_of(book), share).tolist(), strict=True))
    assert (game_of(book, found).values() == values).all()
    marked = {mask: float(mask) for mask in found}
    assert (game_of(book, marked).values() == np.arange(1 << 8)).all()
    assert game_of(book, {0b101: -3.0}).value(0b101) == -3.0


def test_values_of_gangs_are_dealt_without_solving_any():
    game = the_game(gang_market(1, sites=7))
    shares = batches(game, 4)
    assert sorted(mask for share in shares for mask in share) == list(range(1, 1 << 7))
    assert len(shares) == 4
    assert game.known == {}


def test_sites_with_nothing_to_trade_cost_nothing_and_get_nothing():
    document = divisible_market(1, sites=3)
    before = the_game(document)
    document["transfer"] += [
        {"from": f"N{at:02}", "to": "S00", "per_gpu_hour": 1.0} for at in range(12)
    ]
    document["pools"].append({**a_pool("N00", gpus=0)})
    document["jobs"].append({**a_job("idle", "N01", 0.1, demand=1.0), "class": "cnn"})
    game = the_game(document)
    assert game.sites == 15
    assert len(list(game.blocks)) == 1
    assert game.players == 0b111 << 12
    assert (game.values()[:: 1 << 12] == before.values()).all()
    assert game.value((0b101 << 12) | 0b11) == before.value(0b101)
    assert sum(len(share) for share in batches(game, 2)) == 7


def test_markets_that_do_not_trade_are_solved_apart():
    parts = [divisible_market(seed, sites=sites) for seed, sites in ((1, 3), (2, 4))]
    first, second = (the_game(part).values() for part in parts)
    game = the_game(side_by_side(parts))
    assert [block.bit_count() for block in game.blocks] == [3, 4]
    together = (second[:, None] + first[None, :]).ravel()
    assert game.values() == pytest.approx(together, rel=1e-12)
    assert sum(len(share) for share in batches(game, 5)) == 7 + 15


@quick
@given(books(kinds=("divisible", "gang"), most=4))
def test_values_are_monotone_and_add_up(document):
    """I4."""
    game = the_game(document)
    values, tolerance = game.values(), 1e-9 * max(1.0, game.grand)
    assert values[0] == 0.0
    for one in range(values.size):
        for other in range(values.size):
            if one & other == 0:
                assert values[one | other] >= values[one] + values[other] - tolerance
                assert values[one | other] >= values[one] - tolerance


@quick
@given(books(kinds=("divisible", "gang"), most=4), st.integers(1, 3), st.booleans())
def test_the_oracle_finds_what_the_list_has(document, least, idle):
    """Of an equal split, which pays sites that have nothing to trade as well."""
    if idle:
        document["pools"].append(a_pool("Z", gpus=0))
        document["affinity"].append({"pool": "Z.G", "class": "lm", "samples_per_s": 1.0})
    game = the_game(document)
    assume(game.sites >= 1)
    payoff = np.full(game.sites, game.grand / game.sites)
    number = np.arange(1 << game.sites)
    size = np.array([mask.bit_count() for mask in number.tolist()])
    listed = (game.values() - coalition_sums(payoff))[(size >= least) & (size < game.sites)]
    tolerance = 1e-6 * max(1.0, game.grand)
    found = game.worst(payoff, least=least, tolerance=tolerance, above=-np.inf)
    assert (found is None) == (listed.size == 0)
    if found is not None:
        assert found.excess == pytest.approx(listed.max(), abs=2 * tolerance)
        assert int(found.members.sum()) >= least
    objects = game.worst(payoff, least=least, tolerance=tolerance)
    assert objects is not None or listed.max(initial=0.0) <= 2 * tolerance


def test_a_site_paid_for_nothing_is_named_by_those_it_is_left_out_by():
    document = divisible_market(1, sites=3)
    document["pools"].append(a_pool("Z", gpus=0))
    game = the_game(document)
    market = np.array([clear(document)["payoffs"][name] for name in game.names])
    assert game.worst(market, tolerance=1e-6 * game.grand) is None
    gift = market + 0.01 * game.grand * np.array([-1.0, 0.0, 0.0, 1.0])
    found = game.worst(gift, tolerance=1e-6 * game.grand)
    assert found.members.tolist() == [True, True, True, False]
    assert found.excess == pytest.approx(0.01 * game.grand)


def test_more_sites_than_are_listed_are_refused():
    game = the_game(divisible_market(1, sites=17, jobs=1))
    with pytest.raises(BadBook, match="17 of them have 2\\^17 coalitions"):
        game.values()
    assert game.grand > game.alone.sum()


def test_a_value_cut_short_by_the_node_limit_says_so():
    draw, sizes = random.Random(1), (7, 9, 11, 13, 17)
    jobs = [
        a_job(f"j{at}", "AB"[at % 2], 1 + draw.uniform(1.0, 1.2), gang=draw.choice(sizes))
        for at in range(14)
    ]
    pools = [a_pool("A", gpus=43), a_pool("B", gpus=37), a_pool("C", gpus=29)]
    document = a_book(*jobs, pools=pools)
    hasty = the_game({**document, "rules": {"nodes": 1}})
    patient = the_game({**document, "rules": {"nodes": 20_000}})
    short = patient.grand - hasty.grand
    assert hasty.doubt > 1e-6 * hasty.grand
    assert -1e-9 * patient.grand <= short <= hasty.doubt * (1 + 1e-9)
    assert patient.doubt == 0.0
    payoff = np.full(3, hasty.grand / 3)
    with pytest.raises(NotCleared):
        hasty.worst(payoff, tolerance=1e-9, above=-np.inf)


def test_a_market_of_nobody():
    game = the_game(a_book(pools=[]))
    assert game.values().tolist() == [0.0]
    assert game.grand == 0.0
    assert batches(game, 4) == ()
    assert isinstance(game, Game)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ties and budgets", "two to eight sites"])
def test_the_market_is_in_the_core_of_divisible_rounds(kind):
    for seed in range(120):
        if kind == "ties and budgets":
            document = {**random_book(seed, ties=seed % 2 == 0), "rules": {"epsilon": 0.0}}
        else:
            document = divisible_market(seed, sites=2 + seed % 7, jobs=2)
        book = read_book(document)
        game, clearing = game_of(book), decide(book)
        payoff = np.array([clearing["payoffs"][name] for name in game.names])
        tolerance = 1e-6 * max(1.0, game.grand)
        assert payoff.sum() == pytest.approx(game.grand, abs=tolerance)
        assert excess(game, payoff) <= tolerance
        assert set(clearing["transfers_micro"].values()) <= {0}


@pytest.mark.slow
def test_smoothed_prices_leave_no_coalition_better_off():
    """The default epsilon, with last round's prices up to 25 % off: it is used, and yet."""
    smoothed = 0
    for seed in range(28):
        document = divisible_market(seed, sites=2 + seed % 7, jobs=2)
        jitter = random.Random(seed)
        before = clear(document)["prices"]
        document["previous_prices"] = {
            pool: price * jitter.uniform(0.8, 1.25) for pool, price in before.items()
        }
        del document["rules"]
        clearing, game = clear(document), the_game(document)
        payoff = np.array([clearing["payoffs"][name] for name in game.names])
        assert excess(game, payoff) <= 1e-6 * max(1.0, game.grand)
        smoothed += clearing["regret"] > 0.004 * game.grand
    assert smoothed >= 14
