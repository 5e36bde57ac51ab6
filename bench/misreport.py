"""What one site gains by misreporting, and a supplier by claiming another throughput.

    python -m bench.misreport --json

The first table looks for the best lie of one site among more and more of them, at uniform prices.
The others let a site without tenants, and one with, claim a multiple of its throughput under each
pay rule. All are on made-up markets; every mean has its bootstrap interval.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from threadpoolctl import threadpool_limits

from bench.support import report
from economics.incentives.claims import ClaimRow, Pay, claim_study
from economics.incentives.intervals import Interval
from economics.incentives.misreport import Kind, StudyRow, study

SITES = [3, 6, 12, 24]
LIES = "| Sites | " + " | ".join(kind.value for kind in Kind) + " |"
CLAIMS = "| Claim | " + " | ".join(rule.value for rule in Pay) + " | welfare lost |"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sites", type=int, nargs="+", default=SITES)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--claim-sites", type=int, default=6)
    parser.add_argument("--claim-instances", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with threadpool_limits(limits=1):
        begun = time.perf_counter()
        lies = study(asked.sites, asked.instances, asked.seed)
        told = time.perf_counter()
        claims = claim_study(asked.claim_instances, asked.seed, sites=asked.claim_sites)
        claimed = time.perf_counter()
        mixed = claim_study(
            asked.claim_instances, asked.seed, sites=asked.claim_sites, tenants=True
        )
    print("\n".join(table_of_lies(lies)), end="\n\n")
    print("A supplier without tenants:", *table_of_claims(claims), sep="\n", end="\n\n")
    print("A site with tenants:", *table_of_claims(mixed), sep="\n", end="\n\n")
    figures: dict[str, Any] = {
        "sites": asked.sites,
        "instances": asked.instances,
        "claim_sites": asked.claim_sites,
        "claim_instances": asked.claim_instances,
        "seed": asked.seed,
        "lie_seconds": told - begun,
        "claim_seconds": claimed - told,
    }
    rows = {
        "lies": [asdict(row) for row in lies],
        "claims": [asdict(row) for row in claims],
        "claims_with_tenants": [asdict(row) for row in mixed],
    }
    report("misreport", {**figures, **rows} if asked.json else figures, as_json=asked.json)


def table_of_lies(rows: Iterable[StudyRow]) -> Iterator[str]:
    """Mean gain of the best lie over the truthful payoff, and how often there is any."""
    by_sites: dict[int, list[StudyRow]] = {}
    for row in rows:
        by_sites.setdefault(row.sites, []).append(row)
    yield from (LIES, "| --- " * (len(Kind) + 1) + "|")
    for sites, kinds in by_sites.items():
        cells = [f"{percent(row.gain)} ({share(row.gaining)})" for row in kinds]
        yield f"| {sites} | " + " | ".join(cells) + " |"


def table_of_claims(rows: Iterable[ClaimRow]) -> Iterator[str]:
    """Mean gain over the truthful profit, and how often there is any."""
    by_claim: dict[float, list[ClaimRow]] = {}
    for row in rows:
        by_claim.setdefault(row.factor, []).append(row)
    yield from (CLAIMS, "| --- " * (len(Pay) + 2) + "|")
    for factor, rules in by_claim.items():
        cells = [f"{percent(row.gain)} ({share(row.gaining)})" for row in rules]
        lost = next(row.welfare_loss for row in rules if row.pay is Pay.SHIPPED)
        yield f"| x{factor:g} | " + " | ".join((*cells, percent(lost))) + " |"


def percent(mean: Interval | None) -> str:
    """A mean with its interval, per cent."""
    if mean is None or mean.low is None or mean.high is None:
        return "–"
    return f"{100 * mean.estimate:.2f} % [{100 * mean.low:.2f}, {100 * mean.high:.2f}]"


def share(part: Interval | None) -> str:
    """A share, per cent."""
    return "–" if part is None else f"{100 * part.estimate:.0f} %"


if __name__ == "__main__":
    main()
