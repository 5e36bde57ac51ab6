"""Each figure of the page on joining is what the functions behind its commands compute."""

import functools

import pytest

from economics.incentives.join import join
from economics.incentives.leave import leave
from tests.docs.reading import DOCS, tables
from tests.docs.worked_example import BOOK, cleared

PAGE = DOCS / "howto" / "should-my-site-join.md"
HAS, SPLIT, PARTS, OBJECTIONS, LEAVE, _ = tables(PAGE)
pytestmark = pytest.mark.slow


@functools.cache
def report():
    return join(BOOK, "C", alpha=0.5)


@functools.cache
def rows():
    return {row.site: row for row in leave(BOOK)}


def four(number):
    return f"{round(number, 4) + 0.0:.4f}"


def ends(figure):
    return f"{four(figure.low)} to {four(figure.high)}"


def row(name, figure):
    return (name, four(figure.value), four(figure.low), four(figure.high))


def of(rule):
    return {found.rule: found for found in report().rules}[rule]


def test_what_the_site_has():
    assert [tuple(found.values()) for found in HAS] == [
        row("alone", report().standalone),
        row("at market prices", of("market").payoff),
        row("dividend, alpha 0.5", of("dividend").payoff),
        row("nucleolus", of("nucleolus").payoff),
    ]


def test_the_split():
    assert [tuple(found.values()) for found in SPLIT] == [
        row(f"`{line.line}`", line.amount) for line in report().split
    ]


def test_the_parts():
    parts = report().parts
    assert [tuple(found.values()) for found in PARTS] == [
        row("all sites together", parts.gain),
        row("pooled capacity", parts.capacity),
        row("other GPU types", parts.types),
        row("affinity of sites", parts.affinity),
    ]


def test_who_would_leave_first():
    assert [tuple(found.values()) for found in OBJECTIONS] == [
        (found.rule, *row(", ".join(found.sites), found.slack))
        for found in report().objections
        if found.rule != "nucleolus"
    ]


def test_what_if_one_left():
    def cell(figure):
        return f"{four(figure.value)} ({ends(figure)})"

    assert [tuple(found.values()) for found in LEAVE] == [
        (site, cell(found.rest), cell(found.loses), cell(found.others_lose))
        for site, found in rows().items()
    ]


def sentences():
    game, path = report().game, report().game.path
    gains = {rule: of(rule).gain for rule in ("market", "dividend", "nucleolus")}
    said = {rule: f"{four(gain.value)}" for rule, gain in gains.items()}
    return {
        "draws": f"drawn again, {report().draws} times" * (report().unit == "jobs"),
        "market": f"{said['market']} credits to C at market prices ({ends(gains['market'])})",
        "dividend": f"{said['dividend']} with the dividend ({ends(gains['dividend'])})",
        "nucleolus": f"{said['nucleolus']} at the nucleolus ({ends(gains['nucleolus'])})",
        "brings": f"brings {four(report().marginal.value)} of the {four(cleared()['welfare'])}",
        "cycle": f"go round in {path.period} sweeps, at {four(path.welfare_ratio[0])} to "
        f"{four(path.welfare_ratio[1])} of the welfare of full sharing" * (not path.equilibrium),
        "withholds": f"C starts it: offering nothing, it has {four(path.steps[0].payoff)} instead "
        f"of {four(of('market').payoff.value)}" * (path.steps[0].share == 0.0),
        "endings": f"{report().draws} draws, {game.equilibria} end at an equilibrium and "
        f"{game.cycles} in a cycle" * (not game.unfinished),
    }


@pytest.mark.parametrize(
    "name",
    ["draws", "market", "dividend", "nucleolus", "brings", "cycle", "withholds", "endings"],
)
def test_figures_in_the_text(name):
    sentence = sentences()[name]
    assert sentence
    assert sentence in PAGE.read_text()
