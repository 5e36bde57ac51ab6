"""Keras on PyTorch, as it is."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed here: make test-torch")
os.environ["KERAS_BACKEND"] = "torch"  # read when Keras is first imported
keras = pytest.importorskip("keras", reason="Keras is not installed here: make test-torch")

import numpy as np  # noqa: E402

from hanse.callbacks.keras import HanseCallback  # noqa: E402


def fit(callback, samples=40, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    x = np.random.default_rng(0).normal(size=(samples, 8)).astype("float32")
    return model.fit(
        x, x.sum(1), batch_size=16, verbose=0, callbacks=[callback], **{"epochs": 2} | options
    )


def test_every_sample_is_counted_and_the_small_last_batch_for_what_it_is(lines):
    told = HanseCallback(
        batch_size=16, samples_per_epoch=40, gpu="kept", min_interval_s=0.0, warm_up=1
    )
    history = fit(told)
    written = lines()
    assert [line["samples"] for line in written] == [32, 40, 56, 72, 80]
    assert (written[0]["local_batch"], written[0]["gpu"]) == (16, "kept")
    assert written[0]["step_time_s"] > 0
    assert "step_time_s" not in written[1]
    assert written[-1]["loss"] == pytest.approx(history.history["loss"][-1], rel=1e-5)


def test_training_ends_when_the_attempt_has_trained_enough(monkeypatch, lines):
    monkeypatch.setenv("HANSE_SAMPLES", "48")
    fit(HanseCallback(batch_size=16, samples_per_epoch=640), samples=640)
    assert lines()[-1]["samples"] == 48
