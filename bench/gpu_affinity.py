"""Measured speed and memory of the catalogue's classes, on whatever device is there.

`python -m bench.gpu_affinity [--table FILE.csv] [--json]`. Needs PyTorch, which the project's own
environment does not have; without it the reason is printed. Each cell is a class at a batch and a
precision: whole optimiser steps on made-up data that is on the device already, so loading data and
exchanging gradients are not in it. On a CPU with one thread the clock is the thread's own, so that
what else runs there does not count; elsewhere it is the wall's.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.support import machine

if TYPE_CHECKING:
    import torch

    from bench.catalogue.training import ModelClass

WARM_UP = 3  #: steps before any is timed: first allocations, choice of kernels
MOST_STEPS = 10_000  #: in one repeat


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table; speeds are of one device, and nan where `note` says why."""

    family: str
    size: str
    sample: str
    device: str
    precision: str
    batch: int
    samples_per_step: int
    parameters: int = 0
    samples_per_s: float = math.nan  # median of the repeats
    low_samples_per_s: float = math.nan  # slowest repeat
    high_samples_per_s: float = math.nan  # fastest
    step_time_s: float = math.nan  # median
    memory_peak_mb: float = math.nan
    threads: int = 0
    clock: str = ""  #: "own" seconds of the thread, or "wall"
    torch: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to look."""

    repeats: int
    seconds: float  #: least seconds of one repeat
    clock: Callable[[], float] = time.perf_counter


def measured(cell: Cell, made: ModelClass, device: torch.device, timing: Timing) -> Cell:
    """The cell with its figures; of a model that does not fit, with a note."""
    import torch

    from bench.catalogue.training import Stepper, parameters_of

    load(device)
    forget_peak(device)
    before = memory_mb(device, "VmRSS")
    torch.manual_seed(0)
    try:
        training = made.build(cell.batch, device)
        stepper = Stepper(training, device, cell.precision)
        paces, loss = paces_of(stepper.step, lambda: finished(device), timing)
    except torch.OutOfMemoryError:
        return replace(cell, note="out of memory")
    except RuntimeError as error:
        return replace(cell, note=(str(error).splitlines() or ["failed"])[0][:100])
    speeds = [training.samples / seconds for seconds in paces]
    return replace(
        cell,
        samples_per_step=training.samples,
        parameters=parameters_of(training.model),
        samples_per_s=statistics.median(speeds),
        low_samples_per_s=min(speeds),
        high_samples_per_s=max(speeds),
        step_time_s=statistics.median(paces),
        memory_peak_mb=memory_mb(device, "VmHWM") - before,
        note="" if math.isfinite(loss) else "the loss is not finite",
    )


def paces_of(
    step: Callable[[], torch.Tensor], wait: Callable[[], None], timing: Timing
) -> tuple[list[float], float]:
    """Seconds of a step in each repeat, and the last loss."""
    for _ in range(WARM_UP):
        step()
    wait()
    start = timing.clock()
    loss = step()
    wait()
    once = max(timing.clock() - start, 1e-6)
    steps = min(max(math.ceil(timing.seconds / once), 1), MOST_STEPS)
    paces = []
    for _ in range(timing.repeats):
        start = timing.clock()
        for _ in range(steps):
            loss = step()
        wait()
        paces.append((timing.clock() - start) / steps)
    return paces, float(loss)


def finished(device: torch.device) -> None:
    """Wait for the work in a GPU's queue."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def load(device: torch.device) -> None:
    """Let PyTorch load what it loads with the first step: that is no memory of a model's."""
    import torch

    least = torch.nn.Linear(1, 1).to(device)
    optimizer = torch.optim.AdamW(least.parameters())
    least(torch.ones(1, 1, device=device)).sum().backward()
    optimizer.step()


def forget_peak(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest mark so far


def memory_mb(device: torch.device, key: str) -> float:
    """Megabytes: on a GPU what tensors hold, at most; on a CPU a line of the process's status."""
    import torch

    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        return (peak if key == "VmHWM" else torch.cuda.memory_allocated(device)) / 2**20
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return math.nan


def apart(cell: Cell, made: ModelClass, device: torch.device, timing: Timing) -> Cell:
    """Measured in a fresh copy of this process, so that no cell sees memory that another left."""
    if device.type != "cpu" or sys.platform != "linux":
        return measured(cell, made, device, timing)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def child() -> None:
        there.send(measured(cell, made, device, timing))

    process = context.Process(target=child)
    process.start()
    there.close()
    try:
        found: Cell = here.recv()
    except EOFError:
        process.join()
        return replace(cell, note=f"ended with {process.exitcode}")
    process.join()
    return found


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Every class at every batch and precision asked for, as they are measured."""
    import torch

    from bench.catalogue.classes import CLASSES

    torch.set_num_threads(arguments.threads)
    device = torch.device(kind_of(arguments.device))
    own = device.type == "cpu" and arguments.threads == 1
    clock = time.process_time if own else time.perf_counter
    timing = Timing(arguments.repeats, arguments.seconds, clock)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()["cpu"]
    sizes = arguments.sizes or (["small"] if device.type == "cpu" else ["small", "base"])
    for made in CLASSES:
        if made.size not in sizes or made.family not in (arguments.families or [made.family]):
            continue
        for precision in arguments.precisions or precisions(device):
            for batch in made.batches:
                cell = Cell(made.family, made.size, made.sample, name, precision, batch, batch)
                cell = replace(cell, threads=arguments.threads, torch=torch.__version__)
                cell = replace(cell, clock="own" if own else "wall")
                yield apart(cell, made, device, timing)


def kind_of(asked: str) -> str:
    import torch

    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def precisions(device: torch.device) -> list[str]:
    """Those that the device computes in by itself."""
    import torch

    if device.type != "cuda":
        return ["float32", "bfloat16"]
    whole = torch.cuda.get_device_capability(device)[0] >= 8  # Ampere brought both
    return ["float32", *(["tf32", "bfloat16"] if whole else []), "float16"]


def shown(cell: Cell) -> str:
    """One line for a person."""
    name = f"{cell.family:<15}{cell.size:<6}{cell.precision:<9}{cell.batch:>6}"
    if math.isnan(cell.samples_per_s):
        return f"{name}  {cell.note}"
    spread = (cell.high_samples_per_s - cell.low_samples_per_s) / cell.samples_per_s
    return (
        f"{name}{cell.samples_per_s:>12.4g} samples/s  spread {spread:>6.1%}"
        f"{cell.memory_peak_mb:>10.1f} MB  {cell.note}"
    )


def written(rows: Iterable[Cell]) -> Iterator[dict[str, str]]:
    """Rows of the table: four digits, and nothing for what is not known."""
    for row in rows:
        values = asdict(row)
        yield {key: _cell(value) for key, value in values.items()}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def save(rows: list[Cell], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(Cell)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(written(rows))


def summary(rows: list[Cell]) -> dict[str, Any]:
    import torch

    known = [row for row in rows if not math.isnan(row.samples_per_s)]
    spreads = [
        (row.high_samples_per_s - row.low_samples_per_s) / row.samples_per_s for row in known
    ]
    return {
        "bench": "gpu_affinity",
        "cells": len(rows),
        "failed": len(rows) - len(known),
        "families": len({row.family for row in known}),
        "median_spread": statistics.median(spreads) if spreads else None,
        "rows": list(written(rows)),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
        },
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--families", nargs="+")
    parser.add_argument("--sizes", nargs="+", choices=["small", "base"])
    parser.add_argument(
        "--precisions", nargs="+", choices=["float32", "tf32", "bfloat16", "float16"]
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if find_spec("torch") is None:
        print("left out: PyTorch is not installed here (make test-torch makes an environment)")
        if arguments.json:
            print(json.dumps({"bench": "gpu_affinity", "cells": 0, "machine": machine()}))
        return
    rows = []
    for cell in cells(arguments):
        rows.append(cell)
        print(shown(cell), flush=True)
    found = summary(rows)
    print(f"{found['cells']} cells, {found['failed']} failed, {found['families']} families")
    if arguments.table:
        save(rows, arguments.table)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
