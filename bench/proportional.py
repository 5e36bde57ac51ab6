"""Proportional fairness by proportional response, to a proved gap, against Clarabel.

    python -m bench.proportional --buyers 10000 --pools 100 --json

Every buyer can use ten pools. The referee solves the same Eisenberg-Gale programme as a cone
programme, written flat and sparse in cvxpy.
"""

from __future__ import annotations

import argparse
from typing import Any

import cvxpy as cp
import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from bench.support import report, timed
from economics.policies.response import Fisher, respond

FEASIBLE = 10


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--buyers", type=int, default=10_000)
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    market = drawn(asked.buyers, asked.pools, asked.seed)
    with threadpool_limits(limits=1):
        took, found = timed(lambda: respond(market, gap=asked.gap), asked.repeats)
    plain, utility = timed(lambda: referee(market), asked.repeats)
    behind = market.budget @ (np.log(utility) - np.log(found.utility)) / market.budget.sum()
    figures: dict[str, Any] = {
        **{name: getattr(asked, name) for name in ("buyers", "pools", "seed")},
        "gap_asked": asked.gap,
        "seconds": took.median,
        "seconds_spread": took.spread,
        "gap": found.gap,
        "rounds": found.rounds,
        "clarabel_seconds": plain.median,
        "clarabel_spread": plain.spread,
        "clarabel_ratio": plain.median / took.median,
        "behind_clarabel": float(behind),
    }
    report("proportional", figures, as_json=asked.json)


def drawn(buyers: int, pools: int, seed: int) -> Fisher:
    """Log-normal gains and budgets."""
    draw = np.random.default_rng(seed)
    feasible = min(FEASIBLE, pools)
    good = np.sort([draw.choice(pools, feasible, replace=False) for _ in range(buyers)], axis=1)
    return Fisher(
        buyer=np.repeat(np.arange(buyers), feasible),
        good=good.ravel(),
        value=np.exp(draw.normal(0, 0.5, good.size)),
        budget=np.exp(draw.normal(0, 0.6, buyers)),
        supply=np.exp(draw.normal(0, 0.3, pools)) * buyers / pools,
    )


def referee(market: Fisher) -> np.ndarray:
    """The buyers' utilities, (B,), by a cone programme."""
    pairs, buyers = market.buyer.size, market.budget.size
    amount = cp.Variable(pairs, nonneg=True)
    at = np.arange(pairs)
    gains = csr_array((market.value, (market.buyer, at)), shape=(buyers, pairs))
    taking = csr_array((np.ones(pairs), (market.good, at)), shape=(market.supply.size, pairs))
    utility = gains @ amount
    objective = cp.Maximize((market.budget / market.budget.sum()) @ cp.log(utility))
    problem = cp.Problem(objective, [taking @ amount <= market.supply])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL, problem.status
    return np.asarray(utility.value)


if __name__ == "__main__":
    main()
