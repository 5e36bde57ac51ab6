"""Steps counted and timed, and each framework's callback against a light stand-in for it.

The real frameworks are met in tests/torch. Here, their calls come from a script and time from a
clock of our own, so that what a line says is known to the last digit.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from hanse.callbacks.noise import NoiseAverage
from hanse.callbacks.steps import Layout, Steps, layout_of_environment, samples_in


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(monkeypatch, tmp_path):
    path = tmp_path / "progress"
    monkeypatch.setenv("HANSE_PROGRESS", str(path))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.modules["hanse.report"]._Memory, "written_at", -math.inf)

    def read():
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


def run(steps, clock, times, **step):
    for seconds in times:
        clock.now += seconds
        steps.step(**step)


# Steps


def test_a_line_has_the_mean_time_of_the_steps_since_the_last(lines, clock):
    steps = Steps(Layout(0, 4, 2), min_interval_s=1.0, warm_up=2, clock=clock)
    run(steps, clock, [30.0, 5.0], local_batch=8, accumulation=1)
    assert lines() == []  # start-up is no speed
    run(steps, clock, [0.5, 0.4, 0.8], local_batch=8, accumulation=1)
    first, second = lines()
    assert (first["samples"], first["step_time_s"]) == (3 * 64, 0.5)
    assert (second["samples"], second["step_time_s"]) == (5 * 64, pytest.approx(0.6))
    assert {key: second[key] for key in ("replicas", "nodes", "local_batch", "accumulation")} == {
        "replicas": 4,
        "nodes": 2,
        "local_batch": 8,
        "accumulation": 1,
    }


def test_time_of_a_pause_is_no_step_time(lines, clock):
    steps = Steps(Layout(), min_interval_s=0.0, warm_up=0, clock=clock)
    run(steps, clock, [1.0, 0.5], local_batch=8)
    steps.pause()
    run(steps, clock, [60.0, 0.25], local_batch=8)
    assert [line.get("step_time_s") for line in lines()] == [None, 0.5, None, 0.25]
    assert [line["samples"] for line in lines()] == [8, 16, 24, 32]


def test_the_line_shows_the_shape_of_most_steps_and_never_mixes_two(lines, clock):
    steps = Steps(Layout(), min_interval_s=3600.0, warm_up=0, clock=clock)
    run(steps, clock, [1.0], local_batch=16)
    run(steps, clock, [0.5] * 3, local_batch=16)
    run(steps, clock, [0.1], local_batch=5)
    run(steps, clock, [9.0], local_batch=16, samples=3)  # uneven: not timed
    steps.finish()
    last = lines()[-1]
    assert (last["samples"], last["local_batch"], last["step_time_s"]) == (72, 16, 0.5)


def test_ever_new_shapes_take_no_more_memory(lines, clock):
    steps = Steps(Layout(), min_interval_s=3600.0, warm_up=0, clock=clock)
    for size in range(1, 5000):
        run(steps, clock, [0.5], local_batch=size)
    assert len(steps._timed) <= 64
    assert steps.finish()


def test_only_rank_0_writes_and_all_count_alike(lines, clock):
    ranks = [Steps(Layout(rank, 2), min_interval_s=0.0, warm_up=0, clock=clock) for rank in (0, 1)]
    for steps in ranks:
        run(steps, clock, [1.0], local_batch=8)
        steps.finish()
    assert [steps.samples for steps in ranks] == [16, 16]
    assert [line["samples"] for line in lines()] == [16]


def test_done_is_when_the_attempt_has_what_it_should_train(monkeypatch, lines, clock):
    monkeypatch.setenv("HANSE_SAMPLES", "20")
    steps = Steps(Layout(), clock=clock)
    run(steps, clock, [1.0, 1.0], local_batch=8)
    assert not steps.done
    run(steps, clock, [1.0], local_batch=8)
    assert steps.done
    monkeypatch.delenv("HANSE_SAMPLES")
    assert not Steps(Layout(), clock=clock).done


def test_a_loss_that_is_none_does_not_end_the_training(lines, clock):
    steps = Steps(Layout(), min_interval_s=0.0, warm_up=0, clock=clock)
    run(steps, clock, [1.0], local_batch=8, loss=math.nan)
    run(steps, clock, [1.0], local_batch=8, loss=2.0)
    assert [line.get("loss") for line in lines()] == [None, 2.0]


def test_a_wait_longer_than_its_step_is_not_said(lines, clock):
    waits = [0.4, 0.6]
    steps = Steps(
        Layout(),
        min_interval_s=0.0,
        warm_up=1,
        clock=clock,
        measured=lambda samples: {"sync_time_s": waits.pop(0), "gpu": None, "grad_var": samples},
    )
    run(steps, clock, [0.5] * 3, local_batch=8, accumulation=2)
    assert [line.get("sync_time_s") for line in lines()] == [0.4, None]
    assert [line["grad_var"] for line in lines()] == [24, 24]
    assert "gpu" not in lines()[0]


def test_outside_a_job_nothing_is_measured_or_written(monkeypatch, clock):
    monkeypatch.delenv("HANSE_PROGRESS", raising=False)
    steps = Steps(Layout(), warm_up=0, clock=clock, measured=lambda _: pytest.fail("measured"))
    run(steps, clock, [1.0] * 5, local_batch=8)
    assert not steps.finish()
    assert steps.samples == 40


def test_finish_says_nothing_twice(lines, clock):
    steps = Steps(Layout(), min_interval_s=0.0, warm_up=0, clock=clock)
    run(steps, clock, [1.0], local_batch=8)
    assert not steps.finish()
    assert len(lines()) == 1


def test_the_layout_is_the_launchers(monkeypatch):
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert layout_of_environment() == Layout(5, 8, 2)
    monkeypatch.setenv("RANK", "8")
    with pytest.raises(ValueError, match="rank 8 of 8 replicas"):
        layout_of_environment()


def test_a_batch_has_the_length_of_its_first_array():
    array = SimpleNamespace(shape=(32, 3))
    scalar = SimpleNamespace(shape=())
    assert samples_in(array) == 32
    assert samples_in({"names": ["a"], "weight": scalar, "x": [array]}) == 32
    with pytest.raises(ValueError, match="batch_size="):
        samples_in({"names": ["a", "b"]})


def test_importing_callbacks_costs_the_standard_library_only():
    program = (
        "import sys, hanse\nfrom hanse.callbacks import noise, steps\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(names & {'torch', 'numpy', 'lightning', 'transformers', 'keras'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# Gradient noise


def test_one_step_gives_the_unbiased_estimates():
    noise = NoiseAverage()
    noise.take(5.0, 3.0, 4, 32)  # L, A, gradients, samples
    assert noise.values(32) == pytest.approx({"grad_sqr": (12 - 5) / 3, "grad_var": 2 / 3})
    assert noise.values(64)["grad_var"] == pytest.approx(1 / 3)


def test_the_average_finds_a_known_noise_whatever_the_size_of_the_steps():
    """Gradients of one number: mean 2, variance 9 of one sample."""
    draw = random.Random(3)
    noise = NoiseAverage()
    for _ in range(4000):
        many, local = draw.choice([2, 4, 8]), draw.choice([4, 16])
        each = [draw.gauss(2.0, 3.0 / math.sqrt(local)) for _ in range(many)]
        mean_square = sum(value * value for value in each) / many
        noise.take(mean_square, (sum(each) / many) ** 2, many, many * local)
    found = noise.values(1)
    assert found["grad_sqr"] == pytest.approx(4.0, rel=0.1)
    assert found["grad_var"] == pytest.approx(9.0, rel=0.1)


@pytest.mark.parametrize(
    "taken", [(math.inf, 1.0, 4, 8), (1.0, math.nan, 4, 8), (1.0, 1.0, 1, 8), (1.0, 4.0, 2, 8)]
)
def test_what_tells_no_noise_is_not_said(taken):
    noise = NoiseAverage()
    noise.take(*taken)
    assert noise.values(8) == {}


# Frameworks


OURS = ("gradients", "exchange", "pytorch", "lightning", "transformers", "keras")


@pytest.fixture(autouse=True)
def fresh():
    """No module of ours outlives the stand-ins that it imported."""
    kept = {name: sys.modules.pop(name, None) for name in map("hanse.callbacks.{}".format, OURS)}
    yield
    for name, module in kept.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def stand_in(monkeypatch, name, **contents):
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def callback(name):
    return importlib.import_module(f"hanse.callbacks.{name}")


@pytest.fixture
def torch(monkeypatch):
    """As much of PyTorch as the callbacks touch where nothing is distributed."""

    class DistributedDataParallel:
        """What no module here is."""

    torch = stand_in(monkeypatch, "torch")
    torch.cuda = SimpleNamespace(
        is_available=lambda: True,
        get_device_name=lambda: "H100",
        max_memory_allocated=lambda: 2**30,
    )
    torch.Tensor = type("Tensor", (), {})
    torch.nn = SimpleNamespace(
        parallel=SimpleNamespace(DistributedDataParallel=DistributedDataParallel)
    )
    torch.distributed = stand_in(monkeypatch, "torch.distributed", is_available=lambda: False)
    return torch


def test_pytorch_tells_gpu_and_its_memory(torch, lines):
    module = callback("pytorch")
    with module.TrainingReport(min_interval_s=0.0, warm_up=0) as told:
        assert told.step(8, loss=1.5)
        assert told.step(8, loss=1.25)
    second = lines()[1]
    assert (second["gpu"], second["memory_peak_bytes"], second["loss"]) == ("H100", 2**30, 1.25)


def test_the_agent_reads_what_a_loop_writes(torch, lines):
    from agents.drivers.meter import Meter

    with callback("pytorch").TrainingReport(accumulation=1, min_interval_s=0.0) as told:
        for _ in range(4):
            told.step(8)
    now = time.monotonic()
    data = Path(os.environ["HANSE_PROGRESS"]).read_bytes()
    meter = Meter().read(data, now=now, since=0.0, final=True)
    assert (meter.junk, meter.lines, meter.samples) == (0, 2, 64)
    read, last = meter.measurement, lines()[-1]
    assert read.problem == ""
    for name in ("step_time_s", "local_batch", "accumulation", "replicas", "nodes", "gpu"):
        assert getattr(read, name) == last[name]
    assert read.memory_peak_bytes == 2**30


def test_pytorch_on_a_cpu_tells_the_process_memory(torch, lines):
    torch.cuda.is_available = lambda: False
    with callback("pytorch").TrainingReport(min_interval_s=0.0, warm_up=0) as told:
        told.step(8)
        told.step(8)
    assert "gpu" not in lines()[1]
    assert lines()[1]["memory_peak_bytes"] > 2**20


def batch(size):
    return SimpleNamespace(shape=(size, 3))


def test_lightning_counts_passes_and_ends(torch, monkeypatch, lines):
    monkeypatch.setenv("HANSE_SAMPLES", "64")
    stand_in(monkeypatch, "lightning")
    stand_in(monkeypatch, "lightning.pytorch", Callback=type("Callback", (), {}))
    told = callback("lightning").HanseCallback(min_interval_s=0.0, warm_up=0)
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(model=object()),
        accumulate_grad_batches=2,
        global_rank=0,
        world_size=2,
        num_nodes=1,
        global_step=0,
        should_stop=False,
    )
    told.on_train_start(trainer, None)
    for place in range(4):
        trainer.global_step = (place + 1) // 2
        assert not trainer.should_stop
        told.on_train_batch_end(trainer, None, None, [batch(8)], place)
    assert trainer.should_stop
    told.on_train_end(trainer, None)
    assert [line["samples"] for line in lines()] == [32, 64]
    assert (lines()[1]["local_batch"], lines()[1]["accumulation"]) == (8, 1)


def test_transformers_counts_a_stream_and_an_epoch_that_was_resumed(torch, monkeypatch, lines):
    stand_in(monkeypatch, "transformers", TrainerCallback=type("TrainerCallback", (), {}))
    told = callback("transformers").HanseCallback(min_interval_s=0.0, warm_up=0)
    arguments = SimpleNamespace(
        gradient_accumulation_steps=1, n_gpu=1, per_device_train_batch_size=8
    )
    state, control = SimpleNamespace(epoch=1.5), SimpleNamespace(should_training_stop=False)
    loader = SimpleNamespace(dataset=range(40))  # 20 of them are trained
    told.on_train_begin(arguments, state, control, model=object())
    told.on_epoch_begin(arguments, state, control, train_dataloader=loader)
    for _ in range(3):
        told.on_step_end(arguments, state, control)
    told.on_log(arguments, state, control, {"loss": 0.5})
    told.on_epoch_begin(arguments, state, control, train_dataloader=SimpleNamespace(dataset=None))
    told.on_step_end(arguments, state, control)
    told.on_train_end(arguments, state, control)
    assert [line["samples"] for line in lines()] == [8, 16, 20, 28]
    assert [line.get("loss") for line in lines()] == [None, None, None, 0.5]
    assert not control.should_training_stop


def test_keras_counts_several_batches_in_one_call(monkeypatch, lines):
    stand_in(monkeypatch, "keras")
    stand_in(monkeypatch, "keras.callbacks", Callback=type("Callback", (), {}))
    monkeypatch.setenv("HANSE_SAMPLES", "100")
    module = callback("keras")
    told = module.HanseCallback(
        batch_size=16, samples_per_epoch=56, replicas=4, nodes=2, min_interval_s=0.0, warm_up=0
    )
    told.model = SimpleNamespace(stop_training=False)
    told.on_train_begin()
    for _ in range(2):
        told.on_epoch_begin(0)
        assert not told.model.stop_training
        told.on_train_batch_end(1, {"loss": 3.0})
        told.on_train_batch_end(3, {"loss": 2.0})
        told.on_epoch_end(0)
    told.on_train_end()
    assert told.model.stop_training
    assert [line["samples"] for line in lines()] == [32, 56, 88, 112]
    assert lines()[0]["replicas"] == 4
    with pytest.raises(ValueError, match="split evenly"):
        module.HanseCallback(batch_size=10, samples_per_epoch=56, replicas=4)
