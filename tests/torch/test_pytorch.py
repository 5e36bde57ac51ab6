"""A loop of one's own under real PyTorch: counts, times, memory, gradient noise."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here: make test-torch")

from hanse.callbacks.gradients import PassNoise, squared_norm  # noqa: E402
from hanse.callbacks.pytorch import Gauges, TrainingReport, memory_peak_bytes  # noqa: E402


def a_model(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))


def losses(model, batches):
    return [model(x).pow(2).mean() for x in batches]


def test_a_loop_reports_samples_shape_times_and_memory(lines):
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with TrainingReport(model, min_interval_s=0.0, warm_up=1) as told:
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(torch.randn(32, 8)).pow(2).mean()
            loss.backward()
            optimizer.step()
            told.step(32, loss=loss)
    written = lines()
    assert [line["samples"] for line in written] == [64, 96, 128]
    for line in written:
        assert (line["local_batch"], line["accumulation"]) == (32, 0)
        assert (line["replicas"], line["nodes"]) == (1, 1)
        assert line["step_time_s"] > 0
        assert math.isfinite(line["loss"])
        assert line["memory_peak_bytes"] > 1e7  # PyTorch alone takes more
    assert ("gpu" in written[0]) == torch.cuda.is_available()


def test_the_loop_ends_when_the_attempt_has_trained_enough(monkeypatch, lines):
    monkeypatch.setenv("HANSE_SAMPLES", "96")
    with TrainingReport(min_interval_s=3600.0) as told:
        steps = 0
        while not told.done:
            told.step(32)
            steps += 1
    assert steps == 3
    assert lines()[-1]["samples"] == 96


def test_a_loss_is_not_kept_with_its_graph():
    freed = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            context.marker = Marker()
            return value * 2

        @staticmethod
        def backward(context, gradient):
            return gradient * 2

    class Marker:
        def __del__(self):
            freed.append(True)

    told = TrainingReport(min_interval_s=3600.0)
    loss = Watched.apply(torch.ones(3, requires_grad=True)).sum()
    told.step(3, loss=loss)
    del loss
    assert freed == [True]


@pytest.mark.parametrize("summed", [False, True])
def test_noise_between_passes_is_the_one_of_the_formula(summed):
    model, passes = a_model(), 4
    batches = [torch.randn(16, 8) for _ in range(passes)]
    each = []
    for x in batches:
        gradients = torch.autograd.grad(model(x).pow(2).mean(), list(model.parameters()))
        each.append(torch.cat([g.flatten() for g in gradients]).double())
    mean_square = sum(float(g.square().sum()) for g in each) / passes
    averaged = float((sum(each) / passes).square().sum())
    noise = PassNoise(model.parameters(), passes, summed=summed)
    for loss in losses(model, batches):
        (loss if summed else loss / passes).backward()
    noise.end_step(64)
    found = noise.measured(64)
    square = (passes * averaged - mean_square) / (passes - 1)
    variance = (mean_square - averaged) / (passes - 1)
    if min(square, variance) > 0:
        assert found["grad_sqr"] == pytest.approx(square, rel=1e-4)
        assert found["grad_var"] == pytest.approx(variance, rel=1e-4)
    assert noise.measured(128)["grad_var"] == pytest.approx(found["grad_var"] / 2)


def test_noise_of_a_known_gradient_is_found():
    """Gradient of a sample: a known mean plus noise of known variance; M0 is four passes of 8."""
    torch.manual_seed(1)
    weight = torch.nn.Parameter(torch.zeros(50))
    mean = torch.full((50,), 0.3)
    noise = PassNoise([weight], 4)
    for _ in range(1000):
        weight.grad = None
        for _ in range(4):
            samples = mean + torch.randn(8, 50)
            (samples @ weight).mean().div(4).backward()
        noise.end_step(32)
    found = noise.measured(32)
    assert found["grad_sqr"] == pytest.approx(50 * 0.09, rel=0.03)
    assert found["grad_var"] == pytest.approx(50 / 32, rel=0.03)


def test_a_short_step_and_an_overflow_are_left_out():
    weight = torch.nn.Parameter(torch.zeros(3))
    noise = PassNoise([weight], 2)
    (weight * torch.randn(3)).sum().backward()
    noise.end_step(8)  # one pass of two
    assert noise.measured(8) == {}
    for _ in range(2):
        (weight * torch.tensor([math.inf, 1.0, 1.0])).sum().backward()
    noise.end_step(8)
    assert noise.measured(8) == {}
    assert noise.average.weight == 0.0


def test_hooks_are_taken_off_again():
    model = a_model()
    gauges = Gauges(model, accumulation=1, gradient_noise=True)
    gauges.remove()
    for x in (torch.randn(4, 8), torch.randn(4, 8)):
        model(x).mean().backward()
    gauges.end_step(8)
    assert "grad_sqr" not in gauges.measured(8)


def test_a_sparse_gradient_has_a_norm():
    table = torch.nn.Embedding(10, 2, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()
    assert table.weight.grad.is_sparse
    assert float(squared_norm(table.weight.grad)) == 2 * 4 + 2  # row 1 twice, row 3 once


def test_one_pass_has_no_noise():
    with pytest.raises(ValueError, match="two passes"):
        PassNoise(a_model().parameters(), 1)
    assert "grad_sqr" not in Gauges(a_model(), gradient_noise=True).measured(1)


def test_memory_peak_grows_with_what_is_held():
    before = memory_peak_bytes()
    held = torch.ones(before // 4, dtype=torch.float32)  # as much again
    assert memory_peak_bytes() > before
    del held
