"""Each figure of the page on sharing is what the code computes."""

import json
from functools import cache

import numpy as np
import pytest

from economics.book import read_book
from economics.sharing.dividend import between, dividend
from economics.sharing.game import game_of
from economics.sharing.joining import break_even, joining
from economics.sharing.leastcore import least_core
from economics.sharing.objections import objections_of
from economics.sharing.rules import equal_split, judged, proportional
from economics.sharing.shares import shares
from economics.sharing.tables import TableGame
from tests.docs.reading import DOCS, tables
from tests.docs.worked_example import BOOK, cleared

PAGE = DOCS / "explanation" / "who-gets-what.md"
TEXT = PAGE.read_text()
BY_HEADER = {tuple(rows[0]): rows for rows in tables(PAGE)}
BUYERS = json.loads((DOCS / "explanation" / "two-buyers.json").read_text())
OWN = {"equal_split": equal_split, "proportional": proportional}  # not columns of the document


@cache
def game(name="three"):
    return game_of(read_book(BOOK if name == "three" else BUYERS))


@cache
def shared(name="three"):
    return shares(read_book(BOOK if name == "three" else BUYERS))


def payoff(rule, name="three"):
    if rule in OWN:
        return OWN[rule](game(name))
    return np.array([row[rule] for row in shared(name)["sites"]])


def four(number):
    return f"{number + 0.0:.4f}".replace("-", "−")


def value(coalition):
    return game().value(sum(1 << "ABC".index(site) for site in coalition.split(", ")))


def test_what_coalitions_make():
    rows = BY_HEADER["Coalition", "Value alone"]
    assert len(rows) == 7
    assert [row["Value alone"] for row in rows] == [four(value(row["Coalition"])) for row in rows]


def test_what_there_is_to_share():
    alone, gain = game().alone.sum(), shared()["surplus"]
    assert f"One by one the sites make {four(alone)}." in TEXT
    assert f"{four(gain)} more, a gain of {100 * gain / alone:.2f} %" in TEXT


def test_excesses_at_the_prices_of_the_round():
    paid = dict(zip("ABC", payoff("market"), strict=True))
    rows = BY_HEADER["Who might leave", "Could make", "Is paid", "Excess"]
    assert len(rows) == 6
    for row in rows:
        made = value(row["Who might leave"])
        has = sum(paid[site] for site in row["Who might leave"].split(", "))
        assert (row["Could make"], row["Is paid"]) == (four(made), four(has))
        assert row["Excess"] == four(made - has)
    assert list(paid.values()) == pytest.approx(list(cleared()["payoffs"].values()))


def test_who_gets_which_part_of_the_gain_by_prices_alone():
    part = 100 * joining(game(), payoff("market")) / shared()["surplus"]
    assert f"A gets {part[0]:.1f} %, B {part[1]:.1f} % and C {part[2]:.1f} %" in TEXT
    assert f"costs C more than {four(joining(game(), payoff('market'))[2])} credits" in TEXT


def test_every_cell_of_the_table_of_rules():
    rows = BY_HEADER["Rule", "A", "B", "C", "Sum", "Worst excess", "In the core"]
    verdicts = {row["rule"]: row for row in shared()["rules"]}
    assert [row["Rule"].strip("`") for row in rows] == list(verdicts)
    for row in rows:
        has, verdict = payoff(row["Rule"].strip("`")), verdicts[row["Rule"].strip("`")]
        assert [row[site] for site in "ABC"] == [four(amount) for amount in has]
        assert row["Sum"] == four(has.sum())
        assert row["Worst excess"] == four(verdict["worst_excess"])
        assert row["In the core"] == ("yes" if verdict["in_core"] else "no")


def test_every_rule_is_described_once():
    rows = BY_HEADER["Rule", "What it does"]
    said = [row["Rule"].strip("`") for row in rows]
    assert sorted(said) == sorted(row["rule"] for row in shared()["rules"])
    deficit = payoff("marginal").sum() / shared()["value"] - 1
    assert f"{100 * deficit:.1f} % more than there is" in TEXT


def test_splits_of_the_two_buyers_and_who_would_leave():
    rows = BY_HEADER[
        ("Split of two-buyers.json", "A", "B", "C", "Worst excess", "Who would leave together")
    ]
    found = game("buyers")
    for row in rows:
        rule = row["Split of two-buyers.json"].strip("`")
        verdict = judged(found, objections_of(found), rule, payoff(rule, "buyers"))
        assert [row[site] for site in "ABC"] == [four(amount) for amount in verdict.payoff]
        assert row["Worst excess"] == four(verdict.worst_excess)
        leaving = "nobody" if verdict.blocking is None else ", ".join(verdict.blocking)
        assert row["Who would leave together"] == leaving
    assert f"Together the three make {found.grand:.0f} credits." in TEXT
    assert found.value(0b011) == found.value(0b101) == found.grand


def test_every_split_that_does_not_hold_is_shown_with_who_would_leave():
    """An even split, or a Shapley value, is never on the page without its verdict."""
    for header, rows in BY_HEADER.items():
        rules = {row.get("Rule") or row.get(header[0]) for row in rows}
        if {"`equal_split`", "`shapley`"} & rules and "A" in header:
            assert "Worst excess" in header
            assert {"In the core", "Who would leave together"} & set(header)


def test_the_way_from_the_market_to_the_nucleolus():
    rows = BY_HEADER["Alpha", "A has", "B has", "C has", "C gains by joining"]
    for row in rows:
        point = between(payoff("market"), payoff("nucleolus"), float(row["Alpha"]))
        assert [row[f"{site} has"] for site in "ABC"] == [four(amount) for amount in point]
        assert row["C gains by joining"] == four(joining(game(), point)[2])
        assert judged(game(), objections_of(game()), "dividend", point).in_core


def test_the_transfers_and_their_cap():
    turnover = sum(line["payment_micro"] for line in cleared()["allocation"]) / 1e6
    half = dividend(payoff("market"), payoff("nucleolus"), alpha=0.5, turnover=turnover)
    a, b, c = (abs(amount) / 1e6 for amount in half.micro)
    assert (half.micro[0] < 0, half.micro[1] < 0, sum(half.micro)) == (True, True, 0)
    assert f"A pays {a:.6f} credits, B pays {b:.6f}, and C receives {c:.6f}" in TEXT
    whole = dividend(payoff("market"), payoff("nucleolus"), alpha=1.0, turnover=turnover)
    assert f"here {0.1 * turnover:.4f} credits" in TEXT
    assert f"this round would stop at {whole.alpha:.4f}" in TEXT


def test_the_alpha_that_makes_joining_worth_its_cost():
    owed = game().alone + 10.0
    needed = break_even(payoff("market"), payoff("nucleolus"), owed)
    assert f"C needs an alpha of {needed[2, 0]:.4f} or more" in TEXT
    assert needed[:2].tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_the_game_without_a_core():
    pairs = TableGame.of("ABC", {"AB": 1.0, "AC": 1.0, "BC": 1.0, "ABC": 1.0})
    assert least_core(pairs, pairs.alone).excess == pytest.approx(1 / 3)
    assert "here 1/3" in TEXT
