"""Markets of many groups: one search, against rents that regions agree on first.

    python -m bench.regions --jobs 100000 --columns 100 --groups 5000 --processes 1 4 --json

`plain_seconds` is the search over all runs, `seconds_N` the same certificate with the regions
answered by N processes that read them from files (1: in this process, all groups one region).
`split_seconds` is four regions in this process: what splitting costs when nobody helps. `rows` are
those of the largest programme, `peak_mb` the memory it adds. `--gangs` splits the fringe of a
market of gangs instead.
"""

from __future__ import annotations

import argparse
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench.markets import SITES, Sample, sample
from bench.support import peak_mb, report, timed
from economics.clearing.tiers.awards import Awards, awards_of, gain_of
from economics.clearing.tiers.demand import Demand, demand_of
from economics.clearing.tiers.fringes import MOST_TOGETHER, place_gangs_by_region
from economics.clearing.tiers.gangs import Placement, place_gangs
from economics.clearing.tiers.regions import Coordinated, coordinate, keeper, regions_of
from economics.clearing.tiers.search import Tiers, tiers_of
from economics.market import Array, Index

NODES = 20_000


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("jobs", 100_000), ("columns", 100), ("groups", 5_000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--gangs", action="store_true", help="the fringe of whole jobs")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain search out")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    drawn = sample(asked.jobs, asked.columns, asked.groups, seed=asked.seed, gangs=asked.gangs)
    figures: dict[str, Any] = {
        name: getattr(asked, name) for name in ("jobs", "columns", "groups", "seed")
    }
    with threadpool_limits(limits=1):
        figures |= fringe(drawn, asked) if asked.gangs else divisible(drawn, asked)
    report("regions", figures, as_json=asked.json)


def divisible(drawn: Sample, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both ways to the same gap, sorting included."""
    gap, repeats = asked.gap, asked.repeats
    figures: dict[str, Any] = {"gap_asked": gap}
    if not asked.no_plain:
        took, tiers = timed(lambda: _plain(drawn, gap), repeats)
        figures |= {
            "plain_seconds": took.median,
            "plain_spread": took.spread,
            "plain_rows": tiers.served.rows,
            "plain_peak_mb": peak_mb(lambda: _plain(drawn, gap)),
        }
    split, _ = timed(lambda: _coordinated(drawn, gap, 4), repeats)
    figures["split_seconds"] = split.median
    for processes in asked.processes:
        took, found = (
            timed(lambda: _coordinated(drawn, gap, 1), repeats)
            if processes == 1
            else _spread(drawn, gap, processes, repeats)
        )
        figures |= {
            f"seconds_{processes}": took.median,
            f"spread_{processes}": took.spread,
            f"gap_{processes}": found.tiers.gap,
            f"rounds_{processes}": found.rounds,
            f"rows_{processes}": max(found.rows, found.tiers.served.rows),
        }
    figures["peak_mb"] = peak_mb(lambda: _coordinated(drawn, gap, 1))
    return figures


def _demand(drawn: Sample) -> Demand:
    return demand_of(drawn.lines, drawn.group, drawn.bid, drawn.weight)


def _regions(demand: Demand, count: int) -> list[Index]:
    return regions_of(demand, np.arange(demand.groups) % SITES, count)


def _plain(drawn: Sample, gap: float) -> Tiers:
    return tiers_of(_demand(drawn), drawn.capacity, tolerance=gap)


def _coordinated(drawn: Sample, gap: float, count: int, **how: Any) -> Coordinated:
    demand = _demand(drawn)
    regions = _regions(demand, count)
    return coordinate(demand, drawn.capacity, tolerance=gap, regions=regions, **how)


def _spread(drawn: Sample, gap: float, processes: int, repeats: int) -> Any:
    """Workers are up; the regions are written anew each time, as a round would."""
    with get_context("spawn").Pool(processes) as pool, tempfile.TemporaryDirectory() as folder:
        kept = keeper(Path(folder))
        return timed(
            lambda: _coordinated(drawn, gap, processes, apply=pool.map, kept=kept), repeats
        )


def fringe(drawn: Sample, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the fringe, and what is lost to the relaxation: in one programme and in parts."""
    demand, capacity = _demand(drawn), drawn.capacity
    tiers = tiers_of(demand, capacity, tolerance=1e-6)
    taken = _whole(demand, tiers)
    base = (demand, tiers.rent, taken, capacity)
    one, placed = timed(lambda: place_gangs(*base, relaxed=tiers.bound, nodes=NODES), asked.repeats)
    figures: dict[str, Any] = {
        "one_seconds": one.median,
        "one_gap": _lost(demand, placed.line, tiers.bound),
    }
    for processes in asked.processes:
        with get_context("spawn").Pool(processes) as pool:

            def parts(apply: Any = map if processes == 1 else pool.map, most: int = 0) -> Placement:
                return place_gangs_by_region(
                    *base,
                    relaxed=tiers.bound,
                    nodes=NODES,
                    regions=_regions(demand, max(asked.processes)),
                    apply=apply,
                    most=most,
                )

            took, placed = timed(parts, asked.repeats)
        figures[f"seconds_{processes}"] = took.median
        figures[f"gap_{processes}"] = _lost(demand, placed.line, tiers.bound)
    return figures | {"most_together": MOST_TOGETHER}


def _whole(demand: Demand, tiers: Tiers) -> Index:
    """The gangs that the relaxation serves in full."""
    served = tiers.served
    split = awards_of(demand, tiers.runs, served.run, served.line, served.share)
    taken = np.full(demand.bid.size, -1)
    full = split.share > 1 - 1e-9
    taken[split.place[full]] = split.line[full]
    return taken


def _lost(demand: Demand, line: Index, bound: float) -> float:
    served: Index = np.flatnonzero(line >= 0)
    whole: Array = np.ones(served.size)
    return 1 - gain_of(demand, Awards(served, line[served], whole)) / bound


if __name__ == "__main__":
    main()
