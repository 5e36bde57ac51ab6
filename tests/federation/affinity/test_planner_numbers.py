"""Published figures that the planner's formulas give again."""

from __future__ import annotations

import pytest

from federation.affinity.planner.memory import (
    Offload,
    layer_activations,
    model_states,
    offloaded_states,
)
from federation.affinity.planner.model import ModelDescription, transformer_parameters
from federation.affinity.planner.splits import Recompute
from federation.affinity.planner.step_time import run_seconds, step_operations
from tests.docs.reading import DOCS, tables

GIB, MIB, DAY = 2.0**30, 2.0**20, 86400.0
PAGE = tables(DOCS / "explanation" / "one-click-plans.md")
DEEPSPEED = (2851e6, 8, 32e6)  # parameters, GPUs, parameters of the largest layer


def gpt(layers, hidden, heads, *, batch, seq=2048, vocab=51200):
    params = transformer_parameters(layers, hidden, vocab, seq)
    return ModelDescription(params, layers, hidden, heads, seq, vocab, batch)


def table(column):
    return next(rows for rows in PAGE if column in rows[0])


@pytest.mark.parametrize(
    ("zero", "offload", "gib"),
    [
        (2, Offload.NONE, 15.93),
        (2, Offload.OPTIMIZER, 5.31),
        (3, Offload.NONE, 6.09),
        (3, Offload.OPTIMIZER, 0.78),
        (3, Offload.ALL, 0.12),
    ],
)
def test_deepspeeds_documented_case(zero, offload, gib):
    found = offloaded_states(zero, *DEEPSPEED, offload) / GIB
    assert abs(found - gib) <= 0.01
    rows = {(row["ZeRO"], row["In the host's memory"]): row for row in table("GiB per GPU")}
    row = rows[str(zero), offload.value]
    assert (row["Published"], row["GiB per GPU"]) == (f"{gib:.2f}", f"{found:.2f}")


@pytest.mark.parametrize(("zero", "each"), [(0, 18), (1, 6 + 12 / 8), (2, 4 + 16 / 8), (3, 18 / 8)])
def test_bytes_of_a_parameter_by_stage_of_zero(zero, each):
    assert sum(model_states(zero, 1e9, 8, 0.0).values()) == pytest.approx(each * 1e9)


@pytest.mark.parametrize("zero", [0, 1])
def test_only_stages_2_and_3_offload(zero):
    with pytest.raises(ValueError, match=f"stage {zero}"):
        offloaded_states(zero, *DEEPSPEED, Offload.OPTIMIZER)


LARGE, LARGEST = gpt(96, 12288, 96, batch=1536), gpt(105, 20480, 128, batch=2240)
MEGATRON = [
    (LARGE, 384, 153, 84),
    (LARGE, 768, 149, 43),
    (LARGE, 1536, 141, 23),
    (LARGEST, 560, 171, 156),
    (LARGEST, 1120, 167, 80),
    (LARGEST, 2240, 159, 42),
]


@pytest.mark.parametrize(("model", "gpus", "tflops", "days"), MEGATRON)
def test_megatrons_days_for_300_billion_tokens(model, gpus, tflops, days):
    seconds = run_seconds(model, Recompute.FULL, tokens=300e9, gpus=gpus, tflops=tflops)
    assert seconds / DAY == pytest.approx(days, rel=0.02)
    [row] = [row for row in table("TFLOP/s per GPU") if row["GPUs"] == f"{gpus}"]
    assert (row["Published"], row["Days"]) == (f"{days}", f"{seconds / DAY:.1f}")


ACTIVATIONS = [
    (gpt(48, 6144, 64, batch=4), 4, (1264, 844, 624, 204, 96)),
    (LARGE, 1, (552, 342, 312, 102, 48)),
]


@pytest.mark.parametrize(("model", "micro_batch", "mib"), ACTIVATIONS)
def test_activations_of_one_layer_over_8_tensor_ranks(model, micro_batch, mib):
    plain = layer_activations(model, micro_batch, 8, False)
    shared = layer_activations(model, micro_batch, 8, True)
    found = [
        by_way[way] / MIB
        for way in (Recompute.NONE, Recompute.SELECTIVE)
        for by_way in (plain, shared)
    ]
    assert (*found, plain[Recompute.FULL] / MIB) == mib
    assert shared[Recompute.FULL] == plain[Recompute.FULL]
    rows = table("Selective, sequence split")
    figures = {tuple(int(text) for text in list(row.values())[1:]) for row in rows}
    assert mib in figures


@pytest.mark.parametrize(
    ("way", "factor", "logits"), [(Recompute.NONE, 72, 12), (Recompute.FULL, 96, 16)]
)
def test_operations_are_those_of_the_published_formula(way, factor, logits):
    for model in (LARGE, LARGEST):
        s, h, layers = model.seq, model.hidden, model.layers
        inner = 1 + s / (6 * h) + model.vocab / (logits * layers * h)
        published = factor * model.global_batch * s * layers * h**2 * inner
        assert step_operations(model, way) == pytest.approx(published, rel=1e-3)


def test_parameters_of_the_models_have_their_names():
    assert LARGE.params == pytest.approx(175e9, rel=0.005)
    assert LARGEST.params == pytest.approx(530e9, rel=0.005)
