"""The planner's forecasts against 209 measured training runs of MPT models.

    HANSE_DATA=... python -m bench.planned_speeds --json

Runs of llm-foundry at half precision: fully sharded (stage 3 of ZeRO), one micro-batch size each,
attention that keeps no scores, all computed again where more was computed than the model needs.
Errors are of samples/s: the median of |forecast / measured - 1|.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.support import report
from federation.affinity.planner.model import ModelDescription
from federation.affinity.planner.planning import weigh
from federation.affinity.planner.pool import GB, Device, Pool
from federation.affinity.planner.splits import WAYS, Recompute

FILE = "mpt_llm_training_throughput.csv"
VOCAB, NODE, USUAL = 50368, 8, 2048
#: Layers, hidden, heads.
SHAPES = {
    "125m": (12, 768, 12),
    "350m": (24, 1024, 16),
    "760m": (24, 1536, 12),
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}
#: GB, TFLOP/s, Gbit/s of a GPU in its node and between nodes. The file says 1600 Gbit/s between
#: nodes for the A100s; for the H100s it says nothing, so a node of the usual kind is taken.
DEVICES = {
    "a100_40gb": Device(40, 312, 2400, 200),
    "a100_80gb": Device(80, 312, 2400, 200),
    "h100_80gb": Device(80, 989, 3600, 400),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run with its forecast."""

    model: str
    kind: str
    gpus: int
    seq: int
    forecast: float  #: samples/s by formula
    measured: float  #: samples/s
    filled: float  #: bytes by formula over the memory of the GPU

    @property
    def ratio(self) -> float:
        """Forecast over measured."""
        return self.forecast / self.measured


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if "HANSE_DATA" not in os.environ:
        reason = f"HANSE_DATA is not set: it names the folder that {FILE} is in"
        report("planned_speeds", {"skipped": reason}, as_json=asked.json)
        return
    report("planned_speeds", figures(runs(Path(os.environ["HANSE_DATA"]))), as_json=asked.json)


def runs(data: Path) -> list[Run]:
    """Every run at half precision, in the order of the file."""
    with (data / FILE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if "bf16" in row["precision"]]
    return [_run(row) for row in rows]


def _run(row: dict[str, str]) -> Run:
    layers, hidden, heads = SHAPES[row["model"]]
    gpus, seq, batch = int(row["gpus"]), int(row["seq_len"]), int(row["global_batch"])
    params = float(row["num_params"])
    model = ModelDescription(params, layers, hidden, heads, seq, VOCAB, batch)
    pool = Pool(row["gpu"], DEVICES[row["gpu"]], gpus, NODE)
    again = float(row["hfu_pct"]) > 1.01 * float(row["mfu_pct"])
    way = Recompute.FULL if again else Recompute.SELECTIVE
    weighed = weigh(model, pool, [gpus])
    splits = weighed.splits
    mine = (splits.data == gpus) & (splits.zero == 3) & (splits.recompute == WAYS.index(way))
    [at] = np.flatnonzero(mine & (splits.micro_batch == int(row["micro_batch"])))
    return Run(
        model=row["model"],
        kind=row["gpu"],
        gpus=gpus,
        seq=seq,
        forecast=batch / float(weighed.seconds[at]),
        measured=float(row["tokens_per_s"]) / seq,
        filled=float(weighed.total[at]) / (pool.device.memory_gb * GB),
    )


def figures(found: Sequence[Run]) -> dict[str, Any]:
    """Errors by formula alone, by GPU kind, and from one measured run of the same model."""
    sizes = list(_from_one(found, lambda run: run.seq == USUAL))
    lengths = list(_from_one(found, lambda run: run.seq != USUAL))
    return {
        "runs": len(found),
        "formula_error": median(abs(run.ratio - 1) for run in found),
        "left_out_error": {kind: median(_left_out(found, kind)) for kind in DEVICES},
        "sizes": len(sizes),
        "sizes_error": median(sizes),
        "sizes_error_90": float(np.quantile(sizes, 0.9)),
        "lengths": len(lengths),
        "lengths_error": median(lengths),
        "lengths_error_90": float(np.quantile(lengths, 0.9)),
        "filled_median": median(run.filled for run in found),
        "filled_most": max(run.filled for run in found),
        "refused": sum(run.filled > 0.92 for run in found),
    }


def _left_out(found: Sequence[Run], kind: str) -> list[float]:
    """Errors on each model after scaling to the median of the others on the same GPU."""
    here = [run for run in found if run.kind == kind]
    errors = []
    for run in here:
        scale = median(other.ratio for other in here if other.model != run.model)
        errors.append(abs(run.ratio / scale - 1))
    return errors


def _from_one(found: Sequence[Run], asked: Callable[[Run], bool]) -> Iterable[float]:
    """Errors after scaling to one run: the smallest of the usual length on the same GPU."""
    for run in found:
        same = [other for other in found if (other.model, other.kind) == (run.model, run.kind)]
        usual = [other for other in same if other.seq == USUAL]
        if not usual:
            continue
        base = min(usual, key=lambda other: other.gpus)
        if asked(run) and run is not base:
            yield abs(run.ratio / base.ratio - 1)


if __name__ == "__main__":
    main()
