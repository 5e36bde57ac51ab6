"""Progress lines: whole, true, and free where nobody reads them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import hanse


@pytest.fixture
def progress(monkeypatch, tmp_path):
    path = tmp_path / "progress"
    monkeypatch.setenv("HANSE_PROGRESS", str(path))
    memory = sys.modules["hanse.report"]._Memory  # `hanse.report` itself is the function
    monkeypatch.setattr(memory, "written_at", -math.inf)
    monkeypatch.setattr(memory, "complained", False)
    return path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_holds_samples_a_monotonic_time_and_what_else_is_known(progress):
    assert hanse.report(64, step_time_s=0.5, loss=2.25, epoch=3)
    assert hanse.report(128)
    first, second = lines(progress)
    assert (first["samples"], first["step_time_s"], first["loss"], first["epoch"]) == (
        64,
        0.5,
        2.25,
        3,
    )
    assert set(second) == {"samples", "t"}
    assert first["t"] <= second["t"]


def test_outside_a_job_nothing_happens_and_nothing_is_raised():
    assert not hanse.report(-1, loss=float("nan"))


@pytest.mark.parametrize(
    "call",
    [
        {"samples": -1},
        {"samples": float("nan")},
        {"samples": float("inf")},
        {"samples": 1.5},
        {"samples": 1, "loss": float("nan")},
        {"samples": 1, "loss": -math.inf},
        {"samples": 1, "step_time_s": -0.1},
        {"samples": 1, "step_time_s": float("nan")},
        {"samples": 1, "accuracy": float("nan")},
        {"samples": 1, "t": 5},
        {"samples": 1, "note": "x" * 5000},
        {"samples": 1, "sync_time_s": -0.1},
        {"samples": 1, "grad_sqr": math.inf},
        {"samples": 1, "local_batch": -8},
        {"samples": 1, "replicas": 0},
        {"samples": 1, "nodes": 1.5},
        {"samples": 1, "accumulation": -1},
        {"samples": 1, "memory_peak_bytes": -1},
        {"samples": 1, "gpu": "x" * 201},
        {"samples": 1, "gpu": 100},
    ],
)
def test_a_number_that_is_none_is_refused_and_not_written(progress, call):
    with pytest.raises(ValueError, match=r".+"):
        hanse.report(**call)
    assert not progress.exists()


def test_counts_may_be_whole_floats_and_losses_negative(progress):
    hanse.report(64.0, loss=-3.5)
    assert lines(progress)[0]["samples"] == 64
    assert lines(progress)[0]["loss"] == -3.5


def test_what_forecasts_read_is_written_and_what_is_unknown_left_out(progress):
    hanse.report(64, sync_time_s=0.1, local_batch=8, replicas=4.0, nodes=2, gpu="A100", loss=None)
    hanse.report(128, accumulation=0, memory_peak_bytes=2**34, grad_sqr=0.5, grad_var=None)
    first, second = lines(progress)
    assert {key: first[key] for key in first if key not in ("samples", "t")} == {
        "sync_time_s": 0.1,
        "local_batch": 8.0,
        "replicas": 4,
        "nodes": 2,
        "gpu": "A100",
    }
    assert {key: second[key] for key in second if key not in ("samples", "t")} == {
        "accumulation": 0,
        "memory_peak_bytes": 2**34,
        "grad_sqr": 0.5,
    }


def test_throttled_calls_leave_lines_out(progress):
    written = [hanse.report(n, min_interval_s=3600.0) for n in range(5)]
    assert written == [True, False, False, False, False]
    assert hanse.report(5)
    assert [line["samples"] for line in lines(progress)] == [0, 5]


def test_a_failing_disk_is_said_once_and_does_not_end_the_training(progress, monkeypatch, capsys):
    monkeypatch.setenv("HANSE_PROGRESS", str(progress / "not" / "there"))
    assert not hanse.report(1)
    assert not hanse.report(2)
    assert capsys.readouterr().err.count("progress cannot be written") == 1


def test_lines_of_several_processes_never_interleave(progress):
    program = "import hanse\nfor n in range(300): hanse.report(n, pad='x' * 900)"
    writers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    assert len(lines(progress)) == 1200


def test_the_environment_tells_what_to_train(monkeypatch, tmp_path):
    assert hanse.samples_wanted() is None
    assert (hanse.samples_done(), hanse.checkpoint_dir(), hanse.is_probe()) == (0, None, False)
    monkeypatch.setenv("HANSE_SAMPLES", "5000")
    monkeypatch.setenv("HANSE_SAMPLES_DONE", "250")
    monkeypatch.setenv("HANSE_CHECKPOINT_DIR", str(tmp_path))
    monkeypatch.setenv("HANSE_PROBE", "1")
    assert (hanse.samples_wanted(), hanse.samples_done()) == (5000, 250)
    assert (hanse.checkpoint_dir(), hanse.is_probe()) == (tmp_path, True)
    monkeypatch.setenv("HANSE_SAMPLES", "many")
    with pytest.raises(ValueError, match="HANSE_SAMPLES"):
        hanse.samples_wanted()


def test_importing_hanse_costs_the_standard_library_only():
    program = (
        "import sys; before = set(sys.modules); import hanse\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "['hanse']", done.stderr
