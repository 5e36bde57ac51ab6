"""Reports in plain text, for a terminal. Every figure stands with its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence

from economics.incentives.best_response import CYCLE, EQUILIBRIUM, Path, Stand
from economics.incentives.blockers import Objection
from economics.incentives.bootstrap import JOBS, Figure
from economics.incentives.join import DIVIDEND, BreakEven, Endings, JoinReport
from economics.incentives.leave import Leaving
from economics.incentives.sensitivity import Knob

WIDTH = 30  # of the first column
UNITS = "credits per round"


def join_summary(report: JoinReport) -> str:
    """Whether to join, with the reasons."""
    drawn = _drawn(report.rounds, report.unit, report.draws)
    return "\n".join(
        [
            f"Site {report.site} with {_others(report)}; {UNITS}; {drawn}, seed {report.seed}",
            *_table("What it has", [("alone", report.standalone), *_rules(report)]),
            *_table(
                "Gain at market prices, from",
                [(row.line.replace("_", " "), row.amount) for row in report.split],
            ),
            *_table("What it adds", _added(report)),
            *_table("The gain of all sites", _parts(report)),
            *_knobs(report.sensitivity),
            *_table(
                "Who would leave first (slack)",
                [(_group(report, row), row.slack) for row in report.objections],
            ),
            *_endings(report.game, drawn_of=report.rounds if report.unit != JOBS else None),
            *_break_even(report.break_even, report),
        ]
    )


def leave_summary(leavings: Sequence[Leaving]) -> str:
    """What each site and the others give up when it leaves."""
    if not leavings:
        return "no site is in every round"
    first = leavings[0]
    lines = [f"{UNITS}; {_drawn(first.rounds, first.unit, first.draws)}"]
    for row in leavings:
        lines += _table(
            f"Without {row.site}",
            [
                ("the others make", row.rest),
                ("it makes alone", row.standalone),
                ("it gives up", row.loses),
                ("the others give up", row.others_lose),
                ("marginal contribution", row.marginal),
            ],
        )
    return "\n".join(lines)


def path_summary(path: Path) -> str:
    """How the game of offers ended; a cycle is never called an equilibrium."""
    return "\n".join([*_ending(path), *(_stand(stand) for stand in path.stands)])


def _others(report: JoinReport) -> str:
    return ", ".join(name for name in report.sites if name != report.site) or "nobody"


def _group(report: JoinReport, found: Objection) -> str:
    """The rule and the coalition, by those left out where these are fewer."""
    out = [name for name in report.sites if name not in found.sites]
    few = ", ".join(found.sites)
    who = few if len(found.sites) <= len(out) + 1 else f"all but {', '.join(out)}"
    return f"{found.rule}: {who}{' BLOCKS' if found.blocks else ''}"


def _drawn(rounds: int, unit: str, draws: int) -> str:
    many = f"{rounds} rounds" if rounds > 1 else "one round"
    return f"{many}, 95 % intervals from {draws} draws of {'its ' if unit == JOBS else ''}{unit}"


def _table(title: str, rows: Sequence[tuple[str, Figure]]) -> list[str]:
    if not rows:
        return []
    return ["", f"{title:<{WIDTH}}{'value':>12}{'from':>12}{'to':>12}"] + [
        f"{name:<{WIDTH}}{_number(at.value)}{_number(at.low)}{_number(at.high)}"
        for name, at in rows
    ]


def _number(amount: float) -> str:
    return f"{round(amount, 4) + 0.0:>12.4f}"


def _rules(report: JoinReport) -> list[tuple[str, Figure]]:
    rows = []
    for rule in report.rules:
        name = f"dividend, alpha {report.alpha:g}" if rule.rule == DIVIDEND else rule.rule
        rows += [(name, rule.payoff), ("  more than alone", rule.gain)]
    return rows


def _added(report: JoinReport) -> list[tuple[str, Figure]]:
    found = report.contributions
    which = "all" if found.listed else "drawn"
    return [
        ("to all others", report.marginal),
        (f"to {found.coalitions} coalitions ({which})", found.median),
        ("  least", found.least),
        ("  lower quartile", found.lower_quartile),
        ("  upper quartile", found.upper_quartile),
        ("  most", found.most),
    ]


def _parts(report: JoinReport) -> list[tuple[str, Figure]]:
    parts = report.parts
    return [
        ("in credits", parts.gain),
        ("  pooled capacity", parts.capacity),
        ("  other GPU types", parts.types),
        ("  affinity of sites", parts.affinity),
        ("over what they make alone", parts.gain_share),
        ("  with mean speeds", parts.pooling_share),
    ]


def _knobs(knobs: Sequence[Knob]) -> list[str]:
    return [
        line
        for knob in knobs
        for line in _table(
            f"Dividend gain by {knob.knob}",
            [(f"  {point.setting:.4g}", point.dividend) for point in knob.points],
        )
    ]


def _endings(game: Endings | None, *, drawn_of: int | None) -> list[str]:
    if game is None:
        return []
    counted = game.equilibria + game.cycles + game.unfinished
    where = f"Of {counted} rounds" if drawn_of else f"Of the round and its {counted - 1} draws"
    return [
        "",
        "If every site chose what it offers",
        *_ending(game.path),
        *(_stand(stand) for stand in game.path.stands),
        f"{where}, {game.equilibria} end at an equilibrium, {game.cycles} in a cycle and "
        f"{game.unfinished} are unfinished.",
        *_table(
            "Welfare over full sharing",
            [("  at worst", game.least_welfare_ratio), ("  at best", game.most_welfare_ratio)],
        )[1:],
    ]


def _ending(path: Path) -> list[str]:
    least, most = path.welfare_ratio
    if path.outcome == EQUILIBRIUM:
        return [
            f"Equilibrium after {path.sweeps} sweeps: {least:.4f} of the welfare of full sharing."
        ]
    span = f"{least:.4f} to {most:.4f} of the welfare of full sharing"
    if path.outcome == CYCLE:
        return [f"No equilibrium: the sites go round in {path.period} sweeps, at {span}."]
    return [f"No equilibrium in {path.sweeps} sweeps; the last profile is at {span}."]


def _stand(stand: Stand) -> str:
    offered = f"{_span(stand.share, 100, ' %')} at {_span(stand.reserve)} times its reserve"
    full = f"with full sharing {stand.full_sharing:.4g}"
    return f"  {stand.site} offers {offered} and has {_span(stand.payoff)}; {full}"


def _span(ends: tuple[float, float], times: float = 1.0, unit: str = "") -> str:
    least, most = (f"{end * times:.4g}{unit}" for end in ends)
    return least if least == most else f"{least} to {most}"


def _break_even(found: BreakEven, report: JoinReport) -> list[str]:
    rows = [
        (
            f"dividend, alpha {report.alpha:g}" if rule.rule == DIVIDEND else rule.rule,
            rule.gain,
        )
        for rule in report.rules
    ]
    lines = _table("Joining pays up to a cost of", rows)
    cost = f"At a cost of {found.joining_cost:g}"
    if found.alpha is None:
        return [*lines, f"{cost} no alpha is enough."]
    at = found.alpha
    return [
        *lines,
        f"{cost} it pays from alpha {at.value:.4f} on ({at.low:.4f} to {at.high:.4f}).",
    ]
