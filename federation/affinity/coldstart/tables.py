"""Tables of measured speeds that an operator has: those that `bench/gpu_affinity.py` writes.

CSV with a head; these columns are read and all others left: `family` and `size` (together the name
of the work, "cnn-small"), `device` (free text), `precision` (float32, tf32, float16, bfloat16),
`batch` on one device, `samples_per_s`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from federation.affinity.coldstart.blend import Prior, prior_or_none
from federation.affinity.coldstart.catalogue import Query, Result
from federation.affinity.coldstart.devices import recognise

COLUMNS = ("family", "size", "device", "precision", "batch", "samples_per_s")
PRECISIONS = {"float32": "single", "tf32": "single", "float16": "half", "bfloat16": "half"}
#: deviation of the logarithm between the table's machine and another of the same name; assumed
ANOTHER_MACHINE = 0.25
DOUBLING = 0.1  #: and for each doubling between the table's batch and the one asked for; assumed


@dataclass(frozen=True, slots=True)
class Row:
    """One measured speed on one device."""

    work: str
    device: str  #: as the table says
    precision: str  #: "half" or "single"
    batch: float
    rate: float  #: samples/s


def read_table(text: str, name: str) -> list[Row]:
    """The rows of a table. ValueError with the name and the line of what does not fit."""
    reader = csv.DictReader(text.splitlines())
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{name}: its head lacks the column {missing[0]}.")
    return [_row(line, f"{name}, line {at}") for at, line in enumerate(reader, start=2)]


def _row(line: dict[str, str], place: str) -> Row:
    if line["precision"] not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"{place}: precision is {line['precision']!r}; known are {known}.")
    numbers = [_positive(line[column], column, place) for column in ("batch", "samples_per_s")]
    work = f"{line['family']}-{line['size']}"
    return Row(work, line["device"], PRECISIONS[line["precision"]], *numbers)


def _positive(text: str, column: str, place: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{place}: {column} is {text!r}; a number above 0 is expected.")
    return value


def results(rows: Iterable[Row]) -> list[Result]:
    """Those on devices of the catalogue, as results of works by their names."""
    return [
        Result(Query(row.work, device.name, batch=row.batch, precision=row.precision), row.rate)
        for row in rows
        if (device := recognise(row.device)) is not None
    ]


def on_same_device(
    rows: Sequence[Row], *, work: str, column: str, batch: float | None, precision: str
) -> Prior | None:
    """What a table says of the work on a device of that very name, by the batch nearest to it.

    None when it says nothing of it at that precision.
    """
    own = [
        row
        for row in rows
        if (row.work, row.precision) == (work, precision) and _plain(row.device) == _plain(column)
    ]
    if not own:
        return None
    asked = own[len(own) // 2].batch if batch is None else batch
    nearest = min(own, key=lambda row: (abs(math.log2(row.batch / asked)), row.batch))
    spread = math.hypot(ANOTHER_MACHINE, DOUBLING * math.log2(nearest.batch / asked))
    return prior_or_none(math.log(nearest.rate), spread, "catalogue", len(own))


def _plain(text: str) -> str:
    device = recognise(text)
    return re.sub(r"[^a-z0-9]", "", text.lower()) if device is None else device.name
