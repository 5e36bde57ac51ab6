"""The Hugging Face Trainer, as it is, on a model that is made here."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here: make test-torch")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed here: make test-torch"
)
pytest.importorskip("accelerate", reason="accelerate is not installed here: make test-torch")

from hanse.callbacks.transformers import HanseCallback  # noqa: E402


class Tokens(torch.utils.data.Dataset):
    def __init__(self, samples):
        self.rows = torch.randint(0, 50, (samples, 12), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        return {"input_ids": self.rows[place], "labels": self.rows[place]}


def trainer(tmp_path, samples, **options):
    configuration = transformers.GPT2Config(
        vocab_size=50,
        n_positions=12,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), use_cpu=True, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_steps=1, per_device_train_batch_size=8, **options,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(configuration)
    return transformers.Trainer(model=model, args=arguments, train_dataset=Tokens(samples))


def test_every_sample_is_counted_and_the_small_last_batch_for_what_it_is(tmp_path, lines):
    made = trainer(tmp_path, 20, num_train_epochs=2)
    made.add_callback(HanseCallback(made, min_interval_s=0.0, warm_up=1))
    made.train()
    written = lines()
    assert [line["samples"] for line in written] == [16, 20, 28, 36, 40]
    assert (written[0]["local_batch"], written[0]["replicas"]) == (8, 1)
    assert written[0]["step_time_s"] > 0
    assert "step_time_s" not in written[1]
    assert written[-1]["loss"] > 0


def test_passes_make_one_step_and_their_noise_is_known(tmp_path, lines):
    made = trainer(tmp_path, 96, num_train_epochs=1, gradient_accumulation_steps=4)
    made.add_callback(HanseCallback(gradient_noise=True, min_interval_s=0.0, warm_up=0))
    made.train()
    written = lines()
    assert [line["samples"] for line in written] == [32, 64, 96]
    assert (written[1]["local_batch"], written[1]["accumulation"]) == (8, 3)
    assert min(written[-1]["grad_sqr"], written[-1]["grad_var"]) > 0


def test_training_ends_when_the_attempt_has_trained_enough(tmp_path, monkeypatch, lines):
    monkeypatch.setenv("HANSE_SAMPLES", "24")
    made = trainer(tmp_path, 800, num_train_epochs=3)
    made.add_callback(HanseCallback(made))
    made.train()
    assert made.state.global_step == 3
    assert lines()[-1]["samples"] == 24
