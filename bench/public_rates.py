"""Readers of the public tables of speeds: a folder in, cells, results and pairs out.

The folder is the one that HANSE_DATA names. Which figures are whose is said in its README.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from federation.affinity.coldstart.catalogue import Query, Result
from federation.affinity.coldstart.completion import Cell
from federation.affinity.coldstart.devices import recognise
from federation.affinity.coldstart.kinship import Kind
from federation.affinity.interference import Pairing

PRICES = {"k80": 0.45, "p100": 1.46, "v100": 2.48}  #: credits per GPU-hour

#: Multiply-adds of one forward pass per image, in 10^9: the papers that introduced the networks,
#: at the input sizes of the benchmark (224; 299 for the Inceptions).
FORWARD_GMACS = {
    "alexnet": 0.72,
    "resnet50": 4.1,
    "resnet152": 11.6,
    "inception3": 5.7,
    "inception4": 12.3,
    "vgg16": 15.5,
}

#: Layers and width of the MPT models: the configurations beside the published table.
MPT_SHAPES = {
    "125m": (12, 768),
    "350m": (24, 1024),
    "760m": (24, 1536),
    "1b": (24, 2048),
    "3b": (32, 2560),
    "7b": (32, 4096),
    "13b": (40, 5120),
    "30b": (48, 7168),
    "70b": (80, 8192),
}


def folder() -> Path | None:
    """Where the tables are; None when HANSE_DATA names no folder."""
    named = os.environ.get("HANSE_DATA")
    return Path(named) if named else None


def _rows(path: Path) -> Iterator[dict[str, str]]:
    packed = path.suffix == ".gz"
    with gzip.open(path, "rt") if packed else path.open() as lines:
        yield from csv.DictReader(lines)


def _kind(model: str, batch: str, gpus: str) -> Kind:
    return Kind(model, math.log2(float(batch)) if batch else None, int(gpus))


def gavel_cells(data: Path) -> tuple[list[Cell], dict[str, Kind]]:
    """Steps/s of the classes (model, batch, GPUs) alone, by GPU; those that do not fit have no
    cell."""
    cells, kinds = [], {}
    for row in _rows(data / "gavel" / "isolated_throughputs.csv"):
        if (row["table"], row["placement"]) != ("simulation", "consolidated"):
            continue
        name = f"{row['model']} {row['batch_size']} x{row['scale_factor']}"
        kinds[name] = _kind(row["model"], row["batch_size"], row["scale_factor"])
        if float(row["steps_per_s"]) > 0:
            cells.append(Cell(name, row["gpu"], float(row["steps_per_s"])))
    return sorted(cells, key=lambda cell: (cell.name, cell.pool)), kinds


def gavel_pairs(data: Path) -> dict[str, list[tuple[Pairing, Pairing]]]:
    """Both rates of each pair of one-GPU classes that fits, relative to alone, by GPU."""
    cells, kinds = gavel_cells(data)
    alone = {(cell.pool, kinds[cell.name]): cell.rate for cell in cells}
    found: dict[str, dict[tuple[Kind, Kind], tuple[Pairing, Pairing]]] = {}
    for row in _rows(data / "gavel" / "colocated_throughputs.csv.gz"):
        rates = float(row["steps_per_s_a"]), float(row["steps_per_s_b"])
        if {row["sf_a"], row["sf_b"]} != {"1"} or min(rates) <= 0:
            continue
        a, b = (
            _kind(row["model_a"], row["batch_a"], "1"),
            _kind(row["model_b"], row["batch_b"], "1"),
        )
        gpu = row["gpu"]
        both = (
            Pairing(a, b, rates[0] / alone[gpu, a]),
            Pairing(b, a, rates[1] / alone[gpu, b]),
        )
        key = (a, b) if str(a) <= str(b) else (b, a)
        found.setdefault(gpu, {}).setdefault(key, both)
    return {
        gpu: [pairs[key] for key in sorted(pairs, key=str)] for gpu, pairs in sorted(found.items())
    }


def mlperf_results(data: Path) -> list[Result]:
    """Runs to quality per minute: the median system of (round, benchmark, device, accelerators),
    closed division; rows whose accelerator's name tells no device are left out."""
    minutes: dict[tuple[str, str, str, int], list[float]] = {}
    for row in _rows(data / "mlperf_training.csv"):
        device = recognise(row["accelerator"])
        if row["division"].lower() != "closed" or not row["accelerators"] or device is None:
            continue
        if row["ttt_min_mean"] and float(row["accelerators"]) >= 1:
            key = row["round"], row["benchmark"], device.name, int(float(row["accelerators"]))
            minutes.setdefault(key, []).append(float(row["ttt_min_mean"]))
    return [
        Result(Query(work, device, gpus, edition=edition), 1 / median(taken))
        for (edition, work, device, gpus), taken in sorted(minutes.items())
    ]


def lambda_results(data: Path) -> list[Result]:
    """Images/s of six networks on 13 devices; the median host and link."""
    rates: dict[Query, list[float]] = {}
    for row in _rows(data / "lambda_tf_train_throughput.csv"):
        device = recognise(row["gpu"])
        if device is None or float(row["images_per_s"]) <= 0:  # 0: does not fit
            continue
        precision = {"fp16": "half", "fp32": "single"}[row["precision"]]
        query = Query(
            row["model"],
            device.name,
            int(row["num_gpu"]),
            edition=precision,
            precision=precision,
            operations=6e9 * FORWARD_GMACS[row["model"]],
        )
        rates.setdefault(query, []).append(float(row["images_per_s"]))
    return [Result(query, median(seen)) for query, seen in rates.items()]


def mpt_results(data: Path) -> list[Result]:
    """Tokens/s of nine language models on A100 and H100, 8 to 512 GPUs, 16 bit."""
    rates: dict[Query, list[float]] = {}
    for row in _rows(data / "mpt_llm_training_throughput.csv"):
        if "fp8" in row["precision"]:
            continue
        layers, width = MPT_SHAPES[row["model"]]
        length = int(row["seq_len"])
        device = recognise(row["gpu"].replace("_", " "))
        if device is None:
            continue
        query = Query(
            row["model"],
            device.name,
            int(row["gpus"]),
            batch=float(row["micro_batch"]) * length / 2048,
            operations=6 * float(row["num_params"]) + 12 * layers * width * length,
        )
        rates.setdefault(query, []).append(float(row["tokens_per_s"]))
    return [Result(query, median(seen)) for query, seen in rates.items()]


def elasticflow_results(data: Path) -> list[Result]:
    """Samples/s of eleven applications on A100 and T4, 1 to 64 GPUs; no operations are known."""
    return [
        Result(
            Query(
                row["model"],
                {"A100": "A100 80GB", "T4": "T4"}[row["gpu"]],
                int(row["gpus"]),
                batch=float(row["global_batch_size"]) / int(row["gpus"]),
            ),
            float(row["samples_per_s"]),
        )
        for row in _rows(data / "elasticflow_throughputs_a100_t4.csv")
        if float(row["samples_per_s"]) > 0
    ]
