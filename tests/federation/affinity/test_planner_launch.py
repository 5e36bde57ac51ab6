"""What a launched command is told, and the command `plan`."""

from __future__ import annotations

import argparse
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.affinity.planner.command_line import add_command
from federation.affinity.planner.environment import launch_environment, process_environment
from federation.affinity.planner.errors import BadDescription, PlannerError
from federation.affinity.planner.model import ModelDescription
from federation.affinity.planner.planning import plans
from federation.affinity.planner.pool import Device, Pool
from federation.affinity.planner.reading import read_plan
from federation.affinity.planner.synchronisation import Variable, resources_of, synchronise
from tests.docs.reading import DOCS, blocks

BERT = ModelDescription(340e6, 24, 1024, 16, 512, 30522, 256)
POOL = Pool("A", Device(80, 312, 2400, 200), 64, 8)
PLAN = {
    "params": 340e6, "layers": 24, "hidden": 1024, "heads": 16, "seq": 512, "vocab": 30522,
    "global_batch": 256, "gpus": 16, "gpus_per_node": 8,
    "gpu": {"memory_gb": 80, "peak_tflops": 312, "intra_gbit_s": 2400, "inter_gbit_s": 200},
}  # fmt: skip
POOLS = {
    "pools": [
        {"id": "A", "gpu": PLAN["gpu"], "gpus": 16, "gpus_per_node": 8, "price": 3},
        {
            "id": "B", "gpu": {**PLAN["gpu"], "peak_tflops": 125}, "gpus": 4, "gpus_per_node": 4,
            "price": 0.5, "efficiency": 0.4, "believed": {"samples_per_s": 50, "gpus": 1},
        },
    ]
}  # fmt: skip


def test_the_command_is_told_the_plan_in_torchruns_names():
    plan = plans(BERT, POOL, 16).plans[0]
    told = launch_environment(plan)
    document = json.loads(told.pop("HANSE_PLAN"))
    assert told == {
        "WORLD_SIZE": "16",
        "LOCAL_WORLD_SIZE": "8",
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "8",
    }
    assert document == {"format": "hanse.plan/1", **plan.document()}
    assert "\n" not in launch_environment(plan)["HANSE_PLAN"]


def test_ranks_fill_nodes_and_the_last_may_be_smaller():
    plan = plans(BERT, POOL, 12).plans[0]
    told = [process_environment(plan, rank, master="node-0") for rank in range(12)]
    assert [one["RANK"] for one in told] == [str(rank) for rank in range(12)]
    assert [one["LOCAL_RANK"] for one in told] == [*"01234567", *"0123"]
    assert [one["GROUP_RANK"] for one in told] == ["0"] * 8 + ["1"] * 4
    assert [one["LOCAL_WORLD_SIZE"] for one in told] == ["8"] * 8 + ["4"] * 4
    assert {(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in told} == {("node-0", "29500")}


@pytest.mark.parametrize(
    ("rank", "master", "port", "line"),
    [(16, "a", 1, "rank: must be at most 15"), (0, "", 1, "master: "), (0, "a", 70000, "port: ")],
)
def test_ranks_that_are_not_there_are_refused(rank, master, port, line):
    plan = plans(BERT, POOL, 16).plans[0]
    with pytest.raises(BadDescription, match=line):
        process_environment(plan, rank, master=master, port=port)


def test_the_plan_carries_how_variables_are_kept_alike():
    plan = plans(BERT, POOL, 16).plans[0]
    words = Variable("words", 30522, 125e6, touched=0.01)
    chosen = synchronise([words, Variable("dense", 1024, 4e6)], resources_of(POOL, 16))
    told = json.loads(launch_environment(plan, synchronisation=chosen)["HANSE_PLAN"])
    assert told["synchronisation"] == chosen.document()
    places = told["synchronisation"]["variables"]
    assert [one["variable"] for one in places] == ["words", "dense"]


@pytest.fixture
def run(tmp_path, capsys):
    """The command on documents; (exit code, standard output, standard error)."""
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers(dest="command"))

    def run(plan, *flags, pools=None):
        words = ["plan", str(tmp_path / "plan.json"), *flags]
        documents = [("plan.json", plan)]
        if pools is not None:
            documents.append(("pools.json", pools))
            words += ["--pools", str(tmp_path / "pools.json")]
        for name, document in documents:
            text = document if isinstance(document, str) else json.dumps(document)
            (tmp_path / name).write_text(text)
        asked = parser.parse_args(words)
        code = asked.run(asked)
        return code, *capsys.readouterr()

    return run


def test_plan_prints_ranked_plans_and_reasons(run):
    code, out, err = run(PLAN)
    assert (code, err) == (0, "")
    found = json.loads(out)
    expected = plans(BERT, POOL, 16)
    assert found["considered"] == expected.considered
    assert [row["rank"] for row in found["plans"]] == list(range(1, len(expected.plans) + 1))
    assert found["plans"][0] == {"rank": 1, **expected.plans[0].document()}
    memory = found["plans"][0]["memory_gb"]
    parts = ("weights", "gradients", "optimizer", "activations")
    assert memory["total"] == pytest.approx(sum(memory[part] for part in parts))
    assert {tuple(row) for row in found["rejected"]} == {("family", "why")}


def test_plan_chooses_among_pools(run):
    model = {key: value for key, value in PLAN.items() if key not in ("gpu", "gpus_per_node")}
    flags = ("--samples", "1e6", "--deadline-s", "4000", "--budget", "3")
    code, out, err = run(model, *flags, pools=POOLS)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["cheapest"]["time_s"] <= 4000
    assert found["fastest"]["credits"] <= 3
    assert {one["pool"] for one in found["priced"]} == {"A", "B"}
    alone = next(one for one in found["priced"] if one["pool"] == "B" and one["plan"]["gpus"] == 1)
    assert alone["plan"]["samples_per_s"] == pytest.approx(50)


def without(document, *keys):
    return {key: value for key, value in document.items() if key not in keys}


@pytest.mark.parametrize(
    ("plan", "lines"),
    [
        ("{", ["is not JSON we read"]),
        ("[]", ["PLAN: must be a JSON object"]),
        ('{"params": NaN}', ["is not JSON we read"]),
        (without(PLAN, "layers", "gpu"), ["layers: missing", "gpu: missing"]),
        ({**PLAN, "colour": 1}, ["colour: unknown key"]),
        ({**PLAN, "layers": 1.5}, ["layers: must be a whole number"]),
        ({**PLAN, "gpus": 0, "seq": -1}, ["seq: must be", "gpus: must be"]),
        ({**PLAN, "gpu": 80}, ["gpu: must be an object"]),
        ({**PLAN, "gpu": {**PLAN["gpu"], "memory_gb": "80"}}, ["gpu.memory_gb: must be a number"]),
        ({**PLAN, "gpu": without(PLAN["gpu"], "peak_tflops")}, ["gpu.peak_tflops: missing"]),
        ({**PLAN, "params": 5e12}, ["the tightest part is"]),
        ({**PLAN, "global_batch": 1, "layers": 1, "heads": 1}, ["cannot be divided"]),
    ],
)
def test_what_cannot_be_planned_ends_with_sentences(run, plan, lines):
    code, out, err = run(plan)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == len(lines)
    for line, expected in zip(err.splitlines(), lines, strict=True):
        assert expected in line


@pytest.mark.parametrize(
    ("flags", "pools", "line"),
    [
        (("--budget", "3"), None, "--budget: needs --pools"),
        ((), POOLS, "samples: missing"),
        (("--samples", "nan"), POOLS, "samples: must be finite"),
        (("--samples", "1e6"), {"pools": []}, "pools: must be a list"),
        (("--samples", "1e6"), {"pools": [POOLS["pools"][0]] * 2}, "'A' stands twice"),
        (("--samples", "1e6"), {"pools": [{}]}, "pools[0].id: must be a name"),
        (
            ("--samples", "1e6"),
            {"pools": [{**POOLS["pools"][1], "believed": {"gpus": 1}}]},
            "pools[0].believed.samples_per_s: missing",
        ),
    ],
)
def test_pools_that_cannot_be_chosen_from_end_with_sentences(run, flags, pools, line):
    code, out, err = run(PLAN, *flags, pools=pools)
    assert (code, out) == (2, "")
    assert line in err


def test_the_documents_of_the_page_are_planned(run):
    page = DOCS / "reference" / "plan.md"
    plan, pools = (json.loads(block.text) for block in blocks(page) if block.language == "json")
    code, out, err = run(plan)
    assert (code, err) == (0, "")
    tables = page.read_text().partition("## Choosing a pool")
    for key in json.loads(out)["plans"][0]:
        assert f"`{key}`" in tables[0]
    code, out, err = run(plan, "--samples", "1e9", pools=pools)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [row["pool"] for row in found["refused"]] == ["B.T"]
    assert all(f"`{key}`" in tables[2] for key in found if key != "format")
    code, out, err = run({**plan, "gpus": 8})
    assert code == 2
    assert err in page.read_text()


def test_a_file_that_is_not_there_is_named(run, tmp_path):
    code, out, err = run(PLAN, "--pools", str(tmp_path / "none.json"), "--samples", "1")
    assert (code, out) == (2, "")
    assert "none.json: No such file" in err


numbers = st.one_of(
    st.integers(-1, 200),
    st.sampled_from([0.5, 1e3, 1e9, 1e16, 1e-9, 1e300, 10**400, None, True, "8", [], {}]),
)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_no_document_ends_in_a_traceback(data):
    plan = {**PLAN, "gpu": dict(PLAN["gpu"])}
    keys = data.draw(st.lists(st.sampled_from(sorted(plan)), max_size=3, unique=True))
    for key in keys:
        plan[key] = data.draw(numbers)
    if isinstance(plan["gpu"], dict) and plan["gpu"]:
        plan["gpu"][data.draw(st.sampled_from(sorted(plan["gpu"])))] = data.draw(numbers)
    parsed = json.loads(json.dumps(plan))
    try:
        model, pool = read_plan(parsed)
        found = plans(model, pool, pool.gpus)
    except PlannerError as refused:
        lines = str(refused).splitlines()
    else:
        assert bool(found.plans) != bool(found.nothing)
        assert all(0 < plan.step_s < math.inf for plan in found.plans)
        json.dumps([plan.document() for plan in found.plans], allow_nan=False)
        lines = [found.nothing or "fits: "]
    assert lines
    assert all(": " in line for line in lines)
