"""What sites gain by taking part: made-up markets, and the sites of a real cluster's trace.

    python -m bench.incentives --json

The first table is the gain of four sites as their speeds come to differ; the second where sites end
that choose in turn what they offer. Both are drawn; every mean has its bootstrap interval. The
third puts the largest virtual clusters of the Helios trace (SenseTime, May 2020) into one
federation, a book for each day, from the folder that HANSE_DATA names; without it the table is left
out and the reason is printed. The trace has loads and capacities only: GPU types, classes and
speeds (Gavel's table), reserves and bids are assumptions, stated in `helios_books`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench.support import report
from economics.book import read_book
from economics.incentives.best_response import CYCLE, EQUILIBRIUM, best_response
from economics.incentives.best_response import Path as Walk
from economics.incentives.bootstrap import Figure, Sample
from economics.incentives.decomposition import Decomposition, decompose
from economics.incentives.draws import draw
from economics.incentives.join import join
from economics.incentives.leave import Leaving, leave
from economics.incentives.summaries import join_summary

Row = dict[str, Any]
SIGMAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
SITES = [2, 3, 5, 8]
LARGEST = 10  # virtual clusters of the trace that take part
TYPES = ("v100", "p100", "k80")  # the largest cluster has the first, the next the second, ...
RESERVES = {"v100": 2.48, "p100": 1.46, "k80": 0.45}  # credits per GPU-hour, as listed on demand
CLASSES = (
    *(("ResNet-18", "64"), ("Transformer", "64"), ("Recommendation", "2048"), ("ResNet-50", "64")),
    *(("LM", "80"), ("CycleGAN", ""), ("A3C", "")),
)
WORTH = (1.25, 7.5)  # reserves that a GPU-hour at home is worth to a tenant, drawn once per class
TRANSFER = 0.125  # mean reserves per GPU-hour away from home


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sites", type=int, nargs="+", default=SITES)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--site", default="vc6YE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    seeds = range(asked.seed, asked.seed + asked.instances)
    with threadpool_limits(limits=1):
        begun = time.perf_counter()
        rows = {"alike": curve(seeds, alike=True), "unequal": curve(seeds, alike=False)}
        curved = time.perf_counter()
        ends = [endings(seeds, sites) for sites in asked.sites]
        ended = time.perf_counter()
        trace = helios(asked.site, asked.seed)
    print("\n".join(table_of_curves(rows)), end="\n\n")
    print("\n".join(table_of_endings(ends)), end="\n\n")
    figures: Row = {
        "sites": asked.sites,
        "instances": asked.instances,
        "seed": asked.seed,
        "curve_seconds": curved - begun,
        "ending_seconds": ended - curved,
        "trace_seconds": time.perf_counter() - ended,
    }
    told = {"curves": rows, "endings": ends, "helios": trace}
    report("incentives", {**figures, **told} if asked.json else figures, as_json=asked.json)


def curve(seeds: Sequence[int], *, alike: bool) -> list[Row]:
    """The gain of four sites over what they make alone, by sigma."""
    rows = []
    for sigma in SIGMAS:
        load = 1.1 if alike else None
        books = (draw(seed, sites=4, sigma=sigma, alike=alike, load=load) for seed in seeds)
        parts = [decompose(book) for book in books]
        sample: Sample[Decomposition] = Sample.of_rounds(parts, seed=0)
        rows.append(
            {
                "sigma": sigma,
                "gain": asdict(sample.mean(lambda row: row.gain_share)),
                "median": float(np.median([row.gain_share for row in parts])),
                "pooling": asdict(sample.mean(lambda row: row.pooling_share)),
            }
        )
    return rows


def endings(seeds: Sequence[int], sites: int) -> Row:
    """Where best responses in shares offered lead, and what is lost there."""
    found = []
    for seed in seeds:
        book = draw(seed, sites=sites)
        path = best_response(read_book(book), reserves=(1.0,))
        found.append((path, decompose(book)))
    sample = Sample.of_rounds(found, seed=0)

    def lost(row: tuple[Walk, Decomposition]) -> float:
        path, parts = row
        return (1 - path.welfare_ratio[0]) * path.full_sharing / parts.gain if parts.gain else 0.0

    return {
        "sites": sites,
        "welfare": asdict(sample.mean(lambda row: row[0].welfare_ratio[0])),
        "least_welfare": min(path.welfare_ratio[0] for path, _ in found),
        "surplus_lost": asdict(sample.mean(lost)),
        "equilibria": sum(path.outcome == EQUILIBRIUM for path, _ in found),
        "cycles": sum(path.outcome == CYCLE for path, _ in found),
        "unfinished": sum(path.outcome not in (EQUILIBRIUM, CYCLE) for path, _ in found),
    }


def helios(site: str, seed: int) -> list[Row]:
    """Every cluster of the trace: what it has alone and in the federation, over the days."""
    folder = os.environ.get("HANSE_DATA")
    if not folder:
        print("left out: the Helios table, as HANSE_DATA names no folder")
        return []
    books = helios_books(Path(folder), seed)
    rows = leave(books, seed=seed)
    print("\n".join(table_of_sites(rows)), end="\n\n")
    print(join_summary(join(books, site, seed=seed)), end="\n\n")
    return [asdict(row) for row in rows]


def helios_books(folder: Path, seed: int) -> list[Row]:
    """A book for each day: its mean hour at the largest virtual clusters.

    From the trace: GPUs of each cluster, and GPUs running or asked for. Assumed: one GPU type for
    each cluster, in turn by size; two classes of its tenants, in turn; speeds of Gavel's simulation
    table; and bids of `WORTH` reserves for what a GPU-hour at home makes, drawn from the seed.
    """
    speeds, days = _speeds(folder), _days(folder)
    total: dict[str, float] = defaultdict(float)
    for clusters in days.values():
        for name, (gpus, _) in clusters.items():
            total[name] += gpus
    names = sorted(sorted(total), key=lambda name: -total[name])[:LARGEST]
    worth = np.random.default_rng(seed).uniform(*WORTH, (len(names), 2))
    return [_book(names, days[day], speeds, worth) for day in sorted(days)]


def _book(
    names: Sequence[str],
    clusters: dict[str, tuple[float, float]],
    speeds: dict[tuple[str, str], float],
    worth: np.ndarray[Any, np.dtype[np.float64]],
) -> Row:
    pools, affinity, jobs = [], [], []
    for at, name in enumerate(names):
        kind, (gpus, wanted) = TYPES[at % len(TYPES)], clusters[name]
        pool = {"id": f"{name}.{kind}", "site": name, "gpu": kind, "gpus": round(gpus)}
        pools.append({**pool, "reserve": RESERVES[kind]})
        affinity += [
            {"pool": pool["id"], "class": model, "samples_per_s": rate}
            for (gpu, model), rate in speeds.items()
            if gpu == kind
        ]
        for half in range(2):
            model = CLASSES[(2 * at + half) % len(CLASSES)][0]
            made = speeds[kind, model] * 0.0036  # Msamples of a GPU-hour at home
            job = {"id": f"{name}-{half}", "site": name, "class": model}
            value = worth[at, half] * RESERVES[kind] / made
            jobs.append({**job, "value": float(value), "demand": wanted / 2 * made})
    fee = TRANSFER * float(np.mean(list(RESERVES.values())))
    return {
        "format": "hanse.book/1",
        "round_hours": 1.0,
        "pools": pools,
        "affinity": affinity,
        "transfer": [
            {"from": home, "to": site, "per_gpu_hour": fee}
            for home in names
            for site in names
            if home != site
        ],
        "jobs": jobs,
        "rules": {"epsilon": 0.0},
    }


def _speeds(folder: Path) -> dict[tuple[str, str], float]:
    """{(GPU type, model): samples/s on one GPU}; of steps where a model has no batch size."""
    found = {}
    with (folder / "gavel" / "isolated_throughputs.csv").open() as file:
        for row in csv.DictReader(file):
            one = row["table"], row["placement"], row["scale_factor"]
            wanted = (row["model"], row["batch_size"]) in CLASSES
            if wanted and one == ("simulation", "consolidated", "1"):
                rate = float(row["steps_per_s"]) * int(row["batch_size"] or 1)
                found[row["gpu"], row["model"]] = rate
    return found


def _days(folder: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """{day: {cluster: (GPUs, GPUs running or asked for)}}, means over the day."""
    seen: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    path = folder / "helios" / "earth_vc_5min_2020-05-01_21.csv.gz"
    points: dict[str, list[Row]] = defaultdict(list)
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            points[row["time"]].append(row)
    for moment, rows in points.items():
        if not any(int(row["running_gpu_num"]) for row in rows):
            continue  # maintenance, or a gap in the log
        for row in rows:
            wanted = int(row["running_gpu_num"]) + int(row["pending_gpu_num"])
            seen[moment[:10]][row["vc"]].append((int(row["total_gpu_num"]), wanted))
    return {
        day: {
            name: (float(np.mean([at[0] for at in rows])), float(np.mean([at[1] for at in rows])))
            for name, rows in clusters.items()
        }
        for day, clusters in seen.items()
    }


def table_of_curves(curves: dict[str, list[Row]]) -> Iterator[str]:
    """Gain by sigma, per cent."""
    yield "| Sigma | " + " | ".join(f"{name}, mean | {name}, median" for name in curves) + " |"
    yield "| --- " * (2 * len(curves) + 1) + "|"
    for rows in zip(*curves.values(), strict=True):
        cells = (f"{_percent(row['gain'])} | {100 * row['median']:.1f} %" for row in rows)
        yield f"| {rows[0]['sigma']} | " + " | ".join(cells) + " |"


def table_of_endings(rows: Sequence[Row]) -> Iterator[str]:
    """Welfare where the paths end, over that of full sharing."""
    yield "| Sites | Welfare, mean | least | Surplus lost | Equilibria | Cycles | Unfinished |"
    yield "| --- " * 7 + "|"
    for row in rows:
        ended = " | ".join(str(row[key]) for key in ("equilibria", "cycles", "unfinished"))
        welfare = f"{_percent(row['welfare'])} | {100 * row['least_welfare']:.1f} %"
        yield f"| {row['sites']} | {welfare} | {_percent(row['surplus_lost'])} | {ended} |"


def table_of_sites(rows: Sequence[Leaving]) -> Iterator[str]:
    """Credits per round of each site of the trace."""
    yield "| Site | Alone | Gives up by leaving | The others give up |"
    yield "| --- " * 4 + "|"
    for row in rows:
        cells = (_credits(row.standalone), _credits(row.loses), _credits(row.others_lose))
        yield f"| {row.site} | " + " | ".join(cells) + " |"


def _percent(figure: Row) -> str:
    value, low, high = (round(100 * figure[key], 1) + 0.0 for key in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _credits(figure: Figure) -> str:
    return f"{figure.value:.1f} [{figure.low:.1f}, {figure.high:.1f}]"


if __name__ == "__main__":
    main()
