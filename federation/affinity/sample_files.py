"""Tables of samples and of configurations, as `fit` and `predict` read and write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from federation.affinity.samples import (
    Configuration,
    Sample,
    configuration_problem,
    sample_problem,
)
from federation.affinity.tables import Array, Block, Problems, blocks, numbers
from federation.affinity.tally import Tally, gather_columns, merge, sound
from federation.affinity.throughput import Forecast

NEEDED = ("class", "nodes", "replicas", "local_bsz")
TIMES = ("step_time_s",)
OPTIONAL = ("pool", "accum_steps")
ADDED = ("step_time_s", "samples_per_s", "lower", "upper", "extrapolated")
Key = tuple[str, str]  #: class and pool; the pool is empty where the table has none


@dataclass(frozen=True, slots=True)
class Asked:
    """A table of configurations: its header and rows as they stood, and what they ask."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[Key, ...]
    configurations: tuple[Configuration, ...]
    lines: tuple[int, ...]


def read_samples(path: Path) -> dict[Key, Tally]:
    """Statistics of each (class, pool), by name; memory does not grow with the rows.

    Raises `BadSamples` with a line for each problem.
    """
    problems = Problems(str(path))
    found: dict[Key, Tally] = {}
    for block in blocks(path, problems, needed=NEEDED + TIMES, optional=(*OPTIONAL, "sync_time_s")):
        if not block.rows:
            continue
        columns = _sample_columns(block, problems)
        for key, places in _keys(block, problems).items():
            problems.settle()
            known = found.get(key)
            part = gather_columns(columns[places], known.shift if known else 0)
            found[key] = merge(known, part) if known else part
    if not found:
        problems.add("", "there is no sample")
    problems.settle()
    return dict(sorted(found.items()))


def read_configurations(path: Path) -> Asked:
    """The configurations of a table, in its order; raises `BadSamples`."""
    problems = Problems(str(path))
    header: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = []
    keys: list[Key] = []
    asked: list[Configuration] = []
    lines: list[int] = []
    for block in blocks(path, problems, needed=NEEDED, optional=OPTIONAL):
        header = tuple(block.columns)
        rows += list(zip(*block.columns.values(), strict=True))
        lines += block.lines
        placed = {place: key for key, places in _keys(block, problems).items() for place in places}
        keys += [placed[place] for place in range(block.rows) if place in placed]
        asked += _configurations(block, problems)
    if not rows:
        problems.add("", "there is no configuration")
    problems.settle()
    return Asked(header, tuple(rows), tuple(keys), tuple(asked), tuple(lines))


def written(asked: Asked, forecasts: Sequence[Forecast]) -> str:
    """The table with its forecasts, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*asked.header, *ADDED))
    for row, forecast in zip(asked.rows, forecasts, strict=True):
        outside = "true" if forecast.extrapolated else "false"
        times = forecast.step_s, forecast.samples_per_s, forecast.lower_s, forecast.upper_s
        writer.writerow((*row, *map(repr, times), outside))
    return text.getvalue()


def _keys(block: Block, problems: Problems) -> dict[Key, list[int]]:
    """Rows of each (class, pool)."""
    found: dict[Key, list[int]] = {}
    pairs = zip(block.texts("class"), block.texts("pool"), strict=True)
    for place, (name, pool) in enumerate(pairs):
        key = name.strip(), pool.strip()
        if not key[0]:
            problems.add(f"line {block.line(place)}, class", "is empty")
        else:
            found.setdefault(key, []).append(place)
    return found


def _axes(block: Block, problems: Problems) -> Array:
    """Nodes, replicas, local batch and accumulation, (n, 4)."""
    columns = [numbers(block, name, problems) for name in NEEDED[1:]]
    columns.append(numbers(block, "accum_steps", problems, empty=0.0))
    return np.stack(columns, axis=1)


def _sample_columns(block: Block, problems: Problems) -> Array:
    """Checked samples, (n, 6); sync is nan where the cell is empty."""
    axes = _axes(block, problems)
    step = numbers(block, "step_time_s", problems)
    sync = numbers(block, "sync_time_s", problems, empty=-1.0)
    unknown = np.array([not text.strip() for text in block.texts("sync_time_s")], dtype=bool)
    problems.settle()
    columns = np.column_stack([axes, step, np.where(unknown, 0.0, sync)])
    for place in np.flatnonzero(~sound(columns)):
        sample = _sample(columns[place])
        if why := sample_problem(sample):
            problems.add(f"line {block.line(int(place))}", why)
    problems.settle()
    columns[unknown, 5] = np.nan
    return columns


def _sample(row: Array) -> Sample:
    nodes, replicas, batch, steps, step_s, sync_s = row.tolist()
    return Sample(nodes, replicas, batch, steps, step_s, sync_s)


def _configurations(block: Block, problems: Problems) -> list[Configuration]:
    found = []
    for place, row in enumerate(_axes(block, problems).tolist()):
        nodes, replicas, batch, steps = row
        asked = Configuration(nodes, replicas, batch, steps)
        if why := configuration_problem(asked):
            problems.add(f"line {block.line(place)}", why)
        else:
            asked = Configuration(int(nodes), int(replicas), batch, int(steps))
        found.append(asked)
    return found
