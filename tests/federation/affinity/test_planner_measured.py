"""The planner's forecasts against measured runs, and the page that shows how far off they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.planned_speeds import figures, runs
from tests.docs.reading import DOCS, tables

DATA = os.environ.get("HANSE_DATA")
pytestmark = pytest.mark.skipif(
    DATA is None, reason="HANSE_DATA names no folder: the measured runs are not at hand"
)


@pytest.fixture(scope="module")
def measured():
    return runs(Path(DATA))


def test_the_page_shows_what_the_command_prints(measured):
    found = figures(measured)
    page = tables(DOCS / "explanation" / "one-click-plans.md")
    [rows] = [rows for rows in page if set(rows[0]) == {"Figure", "Value"}]
    shown = [row["Value"] for row in rows]
    shares = [
        found["formula_error"],
        *(found["left_out_error"][kind] for kind in ("a100_40gb", "a100_80gb", "h100_80gb")),
        *(found[name] for name in ("sizes_error", "sizes_error_90")),
        *(found[name] for name in ("lengths_error", "lengths_error_90")),
        *(found[name] for name in ("filled_median", "filled_most")),
    ]
    assert shown == [*(f"{share:.1%}".replace("%", " %") for share in shares), "50"]
    assert found["refused"] == 50
    text = (DOCS / "explanation" / "one-click-plans.md").read_text()
    for count, words in (("runs", "{} measured runs"), ("sizes", "of {}"), ("lengths", "of {}")):
        assert words.format(found[count]) in text


def test_forecasts_are_near_what_was_measured(measured):
    found = figures(measured)
    assert found["formula_error"] <= 0.20
    assert found["sizes_error"] <= 0.08
    assert found["lengths_error"] <= 0.08
    assert max(found["left_out_error"].values()) <= 0.15


def test_what_ran_is_not_forecast_to_need_more_than_the_gpu_has(measured):
    assert sum(run.filled > 1.0 for run in measured) <= 2
    assert max(run.filled for run in measured) <= 1.01
