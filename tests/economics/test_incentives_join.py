"""Should my site join, and what if one left: the figures, and what they must add up to."""

import itertools
import json

import numpy as np
import pytest

from economics.book import read_book
from economics.errors import BadBook
from economics.incentives.blockers import worst_of
from economics.incentives.documents import document
from economics.incentives.draws import draw
from economics.incentives.join import join, questions, report
from economics.incentives.leave import leave
from economics.incentives.sampling import Plan
from economics.incentives.sensitivity import NEUTRAL, StepQuestion, sensitivity, turned
from economics.incentives.study import Outcome, Question
from economics.incentives.summaries import join_summary, leave_summary
from economics.incentives.variations import farther, load_times, reserve_times
from economics.rounds import decide
from economics.sharing.game import coalition_sums, game_of
from tests.economics.books import a_book, a_job, a_pool, example, only_sites
from tests.economics.random_books import random_book

DRAWS = 20


@pytest.fixture(scope="module")
def studied():
    """The plan of the worked example, and its outcomes for C."""
    plan = Plan.of(example("book_three_sites"), draws=DRAWS)
    return plan, [question.answer() for question in questions(plan, "C")]


@pytest.fixture(scope="module")
def found(studied):
    return report(studied[0], "C", studied[1], joining_cost=5.0)


def gain(found, rule):
    return {row.rule: row.gain.value for row in found.rules}[rule]


def test_the_join_value_of_c_in_the_worked_example(found):
    """Acceptance check 10."""
    assert found.standalone.value == pytest.approx(34.1960, abs=1e-3)
    assert gain(found, "market") == pytest.approx(0.264, abs=1e-3)
    assert gain(found, "dividend") == pytest.approx(16.06, abs=1e-2)
    assert gain(found, "nucleolus") == pytest.approx(31.855, abs=1e-3)


def test_the_leave_values_of_the_worked_example():
    rows = leave(example("book_three_sites"), draws=DRAWS)
    assert {row.site: row.rest.value for row in rows} == pytest.approx(
        {"A": 95.8768, "B": 104.3670, "C": 71.0863}, abs=1e-3
    )
    assert {row.site: row.marginal.value for row in rows} == pytest.approx(
        {"A": 73.8396, "B": 65.3494, "C": 98.6301}, abs=1e-3
    )
    for row in rows:
        both = row.loses.value + row.others_lose.value
        assert both == pytest.approx(169.7164 - row.rest.value - row.standalone.value, abs=1e-3)


def test_contributions_are_those_to_all_coalitions_of_the_others(found):
    of_c = [34.1960, 104.3670 - 33.5806, 95.8768 - 34.5613, 98.6301]
    box = found.contributions
    assert (box.coalitions, box.listed) == (4, True)
    assert [
        figure.value
        for figure in (box.least, box.lower_quartile, box.median, box.upper_quartile, box.most)
    ] == pytest.approx(np.quantile(of_c, [0, 0.25, 0.5, 0.75, 1]).tolist(), abs=1e-3)


def test_break_even(found):
    assert found.break_even.joining_cost == 5.0
    alpha = found.break_even.alpha
    market, nucleolus = gain(found, "market"), gain(found, "nucleolus")
    assert (1 - alpha.value) * market + alpha.value * nucleolus == pytest.approx(5.0)
    assert 0.0 <= alpha.low <= alpha.value <= alpha.high <= 1.0


def test_a_cost_that_no_dividend_repays_has_no_alpha(studied):
    found = report(studied[0], "C", studied[1], joining_cost=40.0)
    assert found.break_even.alpha is None
    assert "no alpha is enough" in join_summary(found)


def test_the_first_to_leave_are_the_coalitions_of_least_slack(found):
    values = game_of(read_book(example("book_three_sites"))).values()
    market = np.array(list(decide(read_book(example("book_three_sites")))["payoffs"].values()))
    slack = np.sort((coalition_sums(market) - values)[1:-1])[:3]
    rows = [row for row in found.objections if row.rule == "market"]
    assert [row.slack.value for row in rows] == pytest.approx(slack.tolist(), abs=1e-6)
    assert rows[0].sites == ("C",)
    assert not any(row.blocks for row in found.objections)
    tight = [row.slack.value for row in found.objections if row.rule == "nucleolus"]
    assert tight[:2] == pytest.approx([15.394, 15.394], abs=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_the_oracle_finds_the_same_coalitions_as_a_list_of_all(seed):
    book = read_book(draw(seed, sites=5, gangs=seed % 2 == 1, capacity=(4, 8)))
    game = game_of(book)
    payoff = np.full(5, game.grand / 5)
    excess = game.values() - coalition_sums(payoff)
    listed = np.sort(excess[1:-1])[::-1][:4]
    masks = worst_of(game, payoff, count=4)
    assert len(set(masks)) == 4
    assert excess[masks] == pytest.approx(listed.tolist(), abs=1e-5 * game.grand)


@pytest.mark.parametrize("seed", range(16))
def test_the_lines_of_the_split_add_up_to_the_gain(seed):
    """Gangs, moves, budgets, widths, transfers, previous prices and smoothing included."""
    book = random_book(seed, gangs=None, jobs=10)
    sites = read_book(book).sites
    outcome = Question(book, sites[seed % len(sites)], play=False).answer()
    at = seed % len(sites)
    size = max(1.0, outcome.value)
    total = sum(getattr(outcome.split, name) for name in outcome.split.__dataclass_fields__)
    assert total == pytest.approx(outcome.market[at] - outcome.alone[at], abs=2e-6 * size)
    assert outcome.split.cost_of_sales <= 0 <= outcome.split.sales_revenue
    assert Outcome.of_row(json.loads(json.dumps(outcome.row()))) == outcome


def test_the_split_of_a_plain_sale():
    """A sells its idle GPUs to B's tenant at a price between 1 and 5."""
    book = a_book(a_job("j", "B", 5.0, demand=4.0), pools=[a_pool("A", gpus=4, reserve=1.0)])
    split = Question(book, "A").answer().split
    price = decide(read_book(book))["prices"]["A.G"]
    assert split.sales_revenue == pytest.approx(4 * price)
    assert split.cost_of_sales == pytest.approx(-4.0)
    assert (split.tenants_extra_value, split.saved_purchases) == (0.0, 0.0)
    bought = Question(book, "B").answer().split
    assert bought.tenants_extra_value == pytest.approx(20.0)
    assert bought.saved_purchases == pytest.approx(-4 * price)


def test_penalties_are_as_given():
    split = Question(example("book_three_sites"), "A", penalties=2.5).answer().split
    assert split.penalties == -2.5


def test_values_of_coalitions_are_those_of_their_own_books():
    book = example("book_three_sites")
    outcome = Question(book, "B").answer()
    for mask, names in ((3, "AB"), (5, "AC"), (6, "BC")):
        alone = decide(read_book(only_sites(book, set(names))))["welfare"]
        assert outcome.values[mask] == pytest.approx(alone, abs=1e-6)
    assert outcome.without == pytest.approx(outcome.values[5])


def test_every_figure_has_its_interval(found):
    def walk(node, name=""):
        if isinstance(node, dict):
            if "value" in node:
                assert set(node) == {"value", "low", "high"}
                assert node["low"] <= node["high"], name
            for key, below in node.items():
                walk(below, key)
        elif isinstance(node, list):
            for below in node:
                walk(below, name)

    written = document(found)
    assert (written["format"], written["study"]) == ("hanse.incentives/1", "join")
    assert (written["unit"], written["draws"]) == ("jobs", DRAWS)
    walk(json.loads(json.dumps(written, allow_nan=False)))
    rows = document(leave(example("book_three_sites"), draws=DRAWS))
    assert [row["site"] for row in rows["sites"]] == ["A", "B", "C"]
    walk(rows)


def test_the_work_can_be_shared(studied):
    """Questions in any order, outcomes through JSON: what `join` does in turn."""
    plan, outcomes = studied
    written = [json.dumps(outcome.row()) for outcome in outcomes]
    for at in (20, 3):
        assert json.dumps(questions(plan, "C")[at].answer().row()) == written[at]
    read = [Outcome.of_row(json.loads(row)) for row in written]
    assert report(plan, "C", read) == join(example("book_three_sites"), "C", draws=DRAWS)


def test_rounds_are_drawn_again_where_there_are_several():
    books = [draw(seed, sites=3) for seed in range(6)]
    found = join(books, "S01", draws=200)
    outcomes = [Question(book, "S01").answer() for book in books]
    assert (found.rounds, found.unit, found.draws) == (6, "rounds", 200)
    alone = [row.alone[1] for row in outcomes]
    assert found.standalone.value == pytest.approx(np.mean(alone))
    assert min(alone) <= found.standalone.low <= found.standalone.high <= max(alone)
    game = found.game
    assert game.equilibria + game.cycles + game.unfinished == 6
    least = min(
        (np.mean([sum(row.market[at] for at in group) - row.values[sum(1 << at for at in group)]
                  for row in outcomes])
         for size in (1, 2) for group in itertools.combinations(range(3), size)),
    )  # fmt: skip
    assert found.objections[0].slack.value == pytest.approx(least, abs=1e-6)


def test_with_whole_gangs_the_game_is_played_only_when_asked():
    found = join(draw(3, sites=2, gangs=True, capacity=(3, 4)), "S00", draws=DRAWS)
    assert found.game is None
    assert "chose what it offers" not in join_summary(found)
    assert document(found)["game"] is None


def test_sites_that_come_and_go_have_no_common_coalitions():
    books = [draw(1, sites=3), draw(1, sites=2)]
    found = join(books, "S01", draws=DRAWS)
    assert found.objections == ()
    rows = leave(books, draws=DRAWS)
    assert [row.site for row in rows] == ["S00", "S01"]


def test_the_order_of_rows_changes_nothing(studied):
    book = example("book_three_sites")
    backward = {key: rows[::-1] if isinstance(rows, list) else rows for key, rows in book.items()}
    plan = Plan.of(backward, draws=DRAWS)
    for at in (0, 1, 7):
        assert questions(plan, "C")[at].answer() == studied[1][at]


def test_a_site_that_is_not_in_the_book_is_refused():
    with pytest.raises(BadBook, match="unknown site 'D'"):
        join(example("book_three_sites"), "D", draws=DRAWS)


def test_rounds_with_another_aim_are_refused():
    book = example("book_three_sites")
    book["rules"] = {"policy": "max_min"}
    with pytest.raises(BadBook, match="surplus"):
        leave(book, draws=DRAWS)


def test_an_alpha_beyond_one_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        join(example("book_three_sites"), "C", alpha=1.5, draws=DRAWS)


def test_nothing_is_gained_alone():
    book = only_sites(example("book_three_sites"), {"A"}) | {"transfer": []}
    found = join(book, "A", draws=DRAWS)
    assert gain(found, "market") == pytest.approx(0.0, abs=1e-6)
    assert gain(found, "nucleolus") == pytest.approx(0.0, abs=1e-6)
    assert found.objections == ()
    assert "with nobody" in join_summary(found)


def test_knobs_turn_what_they_say():
    book = example("book_three_sites")

    def at(knob, step):
        return StepQuestion(book, "C", knob, step).answer()

    as_it_is, wider = at("sigma", 1.0), at("sigma", 2.0)
    farther_off, dearer = at("transfer", 1.0), at("reserve", 2.0)
    assert as_it_is.market - as_it_is.alone == pytest.approx(0.2642, abs=1e-3)
    assert as_it_is.nucleolus - as_it_is.alone == pytest.approx(31.855, abs=1e-3)
    assert as_it_is.setting == pytest.approx(0.1336, abs=1e-4)
    assert wider.setting == pytest.approx(2 * 0.1336, abs=1e-4)
    assert farther_off.setting == pytest.approx(32.8 / 56)  # the mean reserve
    assert farther_off.nucleolus < as_it_is.nucleolus
    assert farther_off.alone == pytest.approx(as_it_is.alone)
    assert dearer.alone < as_it_is.alone
    for knob, step in NEUTRAL.items():
        assert turned(book, "C", knob, step) is book


def test_a_knob_has_a_point_with_an_interval_for_each_step():
    [knob] = sensitivity(example("book_three_sites"), "C", draws=DRAWS, steps={"load": (0.5,)})
    [point] = knob.points
    assert (knob.knob, point.step, point.setting) == ("load", 0.5, 0.5)
    assert point.standalone.value < 34.1960
    middle = (point.market.value + point.nucleolus.value) / 2
    assert point.dividend.value == pytest.approx(middle)
    assert point.dividend.low < point.dividend.value <= point.dividend.high


def test_floors_count_in_the_gain_but_not_in_its_parts():
    """economics.md, section 6: with floors C has 40.9241."""
    book = example("book_three_sites")
    wanted = {"a-cnn": 20, "a-rec": 90, "b-cnn": 25, "b-lm": 0.8, "c-lm": 0.246, "c-rec": 140}
    book["floors"] = [{"job": job, "demand": amount * (1 - 1e-9)} for job, amount in wanted.items()]
    outcome = Question(book, "C", play=False).answer()
    assert outcome.market == pytest.approx((42.8976, 74.1415, 40.9241), abs=1e-3)
    assert outcome.value == pytest.approx(157.9632, abs=1e-3)
    assert outcome.decomposition.gain == pytest.approx(67.3785, abs=1e-3)
    for knob, step in NEUTRAL.items():
        kept = turned(book, "C", knob, step).get("floors", [])
        assert len(kept) == (0 if knob in ("sigma", "reserve") else 6)
    assert len(load_times(book, "C", 0.5)["floors"]) == 6


def test_variations_change_one_thing():
    book = example("book_three_sites")
    was = json.dumps(book)
    assert {row["per_gpu_hour"] for row in farther(book, 0.2)["transfer"]} == {0.25}
    reserves = {row["id"]: row["reserve"] for row in reserve_times(book, "A", 2.0)["pools"]}
    assert (reserves["A.H"], reserves["B.H"]) == (3.0, 1.6)
    loads = {row["id"]: row["demand"] for row in load_times(book, "A", 3.0)["jobs"]}
    assert (loads["a-cnn"], loads["b-cnn"]) == (60.0, 25.0)
    assert json.dumps(book) == was


def test_summaries_say_what_was_drawn(found):
    text = join_summary(found)
    assert f"one round, 95 % intervals from {DRAWS} draws of its jobs" in text
    assert "No equilibrium: the sites go round in 2 sweeps" in text
    rows = leave_summary(leave([draw(1, sites=2), draw(2, sites=2)], draws=DRAWS))
    assert f"2 rounds, 95 % intervals from {DRAWS} draws of rounds" in rows


def test_a_site_that_gains_nothing_needs_no_dividend_to_break_even_at_no_cost():
    """Payments are whole micro-credits, so a gain of zero may be written a little below it."""
    book = {
        "format": "hanse.book/1",
        "round_hours": 1 / 3,
        "pools": [{"id": "a.g", "site": "a", "gpu": "g", "gpus": 1, "reserve": 0.1}],
        "affinity": [{"pool": "a.g", "class": "cnn", "samples_per_s": 777.7}],
        "jobs": [{"id": "j", "site": "a", "class": "cnn", "value": 1.7, "demand": 0.333}],
        "rules": {"epsilon": 0.0},
    }
    report = join(book, "a", seed=0, draws=20)
    assert report.break_even.alpha is not None
    assert report.break_even.alpha.value == 0.0
    assert report.break_even.enough.value == 1.0
