"""What was delivered as a game of its own: the market is in its core, phantom bids not in it."""

import numpy as np
import pytest

from economics.book import read_book
from economics.errors import BadBook
from economics.sharing.game import coalition_sums, game_of
from economics.sharing.served import epoch_game, epoch_payoff, served_game
from economics.sharing.shapley import shapley
from tests.economics.books import a_book, a_job, a_pool, clear, example
from tests.economics.markets import divisible_market, gang_market
from tests.economics.random_books import random_book
from tests.economics.varied import varied_book, with_floors


def a_round(document):
    return read_book(document), clear(document)


def excess(game, payoff):
    return float((game.values() - coalition_sums(payoff))[1:-1].max(initial=-np.inf))


def assert_in_core(game, payoff):
    tolerance = 1e-6 * max(1.0, game.grand)
    assert payoff.sum() == pytest.approx(game.grand, abs=tolerance)
    assert excess(game, payoff) <= tolerance


def test_the_market_is_in_the_core_of_what_was_delivered():
    """Lemma 1.3.6, on divisible books of every kind; no coalition makes more than before."""
    less = 0
    for seed in range(42):
        if seed % 2:
            document = divisible_market(seed, sites=2 + seed % 6, jobs=2)
        else:
            document = {**random_book(seed, ties=seed % 4 == 0), "rules": {"epsilon": 0.0}}
        book, clearing = a_round(document)
        game, wanted = served_game(book, clearing), game_of(book)
        assert_in_core(game, epoch_payoff([(book, clearing)]))
        tolerance = 1e-6 * max(1.0, wanted.grand)
        assert (game.values() <= wanted.values() + tolerance).all()
        less += (game.values() < wanted.values() - tolerance).any()
    assert less >= 14


def test_gangs_that_were_not_awarded_are_left_out():
    for seed in range(8):
        document = gang_market(seed, sites=3)
        document["jobs"] = [
            {**row, "gang": [1, 2, 4]} if at % 3 == 0 else row
            for at, row in enumerate(document["jobs"])
        ]
        book, clearing = a_round(document)
        game, wanted = served_game(book, clearing), game_of(book)
        tolerance = 1e-6 * max(1.0, wanted.grand)
        assert game.grand == pytest.approx(clearing["welfare"], abs=tolerance)
        assert (game.values() <= wanted.values() + tolerance).all()
        payoff = epoch_payoff([(book, clearing)])
        if excess(wanted, payoff) <= tolerance:  # else its own core is empty
            assert_in_core(game, payoff)


def test_an_elastic_gang_counts_what_it_delivered_at_most():
    """Served on two GPUs at home beside a better job; alone it could have four."""
    jobs = [
        a_job("elastic", "A", 4.0, gang=[2, 4]),
        a_job("better", "B", 9.0, gang=2, pools=["A.G"]),
    ]
    book, clearing = a_round(a_book(*jobs, pools=[a_pool("A"), a_pool("B", gpus=0)]))
    assert {row["job"]: row["gpu_hours"] for row in clearing["allocation"]} == {
        "elastic": 2.0,
        "better": 2.0,
    }
    assert game_of(book).value(0b01) == pytest.approx(4 * 4.0 - 4)
    assert served_game(book, clearing).value(0b01) == pytest.approx(2 * 4.0 - 2)


def test_a_bid_that_was_never_served_changes_no_value():
    document = example("book_three_sites")
    book, clearing = a_round(document)
    before = served_game(book, clearing)
    assert before.grand == pytest.approx(169.7164, abs=1e-3)
    phantom = {"id": "phantom", "site": "C", "class": "lm", "value": 1.0, "demand": 50.0}
    document["jobs"].append(phantom)
    book, clearing = a_round(document)
    assert "phantom" not in {row["job"] for row in clearing["allocation"]}
    after = served_game(book, clearing)
    assert after.values() == pytest.approx(before.values(), rel=1e-6)
    # B's own lm job, which was not served, is worth nothing in it either.
    assert after.alone[1] < game_of(book).alone[1] - 1.0


def test_a_job_that_could_have_moved_and_did_not_run_is_left_out():
    """Its demand is zero then, which is no limit where a switch turns limits on."""
    moving = a_job("moving", "B", 4.0, demand=4.0, max_gpus=4, running_on="A.G", move_cost=0.5)
    better = a_job("better", "A", 9.0, demand=8.0, pools=["A.G"])
    book, clearing = a_round(a_book(moving, better, pools=[a_pool("A"), a_pool("B", gpus=0)]))
    assert {row["job"] for row in clearing["allocation"]} == {"better"}
    game = served_game(book, clearing)
    assert game.values() == pytest.approx([0.0, 32.0, 0.0, 32.0])
    assert list(game.blocks) == [0b01]


def test_every_field_of_a_book_is_read():
    """Moving charges and floors: all together make at least what they made."""
    played = 0
    for seed in range(40):
        document = with_floors(varied_book(seed), seed)
        try:
            book, clearing = a_round(document)
        except BadBook:
            continue  # floors that do not fit together
        game = served_game(book, clearing)
        assert game.grand == pytest.approx(clearing["welfare"], rel=1e-6, abs=1e-6)
        played += clearing["welfare"] > 0
    assert played >= 20


def test_an_epoch_is_the_sum_of_its_rounds():
    """Over sites that come and go; the oracle sees all rounds at once."""
    rounds = [a_round(divisible_market(seed, sites=sites)) for seed, sites in ((1, 3), (2, 5))]
    game, payoff = epoch_game(rounds), epoch_payoff(rounds)
    first, second = (served_game(*each) for each in rounds)
    assert game.names == second.names
    for mask in range(1 << 5):
        expected = first.value(mask & 0b111) + second.value(mask)
        assert game.value(mask) == pytest.approx(expected, rel=1e-12)
    assert payoff[4] == rounds[1][1]["payoffs"]["S04"]
    assert_in_core(game, payoff)
    tolerance = 1e-6 * game.grand
    assert game.worst(payoff, tolerance=tolerance) is None
    equal = np.full(5, game.grand / 5)
    found = game.worst(equal, tolerance=tolerance)
    assert found is not None
    assert found.excess == pytest.approx(excess(game, equal), abs=2 * tolerance)
    whole = shapley(first)
    assert shapley(game) == pytest.approx(shapley(second) + np.pad(whole, (0, 2)), rel=1e-9)


def test_an_epoch_is_named_by_its_rounds_and_takes_values_found_before():
    rounds = [a_round(example(name)) for name in ("book_three_sites", "book_gangs")]
    game = epoch_game(rounds)
    assert game.sha256 == epoch_game(rounds).sha256
    assert len({game.sha256, epoch_game(rounds[:1]).sha256, epoch_game(rounds[::-1]).sha256}) == 3
    assert epoch_game(rounds, {0b11: 5.0}).value(0b11) == 5.0
    assert game.grand == pytest.approx(169.7164 + 32.2, abs=1e-3)


def test_an_epoch_of_no_rounds_has_nobody():
    game = epoch_game([])
    assert game.names == ()
    assert game.grand == 0.0
    assert epoch_payoff([]).size == 0
    assert game.worst(np.zeros(0), tolerance=1e-9) is None


def test_another_books_clearing_is_refused():
    book, _ = a_round(example("book_three_sites"))
    with pytest.raises(BadBook):
        served_game(book, clear(example("book_gangs")))
