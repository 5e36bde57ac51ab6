"""`workload.model` in a job file, and `hanse plan`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hanse.stub import Answer, problem
from tests.hanse.test_cli import logged_in as logged_in  # a fixture
from tests.hanse.test_cli import run
from tests.hanse.test_jobfile import one, problems

PLANNED = """\
name: gpt
run: torchrun train.py
workload:
  class: gpt2
  samples: 1e6
  model:
    params: 1.3e9
    layers: 24
    hidden: 2048
    heads: 16
    seq: 2048
    vocab: 50304
    global_batch: 64
market: {value: 1, max_cost: 100}
"""
MODEL = {
    "params": 1_300_000_000,
    "layers": 24,
    "hidden": 2048,
    "heads": 16,
    "seq": 2048,
    "vocab": 50304,
    "global_batch": 64,
}
VARIABLES = """\
    variables:
      - {name: wte.weight, size_mb: 206.5, sparse: true}
      - {name: body, size_mb: 2100, rows: 2048}
"""


def a_plan(pool: str, gpus: int, time_s: float, credits: float) -> dict[str, Any]:
    plan = {
        "gpus": gpus,
        "tensor": 2,
        "pipeline": 1,
        "data": gpus // 2,
        "zero": 1,
        "recompute": "selective",
        "micro_batch": 4,
        "memory_gb": {"total": 61.25},
        "step_time_s": 1.5,
    }
    return {"pool": pool, "time_s": time_s, "credits": credits, "plan": plan}


FAST, CHEAP = a_plan("north.h", 16, 3600.0, 90.0), a_plan("south.a", 8, 18_000.0, 40.0)
CHOICE = {
    "format": "hanse.choice/1",
    "gpus": [8, 16],
    "pools": ["north.h", "south.a"],
    "cheapest": CHEAP,
    "fastest": FAST,
    "front": [FAST, CHEAP],
    "refused": [{"pool": "east.k", "why": "no plan on east.k fits"}],
    "why": ["nothing ends within 5 s"],
    "notes": ["Without 4 GPUs: the model does not fit so at every pool chosen."],
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(PLANNED)
    return path


def test_a_model_without_accelerators_sends_no_sizes():
    draft = one(PLANNED)

    body = draft.body()
    assert (draft.gpus, body["model"]) == ((), MODEL)
    assert "gpus" not in body
    assert body["gpu_kinds"] == []


def test_sizes_of_ones_own_stand_beside_the_model():
    body = one(PLANNED + "resources: {accelerators: A100:4-8}\n").body()

    assert (body["gpus"], body["gpu_kinds"], body["model"]) == ([4, 8], ["A100"], MODEL)


def test_without_a_model_the_body_is_as_ever():
    plain = PLANNED[: PLANNED.index("  model:")] + PLANNED[PLANNED.index("market:") :]

    body = one(plain).body()

    assert body["gpus"] == [1]
    assert "model" not in body


def test_variables_come_with_the_model():
    text = PLANNED.replace("market:", VARIABLES + "market:")

    assert one(text).body()["model"]["variables"] == [
        {"name": "wte.weight", "size_mb": 206.5, "sparse": True},
        {"name": "body", "size_mb": 2100.0, "sparse": False, "rows": 2048},
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "why"),
    [
        ("    heads: 16\n", "", 7, "workload.model.heads", "missing"),
        ("heads: 16", "head: 16", 10, "workload.model.head", "did you mean 'heads'?"),
        ("layers: 24", "layers: 2.5", 8, "workload.model.layers", "whole number of layers"),
        ("layers: 24", "layers: many", 8, "workload.model.layers", "must be a number"),
        ("layers: 24", "layers: 0", 8, "workload.model.layers", "between 1 and 100000"),
        ("params: 1.3e9", "params: .nan", 7, "workload.model.params", "finite"),
        ("params: 1.3e9", "params: 1e17", 7, "workload.model.params", "between"),
        ("seq: 2048", "seq: -1", 11, "workload.model.seq", "between"),
        ("vocab: 50304", "vocab: [1]", 12, "workload.model.vocab", "must be a number"),
    ],
)
def test_each_bad_figure_is_named_with_its_line(old, new, line, path, why):
    assert old in PLANNED
    found = problems(PLANNED.replace(old, new))

    [(at, _, sentence)] = [row for row in found if row[1] == path]
    assert at == line
    assert why in sentence


@pytest.mark.parametrize(
    ("new", "path", "why"),
    [
        ("variables: 3", "variables", "a list of 1 to 1000"),
        ("variables: []", "variables", "a list of 1 to 1000"),
        ("variables: [w]", "variables[0]", "must be such as"),
        ("variables: [{size_mb: 1}]", "variables[0].name", "missing"),
        ('variables: [{name: "", size_mb: 1}]', "variables[0].name", "printable"),
        ("variables: [{name: w}]", "variables[0].size_mb", "missing"),
        ("variables: [{name: w, size_mb: 0}]", "variables[0].size_mb", "between"),
        ("variables: [{name: w, size_mb: 1, rows: 0}]", "variables[0].rows", "between"),
        ("variables: [{name: w, size_mb: 1, sparse: 2}]", "variables[0].sparse", "true or false"),
        ("variables: [{name: w, size_mb: 1, row: 2}]", "variables[0].row", "did you mean 'rows'?"),
    ],
)
def test_each_bad_variable_is_named(new, path, why):
    [(line, at, sentence)] = problems(PLANNED.replace("market:", f"    {new}\nmarket:"))

    assert (line, at) == (14, f"workload.model.{path}")
    assert why in sentence


def test_a_model_that_is_no_block_is_refused():
    text = (
        PLANNED[: PLANNED.index("  model:")]
        + "  model: gpt\n"
        + "market: {value: 1, max_cost: 1}\n"
    )

    assert problems(text) == [(6, "workload.model", "must be a block of keys")]


def test_plan_shows_a_table_and_what_a_submission_would_get(file, logged_in):
    logged_in.on("POST", "/api/v1/plans", Answer(200, CHOICE))

    done = run("plan", file)

    assert (done.exit_code, done.stderr) == (0, "")
    [asked] = logged_in.asked
    assert (asked.body["model"], "gpus" in asked.body) == (MODEL, False)
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == "POOL"
    fast = lines[1].split()
    assert fast[:2] == ["north.h", "16"]
    assert "2 x 1 x 8" in lines[1]
    assert fast[-1] == "fastest"
    assert {"selective", "61.2", "1.500", "1.00", "90.00"} <= set(fast)
    assert lines[2].split()[0] == "south.a"
    assert lines[2].endswith("cheapest")
    rest = "\n".join(lines[3:])
    assert "GPUs  8, 16" in rest
    assert "pools north.h, south.a" in rest
    for sentence in (*CHOICE["why"], *CHOICE["notes"], "east.k: no plan on east.k fits"):
        assert sentence in rest


def test_one_plan_may_be_both_best(file, logged_in):
    both = {**CHOICE, "cheapest": FAST, "front": [FAST]}
    logged_in.on("POST", "/api/v1/plans", Answer(200, both))

    [_, row, *_] = run("plan", file).stdout.splitlines()

    assert row.endswith("cheapest, fastest")


def test_wishes_that_nothing_meets_leave_the_front(file, logged_in):
    neither = {**CHOICE, "cheapest": None, "fastest": None}
    logged_in.on("POST", "/api/v1/plans", Answer(200, neither))

    lines = run("plan", file).stdout.splitlines()

    assert [line.split()[0] for line in lines[1:3]] == ["north.h", "south.a"]


def test_of_many_refused_pools_some_are_shown_each_in_short(file, logged_in):
    long = "no plan fits: " + "word " * 60
    refused = [{"pool": f"p{at}.x", "why": long} for at in range(12)]
    logged_in.on("POST", "/api/v1/plans", Answer(200, {**CHOICE, "refused": refused}))

    lines = run("plan", file).stdout.splitlines()

    assert "refused: 12 of the pools that it may use" in lines
    shown = [line for line in lines if ".x: no plan fits" in line]
    assert len(shown) == 10
    assert all(len(line) < 180 and line.endswith(" ...") for line in shown)
    assert lines[-1].strip().startswith("and 2 more")


def test_plan_as_json_is_the_answer(file, logged_in):
    logged_in.on("POST", "/api/v1/plans", Answer(200, CHOICE))

    assert json.loads(run("plan", file, "-o", "json").stdout) == CHOICE


def test_a_job_without_a_model_cannot_be_planned(tmp_path, logged_in):
    path = tmp_path / "plain.yaml"
    path.write_text(
        "name: j\nrun: x\nworkload: {class: c, samples: 1}\nmarket: {value: 1, max_cost: 1}\n"
    )

    done = run("plan", path)

    assert done.exit_code == 2
    assert "j has no workload.model" in done.stderr
    assert (done.stdout, logged_in.asked) == ("", [])


def test_problems_of_the_file_end_with_2(tmp_path, logged_in):
    path = tmp_path / "bad.yaml"
    path.write_text(PLANNED.replace("layers: 24", "layers: 0"))

    done = run("plan", path)

    assert done.exit_code == 2
    assert f"{path}:8: workload.model.layers" in done.stderr
    assert logged_in.asked == []


def test_a_refusal_of_the_broker_ends_with_1_and_its_sentence(file, logged_in):
    sentence = "no plan on north.h fits in 92% of 80 GB"
    logged_in.on("POST", "/api/v1/plans", problem(409, "no_plan", sentence))

    done = run("plan", file)

    assert done.exit_code == 1
    assert sentence in done.stderr
