"""Errors, coverage and speed of throughput forecasts, on measured steps and on made-up ones.

`python -m bench.throughput [--json]`. The table of Pollux comes from the folder that HANSE_DATA
names; without it the measured tables are left out and the reason is printed. The plain form of
Pollux is fitted to the same samples in the same call. Errors are in per cent of the measured step
time. Speeds are of one thread.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.support import report, timed
from bench.throughput_plain import fit_plain
from federation.affinity.events import Machine, replay
from federation.affinity.mva import Network, bound, rounds_per_s
from federation.affinity.network_prior import NetworkPrior
from federation.affinity.samples import Sample
from federation.affinity.step_profile import chain
from federation.affinity.tally import gather_columns, merge
from federation.affinity.throughput import ThroughputModel, fit, fit_tally, priced, refit

PATH = Path("pollux") / "t4_placements.csv.gz"
LARGER = Path("pollux") / "t4_scalability.csv.gz"
SPLITS = range(8)
CELL_SPLITS = range(500, 505)
REPEATS = 9
LARGE = 10_000_000
LAST_SEEN = {"larger_from_4": 4, "larger_from_16": 16}  #: greatest replicas of the samples
BANDS = {"8_16": (8, 16), "20_32": (20, 32), "33_64": (33, 64)}  #: replicas that are foretold
POWERS = {"growth_tree": 0.0, "growth_quarter": 0.25, "growth_half": 0.5, "growth_ring": 1.0}
Samples = list[Sample]


def measured(folder: Path) -> dict[str, Samples]:
    """Samples of the six applications of Pollux, by name."""
    found: dict[str, Samples] = {}
    with gzip.open(folder / PATH, "rt") as file:
        for row in csv.DictReader(file):
            digits = [int(digit) for digit in row["placement"]]
            batch, step, sync = (float(row[key]) for key in ("local_bsz", "step_time", "sync_time"))
            sample = Sample(len(digits), sum(digits), batch, 0, step, sync)
            found.setdefault(row["model"], []).append(sample)
    return dict(sorted(found.items()))


def larger(folder: Path) -> dict[str, Samples]:
    """Samples of the same applications on 6 to 16 nodes, up to 64 replicas, by name."""
    found: dict[str, Samples] = {}
    with gzip.open(folder / LARGER, "rt") as file:
        for row in csv.DictReader(file):
            nodes, replicas = int(row["num_nodes"]), int(row["num_replicas"])
            batch, step, sync = (float(row[key]) for key in ("local_bsz", "step_time", "sync_time"))
            sample = Sample(nodes, replicas, batch, 0, step, sync)
            found.setdefault(row["model"], []).append(sample)
    return dict(sorted(found.items()))


def half_of_cells(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """Samples of half of the (nodes, replicas, local batch), and of the others."""
    cells = sorted({(one.nodes, one.replicas, one.local_batch) for one in samples})
    order = np.random.default_rng(seed).permutation(len(cells))
    kept = {cells[place] for place in order[: len(cells) // 2]}
    inside = [(one.nodes, one.replicas, one.local_batch) in kept for one in samples]
    seen = [one for one, held in zip(samples, inside, strict=True) if held]
    return seen, [one for one, held in zip(samples, inside, strict=True) if not held]


def halves(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """Samples of half of the (nodes, replicas), and of the others."""
    sizes = sorted({(one.nodes, one.replicas) for one in samples})
    order = np.random.default_rng(seed).permutation(len(sizes))
    kept = {sizes[place] for place in order[: len(sizes) // 2]}
    seen = [one for one in samples if (one.nodes, one.replicas) in kept]
    return seen, [one for one in samples if (one.nodes, one.replicas) not in kept]


def small(samples: Samples, probe: bool) -> tuple[Samples, Samples]:
    """Samples of at most 4 replicas, with one of 16 replicas if asked, and those of 8 or more.

    The probe is one run: the median batch of those measured at 16. It leaves what is foretold.
    """
    seen = [one for one in samples if one.replicas <= 4]
    asked = [one for one in samples if one.replicas >= 8]
    if probe:
        whole = sorted((one for one in asked if one.replicas == 16), key=lambda s: s.local_batch)
        chosen = whole[len(whole) // 2]
        seen.append(chosen)
        asked = [one for one in asked if one is not chosen]
    return seen, asked


def without_waits(samples: Samples) -> Samples:
    """The same, from loops that report no synchronisation time."""
    return [
        Sample(one.nodes, one.replicas, one.local_batch, one.accumulation, one.step_s)
        for one in samples
    ]


def missed(model: ThroughputModel, samples: Samples) -> dict[str, float]:
    """Mean and median relative error, its median with sign, shares held by the band and marked."""
    forecasts = model.forecasts([one.configuration for one in samples])
    pairs = list(zip(forecasts, samples, strict=True))
    signed = np.array([f.step_s / one.step_s - 1.0 for f, one in pairs])
    error = np.abs(signed)
    return {
        "mean": 100 * float(error.mean()),
        "median": 100 * float(np.median(error)),
        "bias": 100 * float(np.median(signed)),
        "covered": 100 * float(np.mean([f.lower_s <= s.step_s <= f.upper_s for f, s in pairs])),
        "flagged": 100 * float(np.mean([f.extrapolated for f in forecasts])),
        "priced": 100 * float(np.mean([priced(f) for f in forecasts])),
    }


def plain_missed(seen: Samples, asked: Samples) -> dict[str, float]:
    """The same errors of the plain form."""
    foretold = fit_plain(seen)(asked)
    truth = np.array([one.step_s for one in asked])
    error = np.abs(foretold - truth) / truth
    return {"mean": 100 * float(error.mean()), "median": 100 * float(np.median(error))}


def held_out(samples: Samples, splits: Sequence[int] = SPLITS) -> dict[str, float]:
    """Means over the splits: ours, ours without waits, the plain form."""
    rows = []
    for seed in splits:
        seen, hidden = halves(samples, seed)
        ours = missed(fit(seen), hidden)
        blind = missed(fit(without_waits(seen)), hidden)
        rows.append(
            {
                "plain": plain_missed(seen, hidden)["mean"],
                "error": ours["mean"],
                "covered": ours["covered"],
                "error_without_waits": blind["mean"],
                "covered_without_waits": blind["covered"],
            }
        )
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def held_cells(samples: Samples, splits: Sequence[int] = CELL_SPLITS) -> dict[str, float]:
    """Half of the single cells held out, so that each has measured neighbours; ours alone."""
    rows = []
    for seed in splits:
        seen, hidden = half_of_cells(samples, seed)
        ours = missed(fit(seen), hidden)
        blind = missed(fit(without_waits(seen)), hidden)
        rows.append(
            {
                "error": ours["mean"],
                "covered": ours["covered"],
                "error_without_waits": blind["mean"],
                "covered_without_waits": blind["covered"],
            }
        )
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def scaled(samples: Samples, on_more: Samples, most: int) -> dict[str, float]:
    """From at most `most` replicas on four nodes to 6 to 16 nodes: medians, bias, held by the band.

    The bias is the median of forecast over measured less 1: below 0 is foretold too fast.
    """
    seen = [one for one in samples if one.replicas <= most]
    found: dict[str, float] = {}
    for name, (low, high) in BANDS.items():
        asked = [one for one in on_more if low <= one.replicas <= high]
        figures = missed(fit(seen), asked)
        found |= {
            f"plain_{name}": plain_missed(seen, asked)["median"],
            f"median_{name}": figures["median"],
            f"bias_{name}": figures["bias"],
            f"covered_{name}": figures["covered"],
        }
    return found


def grown(samples: Samples) -> dict[str, float]:
    """From at most 4 replicas to 8 and more: medians without and with a probe at 16."""
    seen, asked = small(samples, probe=False)
    probed, rest = small(samples, probe=True)
    alone, with_probe = missed(fit(seen), asked), missed(fit(probed), rest)
    return {
        "plain": plain_missed(seen, asked)["median"],
        "median": alone["median"],
        "covered": alone["covered"],
        "flagged": alone["flagged"],
        "plain_probe": plain_missed(probed, rest)["median"],
        "median_probe": with_probe["median"],
        "covered_probe": with_probe["covered"],
    }


def by_growth(table: dict[str, Samples]) -> dict[str, float]:
    """Mean of the medians without a probe, for other shapes of the growth with replicas."""
    found = {}
    for name, power in POWERS.items():
        prior = NetworkPrior(power=power)
        medians = []
        for samples in table.values():
            seen, asked = small(samples, probe=False)
            medians.append(missed(fit(seen, prior), asked)["median"])
        found[name] = float(np.mean(medians))
    return found


def queues(steps: int) -> dict[str, float]:
    """Mean value analysis against the event model, exponential stages, 1 to 32 workers."""
    worst, high = 0.0, 0.0
    for place, network in enumerate(networks()):
        rates = rounds_per_s(network, 32)
        profiles = exponential_steps(network, 5000, seed=place)
        for workers in range(1, 33):
            story = replay(
                profiles, Machine(1.0), workers, seed=workers, steps=steps, warm_up=10 * workers
            )
            worst = max(worst, abs(story.steps_per_s / rates[workers - 1] - 1.0))
            high = max(high, rates[workers - 1] / bound(network, workers))
    return {"mva_worst": 100 * worst, "mva_of_bound": high}


def networks() -> tuple[Network, ...]:
    """Compute bound, server bound, link bound."""
    return (
        Network(0.2, (0.01, 0.005, 0.01)),
        Network(0.1, (0.01, 0.02, 0.01)),
        Network(0.05, (0.02, 0.001, 0.02)),
    )


def exponential_steps(network: Network, many: int, seed: int) -> list[Any]:
    """Profiles with exponential stages whose means are those of the network exactly."""
    down, server, up = network.demands_s
    means = np.array([down, network.delay_s, server, up])
    drawn = np.random.default_rng(seed).exponential(size=(many, 4))
    return [chain(*row) for row in drawn / drawn.mean(axis=0) * means]


def made_up(many: int, seed: int) -> Samples:
    """Samples of a formula with 5 % noise, over 24 sizes and 16 batches."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(many):
        nodes = int(rng.integers(1, 7))
        replicas = nodes * int(rng.integers(1, 5))
        batch = 8.0 * 2.0 ** (int(rng.integers(0, 16)) / 2)
        grad = 0.02 + 0.001 * batch
        sync = (0.01 if nodes == 1 else 0.05) * math.log2(2 * replicas) * (replicas > 1)
        step = math.hypot(grad, sync) * math.exp(rng.normal(0.0, 0.05))
        found.append(Sample(nodes, replicas, batch, 0, step, step - min(grad, 0.99 * step)))
    return found


def speed() -> dict[str, float]:
    """Milliseconds: a fit, a refit with a batch of reports, a forecast; seconds of many samples."""
    samples, news = made_up(1000, seed=1), made_up(50, seed=2)
    model = fit(samples)
    asked = [one.configuration for one in news]
    return {
        "cells": len(model.tally.keys),
        "fit_ms": 1e3 * timed(lambda: fit(samples), REPEATS)[0].median,
        "refit_ms": 1e3 * timed(lambda: refit(model, news), REPEATS)[0].median,
        "forecast_ms": 1e3 * timed(lambda: model.forecast(asked[0]), REPEATS)[0].median,
        "forecasts_50_ms": 1e3 * timed(lambda: model.forecasts(asked), REPEATS)[0].median,
    }


def many(rows: int) -> dict[str, float]:
    """Seconds of gathering and fitting so many samples, all of different batches."""
    rng = np.random.default_rng(0)

    def gathered() -> ThroughputModel:
        found = None
        for start in range(0, rows, 1 << 16):
            size = min(1 << 16, rows - start)
            nodes = rng.integers(1, 9, size)
            replicas = nodes * rng.integers(1, 9, size)
            batch = rng.uniform(1.0, 4096.0, size)
            step = 0.02 + 0.001 * batch
            columns = np.column_stack(
                [nodes, replicas, batch, np.zeros(size), step, np.full(size, np.nan)]
            )
            part = gather_columns(columns, 0 if found is None else found.shift)
            found = part if found is None else merge(found, part)
        assert found is not None
        return fit_tally(found)

    start = time.perf_counter()
    model = gathered()
    spent = time.perf_counter() - start
    return {"many_rows": rows, "many_seconds": spent, "many_cells": len(model.tally.keys)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--rows", type=int, default=LARGE, help="samples of the largest table")
    parser.add_argument("--steps", type=int, default=20_000, help="steps of each simulation")
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    if folder := os.environ.get("HANSE_DATA"):
        table = measured(Path(folder))
        figures |= _table("held_out", {name: held_out(one) for name, one in table.items()})
        figures |= _table("held_cells", {name: held_cells(one) for name, one in table.items()})
        figures |= _table("from_4", {name: grown(one) for name, one in table.items()})
        more = larger(Path(folder))
        for label, most in LAST_SEEN.items():
            rows = {name: scaled(table[name], more[name], most) for name in more}
            figures |= _table(label, rows)
        figures |= by_growth(table)
    else:
        print("HANSE_DATA names no folder: the tables on measured steps are left out")
    figures |= speed() | many(asked.rows)
    figures |= queues(asked.steps)
    report("throughput", figures, as_json=asked.json)


def _table(name: str, rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Print a table with the mean of its columns; the figures by name."""
    keys = list(next(iter(rows.values())))
    means = {key: float(np.mean([row[key] for row in rows.values()])) for key in keys}
    print(f"| {name} | " + " | ".join(keys) + " |")
    print("| --- |" + " --- |" * len(keys))
    for label, row in [*rows.items(), ("mean", means)]:
        print(f"| {label} | " + " | ".join(f"{row[key]:.1f}" for key in keys) + " |")
    print()
    return {
        f"{name}_{label}_{key}": round(row[key], 3)
        for label, row in [*rows.items(), ("mean", means)]
        for key in keys
    }


if __name__ == "__main__":
    main()
