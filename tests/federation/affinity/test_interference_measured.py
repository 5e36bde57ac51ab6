"""Predicted rates of two jobs on one GPU, on Gavel's measured pairs, with fixed seeds."""

import os
from pathlib import Path

import numpy as np
import pytest

from bench.interference import errors, hide
from bench.public_rates import gavel_pairs
from tests.docs.reading import DOCS, tables

FOLDER = os.environ.get("HANSE_DATA")
pytestmark = pytest.mark.skipif(
    not FOLDER or not (Path(FOLDER) / "gavel" / "colocated_throughputs.csv.gz").exists(),
    reason="HANSE_DATA names no folder with Gavel's colocated table",
)
PAGE = DOCS / "explanation" / "cold-start.md"
BOUNDS = {"v100": 0.127, "p100": 0.051, "k80": 0.039}


@pytest.fixture(scope="module")
def pairs():
    return gavel_pairs(Path(FOLDER))


def test_pairs_that_fit_are_counted(pairs):
    assert {gpu: len(own) for gpu, own in pairs.items()} == {"k80": 306, "p100": 340, "v100": 330}


@pytest.mark.parametrize("gpu", BOUNDS)
def test_three_in_ten_pairs_hidden(pairs, gpu):
    told = [errors(*hide(pairs[gpu], 0.3, seed), slowdown=1.5) for seed in range(3)]
    means = {key: float(np.mean([one[key] for one in told])) for key in told[0]}
    assert means["error"] <= 0.6 * BOUNDS[gpu]
    assert means["error"] < means["additive"] < means["constant"]
    assert 0.92 <= means["above_low"] <= 0.99
    assert means["broken"] <= 0.05
    assert 0 < means["admitted"] < means["could"]
    [row] = [r for t in tables(PAGE) for r in t if r.get("GPU") == gpu.upper()]
    assert means["error"] == pytest.approx(float(row["With kin"]), abs=0.006)
    assert means["constant"] == pytest.approx(float(row["Constant"]), abs=0.01)
