"""Completion times of queues in virtual time: attained service, the Gittins index, AlloX.

`python -m bench.queues [--json]`. The Tiresias and Philly traces come from the folder that
HANSE_DATA names; without it those tables are left out and the reason is printed. AlloX is shown on
a made-up trace. Mean completion times in seconds; the peers run in the same call.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from economics.policies.gittins_index import Experience
from economics.policies.matching import Work, match
from federation.simulation.hybrid_cluster import HybridDiscipline, play_hybrid
from federation.simulation.hybrid_disciplines import (
    Allox,
    FirstComeAny,
    FirstComeFastest,
    ShortestJob,
)
from federation.simulation.hybrid_trace import draw
from federation.simulation.queue_cluster import Discipline, play
from federation.simulation.queue_disciplines import Fifo, Gittins, LeastAttained, Shortest
from federation.simulation.queue_trace import Trace, read_philly, read_sixty_jobs

Row = dict[str, Any]
SIXTEEN_GPU_HOURS = 57_600.0  # in GPU-seconds
RESTART_S = 30.0
VIRTUAL_CLUSTERS = {"6c71a0": 62, "b436b2": 109, "6214e9": 39}  # GPUs for a load of 0.91
REPEATS = 5


def sixty_jobs(folder: Path) -> list[Row]:
    """The 60-job trace of Tiresias on three sizes of cluster."""
    trace = read_sixty_jobs(folder / "tiresias" / "60_job.csv")
    disciplines: dict[str, Discipline] = {
        "fifo": Fifo(),
        "backfill": Fifo(skips=True),
        "shortest_remaining": Shortest(),
        **{f"las_{limit}": LeastAttained((float(limit),)) for limit in (200, 400, 1000)},
    }
    rows = [_row(f"60 jobs, {gpus} GPUs", trace, gpus, disciplines) for gpus in (8, 12, 16)]
    for row, gpus in zip(rows, (8, 12, 16), strict=True):
        for limit in (200, 400, 1000):
            story = play(trace, gpus, LeastAttained((float(limit),)), restart_s=RESTART_S)
            row[f"las_{limit}_restart_30s"] = _seconds(story.completion)
    return rows


def philly(folder: Path) -> list[Row]:
    """2,000 jobs of three virtual clusters each; the Gittins index learns from the next 2,000."""
    path = folder / "philly" / "jobs_until_2017-10.csv.gz"
    rows = []
    for cluster, gpus in VIRTUAL_CLUSTERS.items():
        trace = read_philly(path, cluster, jobs=2000)
        past = read_philly(path, cluster, jobs=2000, after=2000)
        disciplines: dict[str, Discipline] = {
            "fifo": Fifo(),
            "backfill": Fifo(skips=True),
            "shortest_service": Shortest(by_service=True),
            "las_57600": LeastAttained((SIXTEEN_GPU_HOURS,)),
            "las_3600": LeastAttained((3600.0,)),
            "las_57600_by_start": LeastAttained((SIXTEEN_GPU_HOURS,), running_first=False),
            "las_3600_by_start": LeastAttained((3600.0,), running_first=False),
            "gittins_57600": Gittins(Experience.of(past.service, SIXTEEN_GPU_HOURS)),
        }
        rows.append(_row(f"Philly {cluster}, {gpus} GPUs", trace, gpus, disciplines))
    return rows


def _row(name: str, trace: Trace, gpus: int, disciplines: dict[str, Discipline]) -> Row:
    stories = {key: play(trace, gpus, discipline) for key, discipline in disciplines.items()}
    row: Row = {"trace": name}
    for key, story in stories.items():
        row[key] = _seconds(story.completion)
        row[f"{key}_median"] = round(float(np.median(story.completion)), 1)
    attained = next(key for key in stories if key.startswith("las"))
    row["las_of_fifo"] = round(row[attained] / row["fifo"], 4)
    return row


def allox(seed: int) -> list[Row]:
    """600 made-up jobs of ten users on two device types."""
    trace = draw(600, seed=seed)
    disciplines: dict[str, HybridDiscipline] = {
        "fifo_any": FirstComeAny(),
        "fifo_fastest": FirstComeFastest(),
        "shortest_job": ShortestJob(),
        "alpha_1": Allox(),
        "alpha_0.5": Allox(0.5),
        "alpha_0.1": Allox(0.1),
    }
    rows = []
    for devices in ((5, 5), (8, 8)):
        row: Row = {"trace": f"made up, seed {seed}, {devices[0]}+{devices[1]} devices"}
        for key, discipline in disciplines.items():
            story = play_hybrid(trace, devices, discipline)
            row[key] = _seconds(story.completion)
            row[f"{key}_gap"] = round(story.mean_gap, 3)
        row["alpha_1_of_fifo_any"] = round(row["alpha_1"] / row["fifo_any"], 4)
        row["alpha_1_of_shortest"] = round(row["alpha_1"] / row["shortest_job"], 4)
        row["alpha_0.1_of_alpha_1"] = round(row["alpha_0.1"] / row["alpha_1"], 4)
        rows.append(row)
    return rows


def matching(jobs: int = 100, machines: int = 40) -> Row:
    """Seconds to match that many jobs and machines, no two of them alike, and of four kinds."""
    draws = np.random.default_rng(0)
    apart = draws.integers(1, 200, (jobs, machines)).astype(float)
    alike = apart[:, np.arange(machines) % 4]
    free, release = draws.integers(0, 50, machines).astype(float), np.zeros(jobs)
    row: Row = {"jobs": jobs, "machines": machines}
    for key, times in (("apart", apart), ("four_kinds", alike)):
        taken = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            match(Work(times, free, release))
            taken.append(time.perf_counter() - began)
        row[f"{key}_seconds"] = round(statistics.median(taken), 5)
        row[f"{key}_spread"] = round(max(taken) - min(taken), 5)
    return row


def _seconds(completion: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return round(float(completion.mean()), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--seed", type=int, default=1, help="of the made-up trace")
    options = parser.parse_args()
    result: Row = {"allox": allox(options.seed), "matching": matching()}
    if folder := os.environ.get("HANSE_DATA"):
        result |= {"sixty_jobs": sixty_jobs(Path(folder)), "philly": philly(Path(folder))}
    else:
        print("left out: the Tiresias and Philly tables, as HANSE_DATA names no folder")
    for name, table in result.items():
        print(name)
        for row in table if isinstance(table, list) else [table]:
            print("  " + " · ".join(f"{key} {value}" for key, value in row.items()))
    if options.json:
        result["versions"] = {name: version(name) for name in ("numpy", "scipy")}
        result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
        print(json.dumps(result))


if __name__ == "__main__":
    main()
