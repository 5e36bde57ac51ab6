"""The catalogue's page says what its table says, and the table is whole."""

from __future__ import annotations

import csv
import dataclasses
import re
import statistics

import pytest

from bench.gpu_affinity import Cell
from tests.docs.reading import DOCS, tables

PAGE = DOCS / "reference" / "catalogue.md"
TABLE = DOCS / "reference" / "catalogue-cpu.csv"


@pytest.fixture(scope="module")
def rows():
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def spread(row):
    low, high = float(row["low_samples_per_s"]), float(row["high_samples_per_s"])
    return 100 * (high - low) / float(row["samples_per_s"])


def test_columns_are_those_of_the_command_and_explained(rows):
    names = [field.name for field in dataclasses.fields(Cell)]
    assert list(rows[0]) == names
    on_page = {name for row in tables(PAGE)[0] for name in re.findall(r"`(\w+)`", row["Column"])}
    assert on_page == set(names)


def test_every_cell_was_measured_once(rows):
    cells = {(row["family"], row["precision"], row["batch"]) for row in rows}
    assert len(cells) == len(rows)
    assert len({row["family"] for row in rows}) >= 8
    assert {row["precision"] for row in rows} == {"float32", "bfloat16"}
    for row in rows:
        low, middle, high = (
            float(row[key]) for key in ("low_samples_per_s", "samples_per_s", "high_samples_per_s")
        )
        assert 0 < low <= middle <= high
        assert float(row["memory_peak_mb"]) > 0
        assert int(row["samples_per_step"]) / float(row["step_time_s"]) == pytest.approx(
            middle, rel=2e-3
        )
        assert not row["note"]


def test_the_pages_figures_are_the_tables(rows):
    text = PAGE.read_text()
    spreads = [spread(row) for row in rows]
    assert f"less than {statistics.median(spreads):.0f} %" in text
    assert f"worst by {max(spreads):.0f} %" in text
    [device] = {row["device"] for row in rows}
    [version] = {row["torch"] for row in rows}
    assert device in text
    assert version in text


def test_the_pages_best_batches_are_the_tables(rows):
    shown = {row["Class"].strip("`"): row for row in tables(PAGE)[1]}
    assert set(shown) == {row["family"] for row in rows}
    for family, on_page in shown.items():
        for precision in ("float32", "bfloat16"):
            found = [r for r in rows if (r["family"], r["precision"]) == (family, precision)]
            best = max(found, key=lambda row: float(row["samples_per_s"]))
            speed = float(best["samples_per_s"])
            shown_speed = f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}"
            assert on_page[precision] == f"{shown_speed} (batch {best['batch']})"
