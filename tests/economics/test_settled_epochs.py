"""The dividend of what contracts came to: shortfalls, prolonged contracts, members of one owner."""

import numpy as np
import pytest

from economics.book import read_book
from economics.errors import BadBook
from economics.sharing.epochs import epoch_shares
from economics.sharing.game import coalition_sums
from economics.sharing.served import epoch_game, epoch_payoff, served_game
from economics.sharing.settled import Settled, realised
from tests.economics.books import a_book, a_job, a_pool, clear, example
from tests.economics.markets import divisible_market, gang_market

WHOLE = 1.0


def settlement(clearing, parts=None, default=WHOLE):
    """What contracts say where of each job's award `parts` of it were delivered and paid."""
    awarded: dict[str, list[float]] = {}
    for line in clearing["allocation"]:
        row = awarded.setdefault(line["job"], [0.0, 0.0])
        row[0] += line["msamples"] * 1e6
        row[1] += line["payment_micro"]
    made = {}
    for job, (samples, payment) in awarded.items():
        part = (parts or {}).get(job, default)
        if part:
            whole = part == WHOLE
            made[job] = Settled(
                round(round(samples) * part), round(payment if whole else payment * part)
            )
    return made


def a_round(document):
    return read_book(document), clear(document)


def shared(rounds, settled, *, alpha=0.5, cap=1.0, owners=None):
    game = epoch_game(rounds, settled=settled, owners=owners)
    return epoch_shares(rounds, game, alpha=alpha, cap=cap, settled=settled, owners=owners)


def some(seed, clearing):
    """Parts of a whole, none of some jobs, and more than all of others; the same for a seed."""
    draw = np.random.default_rng(seed)
    jobs = sorted({line["job"] for line in clearing["allocation"]})
    return {job: float(draw.choice([0.0, 0.3, 1.0, 1.0, 2.5])) for job in jobs}


def test_contracts_that_were_kept_change_nothing():
    for document in (example("book_three_sites"), example("book_gangs"), gang_market(3, sites=3)):
        book, clearing = a_round(document)
        kept = settlement(clearing)
        assert served_game(book, clearing, kept).values() == pytest.approx(
            served_game(book, clearing).values(), abs=1e-6
        )
        assert epoch_payoff([(book, clearing)], settled=[kept]) == pytest.approx(
            epoch_payoff([(book, clearing)]), abs=1e-5
        )


def test_an_epoch_with_nothing_delivered_moves_nothing():
    book, clearing = a_round(example("book_three_sites"))
    for settled in (
        {},
        {job: Settled(0, 0, 1_000_000) for job in settlement(clearing)},
    ):
        told = shared([(book, clearing)], [settled], alpha=1.0)
        assert told["transfers_micro"] == dict.fromkeys(book.sites, 0)
        assert (told["value"], told["turnover_micro"]) == (0.0, 0)
        assert told["penalties_micro"] == 1_000_000 * len(settled)
    assert any(shared([(book, clearing)], [settlement(clearing)])["transfers_micro"].values())


def test_the_market_and_the_game_have_the_same_sum_whatever_was_delivered():
    moved = scaled = 0
    for seed in range(16):
        make = divisible_market if seed % 2 else gang_market
        rounds = [a_round(make(seed, sites=3)), a_round(make(seed + 50, sites=4))]
        settled = [settlement(c, some(seed, c)) for _, c in rounds]
        game = epoch_game(rounds, settled=settled)
        payoff = epoch_payoff(rounds, settled=settled)
        tolerance = 1e-6 * max(1.0, game.grand)
        assert game.grand == pytest.approx(payoff.sum(), abs=tolerance)
        told = shared(rounds, settled)
        assert sum(told["transfers_micro"].values()) == 0
        assert told["turnover_micro"] == pytest.approx(
            sum(row.paid_micro for rows in settled for row in rows.values()), abs=3
        )
        moved += any(told["transfers_micro"].values())
        excess = (game.values() - coalition_sums(payoff))[1:-1].max()
        scaled += excess > tolerance
    assert moved >= 10
    assert scaled  # so the lemma is indeed not exact under shortfalls


def test_where_all_fell_short_alike_the_market_is_in_the_core_still():
    for seed in range(1, 12, 2):
        book, clearing = a_round(divisible_market(seed, sites=4))
        half = settlement(clearing, default=0.5)
        game = served_game(book, clearing, half)
        payoff = epoch_payoff([(book, clearing)], settled=[half])
        tolerance = 1e-5 * max(1.0, game.grand)
        assert payoff == pytest.approx(
            epoch_payoff([(book, clearing)]) / 2, rel=1e-5, abs=tolerance
        )
        assert (game.values() - coalition_sums(payoff)).max() <= tolerance


def a_trade():
    """B's gang on A's two GPUs: worth 4 a GPU-hour, 1 in reserve; A's own on the other two."""
    jobs = [a_job("far", "B", 4.0), a_job("near", "A", 3.0)]
    return a_round(a_book(*jobs, pools=[a_pool("A"), a_pool("B", gpus=0)]))


def test_a_gang_counts_what_it_delivered_and_the_gpu_time_that_was_paid_for():
    book, clearing = a_trade()
    price = clearing["prices"]["A.G"]
    for part in (0.25, 1.0, 3.0):
        settled = settlement(clearing, {"far": part})
        assert served_game(book, clearing, settled).values() == pytest.approx(
            [0.0, 4.0, 0.0, 4.0 + part * 6.0], abs=1e-6
        )
        paid = 2 * price * part
        assert epoch_payoff([(book, clearing)], settled=[settled]) == pytest.approx(
            [4.0 + paid - 2.0 * part, 8.0 * part - paid], abs=1e-5
        )


def test_gpu_time_paid_for_without_a_sample_is_a_cost_to_all():
    """A tenant that starves its job pays the site's reserve; all the others' values shrink."""
    book, clearing = a_trade()
    far = settlement(clearing)["far"]
    settled = {**settlement(clearing), "far": Settled(0, far.paid_micro)}
    came_to = realised(book, clearing, settled)
    assert came_to.surplus == pytest.approx(4.0 - 2.0, abs=1e-5)
    assert served_game(book, clearing, settled).values() == pytest.approx(
        [0.0, 2.0, 0.0, 2.0], abs=1e-5
    )


def test_a_round_that_came_to_less_than_nothing_is_in_neither():
    book, clearing = a_trade()
    far = settlement(clearing)["far"]
    good = settlement(clearing)
    rounds = [(book, clearing)] * 2
    told = shared(rounds, [{"far": Settled(0, far.paid_micro)}, good])
    assert told["transfers_micro"] == shared(rounds[:1], [good])["transfers_micro"]
    assert told["turnover_micro"] == sum(row.paid_micro for row in good.values())


def test_a_contract_of_no_award_is_refused():
    book, clearing = a_trade()
    with pytest.raises(BadBook, match="phantom"):
        realised(book, clearing, {"phantom": Settled(1, 1)})


def test_members_of_one_owner_are_one_player():
    """What is shared does not depend on how many names an owner comes under."""
    document = example("book_three_sites")
    book, clearing = a_round(document)
    names = book.sites
    apart = shared([(book, clearing)], [settlement(clearing)])
    owners = {names[0]: "union", names[1]: "union"}
    told = shared([(book, clearing)], [settlement(clearing)], owners=owners)
    assert {row["site"] for row in told["sites"]} == {"union", names[2]}
    assert told["owners"] == {names[0]: "union", names[1]: "union", names[2]: names[2]}
    moved = told["transfers_micro"]
    assert set(moved) == set(names)
    assert sum(moved.values()) == 0
    # of two players the nucleolus halves the gain, so the union gives or takes what it makes
    game = epoch_game([(book, clearing)], settled=[settlement(clearing)], owners=owners)
    alone = game.alone
    gain = (game.grand - alone.sum()) / 2
    payoff = epoch_payoff([(book, clearing)], settled=[settlement(clearing)], owners=owners)
    at = game.names.index("union")
    expected = 0.5 * (alone[at] + gain - payoff[at])
    assert (moved[names[0]] + moved[names[1]]) / 1e6 == pytest.approx(expected, abs=1e-5)
    assert moved != apart["transfers_micro"]


def test_an_owner_s_dividend_is_split_by_turnover():
    jobs = [a_job("one", "A1", 9.0), a_job("two", "A2", 9.0, gang=1)]
    pools = [a_pool("S"), a_pool("A1", gpus=0), a_pool("A2", gpus=0), a_pool("A3", gpus=0)]
    book, clearing = a_round(a_book(*jobs, pools=pools))
    paid = {line["job"]: line["payment_micro"] for line in clearing["allocation"]}
    owners = dict.fromkeys(("A1", "A2", "A3"), "A")
    moved = shared([(book, clearing)], [settlement(clearing)], cap=9.0, owners=owners)
    parts = moved["transfers_micro"]
    assert parts["S"] == -(parts["A1"] + parts["A2"] + parts["A3"])
    assert parts["S"]
    assert parts["A3"] == 0
    assert abs(parts["A1"] * paid["two"] - parts["A2"] * paid["one"]) <= paid["one"] + paid["two"]


def test_coming_under_two_names_gives_an_owner_nothing():
    def told(second, owners):
        """A has two jobs and its pool; the other job comes under the name of `second`."""
        jobs = [a_job("far", "B", 4.0), a_job("near", "A", 3.0), a_job("low", second, 2.0, gang=1)]
        pools = [a_pool("A", gpus=5), a_pool("A2", gpus=0), a_pool("B", gpus=0)]
        rounds = [a_round(a_book(*jobs, pools=pools))]
        settled = [settlement(clearing) for _, clearing in rounds]
        return shared(rounds, settled, alpha=1.0, owners=owners)["transfers_micro"]

    honest = told("A", {})
    split = told("A2", {"A2": "A"})
    assert honest["A2"] == 0
    assert honest["B"]
    assert split["B"] == pytest.approx(honest["B"], abs=2)
    assert split["A"] + split["A2"] == -split["B"]
