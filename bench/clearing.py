"""How fast a round is cleared, against the floor and against what one would do without tiers.

    python -m bench.clearing --jobs 100000 --columns 100 --groups 50 --json

The floor is what nobody can do without: sorting the bids by group and summing them up. `seconds`
is the allocation of every job with its certificate; `price_seconds` is the exact optimum from
there and the price rule. `--peers` adds the same programme job by job, `--gangs` whole jobs,
`--churn` the next round from the last one's cuts and prices.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench.markets import SITES, Sample, churned, sample
from bench.support import Spread, peak_mb, report, timed
from economics.clearing.allocation import linear_of
from economics.clearing.program import Program, program_of
from economics.clearing.solver import minimise
from economics.clearing.tiers.allocation import award_by_tiers, searched
from economics.clearing.tiers.awards import Awards, awards_of, gain_of, used_hours
from economics.clearing.tiers.demand import Demand, demand_of, sorted_order
from economics.clearing.tiers.envelope import bound_at, choices
from economics.clearing.tiers.gangs import place_gangs
from economics.clearing.tiers.search import Tiers, tiers_of
from economics.market import Array
from economics.pricing import Wish


def main() -> None:
    """Run what was asked for."""
    asked = _arguments()
    with threadpool_limits(limits=1):
        report("clearing", _figures(asked), as_json=asked.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("jobs", 100_000), ("columns", 100), ("groups", 50), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--gangs", action="store_true", help="whole jobs")
    parser.add_argument("--churn", action="store_true", help="the next round, 5 %% of jobs new")
    parser.add_argument("--peers", action="store_true", help="the same programme job by job")
    parser.add_argument("--no-prices", action="store_true", help="leave the price rule out")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _figures(asked: argparse.Namespace) -> dict[str, Any]:
    drawn = sample(asked.jobs, asked.columns, asked.groups, seed=asked.seed, gangs=asked.gangs)
    repeats = asked.repeats
    extra = peak_mb(lambda: _certified(drawn, asked.gap))  # the first run: nothing is at hand yet
    floor, _ = timed(lambda: _floor(drawn), repeats)
    took, (tiers, gap) = timed(lambda: _certified(drawn, asked.gap), repeats)
    figures: dict[str, Any] = {
        **{name: getattr(asked, name) for name in ("jobs", "columns", "groups", "seed")},
        "gap_asked": asked.gap,
        "seconds": took.median,
        "seconds_spread": took.spread,
        "floor_seconds": floor.median,
        "floor_ratio": took.median / floor.median,
        "gap": gap,
        "lp_rows": tiers.served.rows,
        "lp_rounds": tiers.rounds,
        "peak_mb": extra,
    }
    if asked.gangs:
        figures |= _gangs(drawn, repeats)
    if asked.churn:
        figures |= _next_round(drawn, asked.gap, repeats)
    if not (asked.no_prices or asked.gangs):
        figures["price_seconds"] = _price_rule(drawn, repeats).median
    if asked.peers:
        figures |= _job_by_job(drawn, repeats)
    return figures


def _floor(drawn: Sample) -> Array:
    order = sorted_order(drawn.group, drawn.bid)
    weight = drawn.weight[order]
    np.cumsum(weight)
    return np.cumsum(weight * drawn.bid[order])


def _certified(drawn: Sample, gap: float, start: Array | None = None) -> tuple[Tiers, float]:
    """The award of every job, and its distance from the bound, both counted job by job."""
    demand = _demand(drawn)
    home = np.arange(demand.groups) % SITES
    tiers = searched(demand, drawn.capacity, home, tolerance=gap, start=start)
    served = tiers.served
    awards = awards_of(demand, tiers.runs, served.run, served.line, served.share)
    return tiers, _gap(drawn, demand, awards, tiers.rent)


def _demand(drawn: Sample) -> Demand:
    return demand_of(drawn.lines, drawn.group, drawn.bid, drawn.weight)


def _gap(drawn: Sample, demand: Demand, awards: Awards, rent: Array) -> float:
    used = used_hours(demand, awards, drawn.capacity.size)
    assert (used <= drawn.capacity * (1 + 1e-9)).all(), "a pool is oversold"
    given = np.bincount(awards.place, awards.share, drawn.bid.size)
    assert (given <= 1 + 1e-9).all(), "a job has more than it asked for"
    bound = bound_at(drawn.capacity, rent, choices(demand, rent))
    return (bound - gain_of(demand, awards)) / bound


def _gangs(drawn: Sample, repeats: int) -> dict[str, Any]:
    """Whole jobs: the relaxation, and what is lost to it when nobody is split."""
    demand = _demand(drawn)
    relaxed, tiers = timed(
        lambda: tiers_of(_demand(drawn), drawn.capacity, tolerance=1e-6), repeats
    )
    served = tiers.served
    split = awards_of(demand, tiers.runs, served.run, served.line, served.share)
    taken = np.full(drawn.bid.size, -1)
    full = split.share > 1 - 1e-9
    taken[split.place[full]] = split.line[full]
    whole, placed = timed(
        lambda: place_gangs(
            *(demand, tiers.rent, taken, drawn.capacity), relaxed=tiers.bound, nodes=20_000
        ),
        repeats,
    )
    served_jobs = np.flatnonzero(placed.line >= 0)
    awards = Awards(served_jobs, placed.line[served_jobs], np.ones(served_jobs.size))
    return {
        "relaxation_seconds": relaxed.median,
        "gang_seconds": relaxed.median + whole.median,
        "gang_ratio": (relaxed.median + whole.median) / relaxed.median,
        "gang_gap": _gap(drawn, demand, awards, tiers.rent),
    }


def _next_round(drawn: Sample, gap: float, repeats: int) -> dict[str, Any]:
    """The next round, cold and from the last one's cuts and prices."""
    last = tiers_of(_demand(drawn), drawn.capacity, tolerance=0.0)
    after = churned(drawn, 0.05, seed=1)
    cold, _ = timed(lambda: _certified(after, gap), repeats)
    warm, (_, reached) = timed(lambda: _certified(after, gap, last.served.rent), repeats)
    return {
        "churn": 0.05,
        "next_cold_seconds": cold.median,
        "next_warm_seconds": warm.median,
        "next_ratio": cold.median / warm.median,
        "next_gap": reached,
    }


def _price_rule(drawn: Sample, repeats: int) -> Spread:
    """The exact optimum and the one price rule, from a first round without earlier prices."""
    market = drawn.market()
    wish = Wish(np.full(market.pools, np.nan), seller_share=0.5, epsilon=0.005)
    took, _ = timed(lambda: award_by_tiers(market, nodes=1).rents(wish), repeats)
    return took


def _job_by_job(drawn: Sample, repeats: int) -> dict[str, Any]:
    """The same programme with a row for every job: HiGHS on the matrix, and cvxpy with Clarabel."""
    program = program_of(drawn.market())
    linear = linear_of(program)
    tight, tiers = timed(lambda: _certified(drawn, 1e-6), repeats)
    loose, _ = timed(lambda: _certified(drawn, 1e-4), repeats)
    direct, solved = timed(lambda: minimise(linear), 1)
    cone, value = timed(lambda: _by_clarabel(program), 1)
    after = churned(drawn, 0.05, seed=1)
    last = tiers[0]
    warm, _ = timed(lambda: _certified(after, 1e-4, last.served.rent), repeats)
    cold, _ = timed(lambda: minimise(linear_of(program_of(after.market()))), 1)
    return {
        "tiers_1e-4_seconds": loose.median,
        "tiers_1e-6_seconds": tight.median,
        "highs_seconds": direct.median,
        "highs_ratio": direct.median / tight.median,
        "clarabel_seconds": cone.median,
        "clarabel_ratio": cone.median / loose.median,
        "welfare_difference": abs(-solved.objective - tiers[0].value) / tiers[0].value,
        "clarabel_difference": abs(value - tiers[0].value) / tiers[0].value,
        "cold_next_highs_seconds": cold.median,
        "next_round_ratio": cold.median / warm.median,
    }


def _by_clarabel(program: Program) -> float:
    import cvxpy as cp

    share = cp.Variable(program.gain.size, nonneg=True)
    rows = program.matrix @ share <= program.limit
    problem = cp.Problem(cp.Maximize(program.gain @ share), [rows])
    return float(problem.solve(solver=cp.CLARABEL))


if __name__ == "__main__":
    main()
