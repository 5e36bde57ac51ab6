"""Cold start on public tables, with fixed seeds, and the page that shows its errors."""

import os
from pathlib import Path

import numpy as np
import pytest

from bench.coldstart import Gaps, completed, left_out_models, operators
from bench.public_rates import gavel_cells, mlperf_results, mpt_results
from federation.affinity.coldstart.catalogue import study
from federation.affinity.coldstart.devices import DEVICES
from tests.docs.reading import DOCS, tables

FOLDER = os.environ.get("HANSE_DATA")
PAGE = DOCS / "explanation" / "cold-start.md"
measured = pytest.mark.skipif(
    not FOLDER or not (Path(FOLDER) / "mlperf_training.csv").exists(),
    reason="HANSE_DATA names no folder with the public tables of speeds",
)


def shown(key):
    """The figure that the page shows under a benchmark's key, as a fraction."""
    for table in tables(PAGE):
        for row in table:
            if row.get("Key") == f"`{key}`":
                return float(row["Error"].removesuffix(" %")) / 100
    raise KeyError(key)


@measured
def test_completion_halves_the_error_and_chooses_well():
    cells, kinds = gavel_cells(Path(FOLDER))
    told = [completed(cells, kinds, seed) for seed in range(5)]
    error, plain, covers, cost = (
        np.mean([one[key] for one in told])
        for key in ("gavel_error", "gavel_one_factor", "gavel_covers", "gavel_cost")
    )
    assert error <= plain / 2
    assert cost <= 1.05
    assert 0.8 <= covers <= 0.97
    assert error == pytest.approx(shown("gavel_error"), abs=0.02)
    assert plain == pytest.approx(shown("gavel_one_factor"), abs=0.03)


@measured
@pytest.mark.parametrize("left", ["Hopper", "Ada", "Volta"])
def test_a_generation_that_was_left_out(left):
    results = mlperf_results(Path(FOLDER))
    known = study([r for r in results if DEVICES[r.query.device].generation != left])
    gaps = Gaps()
    for result in results:
        if DEVICES[result.query.device].generation == left:
            gaps.take(known.prior(result.query), result.rate)
    assert gaps.covers >= 0.8
    assert gaps.median == pytest.approx(shown(f"mlperf_{left}"), abs=0.0051)


@measured
def test_models_that_were_left_out_are_as_the_page_says():
    told = left_out_models()
    for key in ("lambda_facts", "mpt_facts", "lambda_measured_once", "mpt_measured_once"):
        assert told[key] == pytest.approx(shown(key), abs=0.0051)
        assert told[f"{key}_covers"] >= 0.8
    assert told["lambda_measured_once"] < told["lambda_facts"] / 2
    assert told["elasticflow_measured_once"] == pytest.approx(
        shown("elasticflow_measured_once"), abs=0.0051
    )


@measured
def test_counted_operations_give_the_published_utilisation():
    rows = mpt_results(Path(FOLDER))
    [one] = [
        r for r in rows if (r.query.work, r.query.device, r.query.gpus) == ("70b", "H100", 512)
    ]
    used = one.rate * one.query.operations / (512 * DEVICES["H100"].half * 1e12)
    assert used == pytest.approx(0.4125, abs=0.001)


def test_the_page_shows_what_the_operators_give():
    told = operators(0)
    assert told["operators_error"] == pytest.approx(shown("operators_error"), abs=0.0011)
    assert told["operators_wrong"] == pytest.approx(shown("operators_wrong"), abs=0.0051)
    assert told["operators_wrong"] == pytest.approx(1 - told["operators_right"])
