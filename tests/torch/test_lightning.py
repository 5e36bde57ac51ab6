"""PyTorch Lightning, as it is."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here: make test-torch")
lightning = pytest.importorskip(
    "lightning.pytorch", reason="Lightning is not installed here: make test-torch"
)

from hanse.callbacks.lightning import HanseCallback  # noqa: E402


class Regression(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)
        self.losses = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = (self.layer(x) - y).pow(2).mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader(samples, batch_size):
    x = torch.randn(samples, 8, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    return torch.utils.data.DataLoader(data, batch_size=batch_size)


def fit(callback, model, tmp_path, data, **options):
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False, callbacks=[callback], **options,
    )  # fmt: skip
    trainer.fit(model, data, data)
    return trainer


def test_every_sample_is_counted_and_the_small_last_batch_for_what_it_is(tmp_path, lines):
    callback = HanseCallback(min_interval_s=0.0, warm_up=1)
    model = Regression()
    fit(callback, model, tmp_path, loader(40, 16), max_epochs=2)
    written = lines()
    assert [line["samples"] for line in written] == [32, 40, 56, 72, 80]
    assert [written[0]["local_batch"], written[1]["local_batch"]] == [16, 8]
    assert min(written[0]["step_time_s"], written[1]["step_time_s"]) > 0
    assert "step_time_s" not in written[2]  # nor what follows validation
    assert written[-1]["loss"] == pytest.approx(model.losses[-1])


def test_passes_make_one_step_and_their_noise_is_known(tmp_path, lines):
    callback = HanseCallback(gradient_noise=True, min_interval_s=0.0, warm_up=0)
    model = Regression()
    fit(callback, model, tmp_path, loader(96, 8), max_epochs=1, accumulate_grad_batches=4)
    written = lines()
    assert [line["samples"] for line in written] == [32, 64, 96]
    assert (written[1]["local_batch"], written[1]["accumulation"]) == (8, 3)
    assert min(written[-1]["grad_sqr"], written[-1]["grad_var"]) > 0
    assert written[-1]["loss"] == pytest.approx(model.losses[-1])


def test_training_ends_when_the_attempt_has_trained_enough(tmp_path, monkeypatch, lines):
    monkeypatch.setenv("HANSE_SAMPLES", "64")
    trainer = fit(HanseCallback(), Regression(), tmp_path, loader(640, 16), max_epochs=50)
    assert trainer.global_step == 4
    assert lines()[-1]["samples"] == 64


def test_a_loop_that_fails_has_said_how_far_it_came(tmp_path, lines):
    class Failing(Regression):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise RuntimeError("the disk is gone")
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match="disk"):
        fit(HanseCallback(), Failing(), tmp_path, loader(160, 16), max_epochs=1)
    assert lines()[-1]["samples"] == 32
