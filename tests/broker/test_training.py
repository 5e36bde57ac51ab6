"""The demonstration's training job: it really learns, and it can be slowed, stopped and resumed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "broker" / "demo" / "training.py"
CLASSES = ["attn-tiny", "conv-small", "embed-rec", "mlp-deep", "mlp-wide"]


@pytest.fixture(scope="module")
def training():
    """The program as a module, loaded by its path as a site runs it."""
    spec = importlib.util.spec_from_file_location("training_by_path", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def environment(tmp_path):
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HANSE_")}
    return ours | {"HANSE_PROGRESS": str(tmp_path / "progress")}


def run(environment, *words, **more):
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)],
        capture_output=True,
        text=True,
        cwd="/",
        env=environment | more,
    )


def reports(environment):
    text = Path(environment["HANSE_PROGRESS"]).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_the_classes_are_those_that_offers_name(training):
    assert sorted(training.CLASSES) == CLASSES


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_lowers_its_loss_and_reports_every_sample_once(environment, name):
    done = run(environment, "--class", name, HANSE_SAMPLES="20001")
    assert done.returncode == 0, done.stderr
    assert "the loss fell from" in done.stdout
    counts = [line["samples"] for line in reports(environment)]
    assert counts == sorted(set(counts))
    assert counts[-1] == 20001


@pytest.mark.parametrize("name", CLASSES)
def test_the_gradients_are_those_of_the_loss(training, name):
    kind = training.CLASSES[name]
    params, inputs, labels = kind.build(np.random.default_rng(1))
    params = {key: value.astype(float) for key, value in params.items()}
    x, y = inputs[:8], labels[:8]
    x = x.astype(float) if x.dtype.kind == "f" else x
    _, grads = kind.step(params, x, y)
    for key, grad in grads.items():
        dense = grad
        if isinstance(grad, tuple):
            dense = np.zeros_like(params[key])
            np.add.at(dense, *grad)
        at = np.unravel_index(np.argmax(np.abs(dense)), dense.shape)
        middle, losses = params[key][at], []
        for nudge in (1e-5, -1e-5):
            params[key][at] = middle + nudge
            losses.append(kind.step(params, x, y)[0])
        params[key][at] = middle
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(dense[at], rel=1e-4)


@pytest.mark.parametrize(
    ("rate", "says"), [(-0.001, "the loss did not fall"), (1e9, "training diverged")]
)
def test_a_loss_that_does_not_fall_is_a_failure(
    training, monkeypatch, capsys, tmp_path, rate, says
):
    bad = dataclasses.replace(training.CLASSES["mlp-wide"], rate=rate)
    monkeypatch.setitem(training.CLASSES, "mlp-wide", bad)
    monkeypatch.setattr(sys, "argv", ["training.py", "--class", "mlp-wide", "--samples", "12800"])
    monkeypatch.setattr(training.signal, "signal", lambda *_: None)
    monkeypatch.setenv("HANSE_PROGRESS", str(tmp_path / "progress"))
    with np.errstate(all="ignore"):
        assert training.main() == training.LOSS_DID_NOT_FALL
    assert says in capsys.readouterr().err


def test_the_same_seed_gives_the_same_losses(environment):
    def last_loss(seed):
        run(environment, "--class", "attn-tiny", "--samples", 5000, "--seed", seed)
        return reports(environment)[-1]["loss"]

    assert last_loss(3) == last_loss(3)
    assert last_loss(3) != last_loss(4)


def test_a_declared_throttle_takes_its_share_of_wall_time(training):
    """Computing and wall time of one and the same run, so that a busy machine slows both."""

    class Clocked(training.Throttle):
        computed_s = 0.0

        def idle(self, computed_s):
            self.computed_s += computed_s
            super().idle(computed_s)

    throttle = Clocked(0.25)
    params, inputs, labels = training.CLASSES["conv-small"].build(np.random.default_rng(0))
    start = time.perf_counter()
    training.train(training.Run("conv-small", params, 3200), (inputs, labels), throttle, [])
    wall_s = time.perf_counter() - start
    assert 0.9 * 4.0 <= wall_s / throttle.computed_s <= 2.0 * 4.0


def test_the_throttle_is_said_in_the_first_line(environment):
    table = json.dumps({"mlp-wide": 0.5, "*": 0.9})
    for name, share in (("mlp-wide", "50%"), ("mlp-deep", "90%")):
        done = run(environment, "--class", name, "--samples", 64, HANSE_THROTTLE=table)
        assert f"computes {share} of wall time" in done.stdout.splitlines()[0]
    plain = run(environment, "--class", "mlp-wide", "--samples", 64)
    assert "declared throttle: none" in plain.stdout.splitlines()[0]


@pytest.mark.parametrize("table", ["{", "[]", '{"*": 0}', '{"*": 1.5}', '{"*": NaN}', '{"*": "1"}'])
def test_a_throttle_that_means_nothing_is_refused(environment, table):
    done = run(environment, "--class", "mlp-wide", HANSE_THROTTLE=table)
    assert (done.returncode, "HANSE_THROTTLE" in done.stderr) == (2, True)


def test_sigterm_saves_a_checkpoint_and_the_next_attempt_resumes(environment, tmp_path):
    environment |= {"HANSE_CHECKPOINT_DIR": str(tmp_path / "ckpt")}
    words = [sys.executable, str(PROGRAM), "--class", "conv-small", "--samples", "100000000"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("samples "):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert "checkpoint saved" in rest
    trained = reports(environment)[-1]["samples"]
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir()) == ["training.npz"]

    done = run(environment, "--class", "conv-small", "--samples", 3200)
    assert done.returncode == 0, done.stderr
    assert f"resumed after {trained} samples" in done.stdout
    assert f"checkpoint saved after {trained + 3200} samples in all" in done.stdout
    assert reports(environment)[-1]["samples"] == 3200  # of this attempt


def test_the_loss_check_of_a_resumed_job_looks_back_to_its_beginning(environment, tmp_path):
    environment |= {"HANSE_CHECKPOINT_DIR": str(tmp_path)}
    words = ("--class", "mlp-deep", "--samples")
    first = run(environment, *words, 60000)
    second = run(environment, *words, 6400)  # nothing left to learn
    start = first.stdout.split("the loss fell from ")[1].split()[0]
    assert f"the loss fell from {start} to" in second.stdout


def test_a_damaged_or_foreign_checkpoint_is_said_and_not_used(environment, tmp_path):
    environment |= {"HANSE_CHECKPOINT_DIR": str(tmp_path)}
    (tmp_path / "training.npz").write_bytes(b"PK not a checkpoint")
    done = run(environment, "--class", "attn-tiny", "--samples", 6400)
    assert (done.returncode, "is damaged" in done.stdout) == (0, True)
    done = run(environment, "--class", "mlp-wide", "--samples", 6400)
    assert (done.returncode, "starting afresh" in done.stdout) == (0, True)


def test_a_lost_checkpoint_is_said(environment, tmp_path):
    more = {"HANSE_CHECKPOINT_DIR": str(tmp_path), "HANSE_SAMPLES_DONE": "500"}
    done = run(environment, "--class", "mlp-wide", "--samples", 64, **more)
    assert "their checkpoint is not here" in done.stdout


def test_without_hanse_it_says_so_and_refuses_unreported_work(environment, tmp_path):
    (tmp_path / "hanse.py").write_text("raise ImportError('made up')")
    words = ("--class", "mlp-wide", "--samples", 64)
    refused = run(environment, *words, PYTHONPATH=str(tmp_path))
    assert (refused.returncode, "cannot be imported" in refused.stderr) == (2, True)
    del environment["HANSE_PROGRESS"]
    alone = run(environment, *words, PYTHONPATH=str(tmp_path))
    assert (alone.returncode, "cannot be imported" in alone.stderr) == (0, True)


@pytest.mark.parametrize("words", [["--samples", "-1"], ["--seed", "-1"]])
def test_a_wrong_call_is_refused(environment, words):
    assert run(environment, "--class", "mlp-wide", *words).returncode == 2
    assert run(environment, "--class", "mlp-wide", HANSE_SAMPLES="many").returncode == 2
