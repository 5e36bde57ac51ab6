"""The catalogue measures what it says: real steps that learn, at every precision of a CPU."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here: make test-torch")

from bench.catalogue.classes import BASE, SMALL  # noqa: E402
from bench.catalogue.training import Stepper, parameters_of  # noqa: E402

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("made", SMALL, ids=lambda made: made.family)
def test_a_class_learns_its_data_by_heart(made, precision):
    torch.manual_seed(0)
    training = made.build(made.batches[0], CPU)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    stepper = Stepper(training, CPU, precision)
    losses = [float(stepper.step()) for _ in range(12)]
    assert all(loss == loss and abs(loss) < 1e6 for loss in losses)
    if made.family != "rl":  # its data are drawn anew by its own policy
        assert losses[-1] < losses[0]
    for parameter, first in zip(training.model.parameters(), before, strict=True):
        assert not torch.equal(parameter, first), "a part of the model is not trained"


def test_families_are_the_same_at_both_sizes_and_large_ones_are_larger():
    assert [made.family for made in SMALL] == [made.family for made in BASE]
    assert len({made.family for made in SMALL}) >= 8
    with torch.device("meta"):
        for small, base in zip(SMALL, BASE, strict=True):
            sizes = [
                parameters_of(made.build(made.batches[0], torch.device("meta")).model)
                for made in (small, base)
            ]
            assert sizes[1] > 10 * sizes[0]


def test_the_command_writes_a_table_and_an_object(tmp_path):
    table = tmp_path / "table.csv"
    words = ["--families", "rl", "gnn", "--device", "cpu", "--repeats", "2", "--seconds", "0.01"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu_affinity", *words, "--table", str(table), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert found["rows"] == rows
    assert (found["cells"], found["failed"], found["families"]) == (12, 0, 2)
    for row in rows:
        low, middle, high = (
            float(row[key]) for key in ("low_samples_per_s", "samples_per_s", "high_samples_per_s")
        )
        assert 0 < low <= middle <= high
        assert float(row["memory_peak_mb"]) > 0
