"""Job files: what a good one becomes, and that every bad one is refused where it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.errors import JobFileInvalid, Problem
from hanse.jobfile import load
from hanse.jobfile.document import MAX_BYTES

GOOD = """\
name: resnet-a
num_nodes: 1
resources: {accelerators: A100:4}
envs: {EPOCHS: "3", RATE: 1e-3}
setup: pip install -r requirements.txt
run: torchrun --nproc-per-node 4 train.py
workload: {class: resnet50-b64, samples: 3.8e6, checkpoint: {grace_s: 60}}
market:
  value: 12.0
  max_cost: "80.00"
  deadline: 2026-12-01T13:00:00+01:00
  preemptible: false
placement: {sites_allow: [alder], sites_deny: [birch], pools: [alder.a100]}
"""
LEAST = """\
name: j
run: "true"
workload: {class: c, samples: 1}
market: {value: 1, max_cost: 1}
"""


def one(text: str, **options):
    [draft] = load(text.encode(), **options)
    return draft


def problems(text: str | bytes, **options) -> list[tuple[int, str, str]]:
    with pytest.raises(JobFileInvalid) as caught:
        load(text if isinstance(text, bytes) else text.encode(), **options)
    return [(p.line, p.path, p.sentence) for p in caught.value.problems]


def the_problem(text: str | bytes, **options) -> tuple[int, str, str]:
    [found] = problems(text, **options)
    return found


def swapped(old: str, new: str, text: str = GOOD) -> str:
    assert old in text
    return text.replace(old, new)


def test_a_good_file_becomes_exactly_the_rest_body():
    assert one(GOOD).body() == {
        "name": "resnet-a",
        "job_class": "resnet50-b64",
        "command": "torchrun --nproc-per-node 4 train.py",
        "setup": "pip install -r requirements.txt",
        "gpus": [4],
        "gpu_kinds": ["A100"],
        "samples": 3_800_000,
        "value": "12.0",
        "max_cost": "80.00",
        "deadline": "2026-12-01T12:00:00Z",
        "env": {"EPOCHS": "3", "RATE": "1e-3"},
        "preemptible": False,
        "max_runtime_s": None,
        "grace_s": 60,
        "sites_allow": ["alder"],
        "sites_deny": ["birch"],
        "pools": ["alder.a100"],
    }


def test_what_is_left_out_has_a_safe_default():
    body = one(LEAST).body()
    assert (body["gpus"], body["gpu_kinds"], body["env"], body["setup"]) == ([1], [], {}, "")
    assert (body["deadline"], body["preemptible"], body["grace_s"]) == (None, True, 30)
    json.dumps(body, allow_nan=False)


def test_blocks_left_empty_are_as_good_as_left_out():
    empty = "resources:\nenvs:\nplacement:\n"
    assert one(LEAST + empty).body() == one(LEAST).body()


@pytest.mark.parametrize(
    ("written", "kinds", "gpus"),
    [
        ("A100:4", ["A100"], [4]),
        ("A100", ["A100"], [1]),
        ("A100:1-8", ["A100"], [1, 2, 4, 8]),
        ("A100:2-6", ["A100"], [2, 4]),
        ("4", [], [4]),
        ("any:3", [], [3]),
        ("any", [], [1]),
        ("1-4", [], [1, 2, 4]),
        ("{A100: 4, H100: 4}", ["A100", "H100"], [4]),
        ("{A100: 1-2, H100: 1-2}", ["A100", "H100"], [1, 2]),
        ("['A100:4', 'H100:4']", ["A100", "H100"], [4]),
        ("[A100-80GB, H100]", ["A100-80GB", "H100"], [1]),
    ],
)
def test_accelerators(written, kinds, gpus):
    body = one(f"{LEAST}resources: {{accelerators: {written}}}").body()
    assert (body["gpu_kinds"], body["gpus"]) == (kinds, gpus)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("A100:0", "no number of GPUs"),
        ("'A100:'", "no number of GPUs"),
        ("A100:-1", "no number of GPUs"),
        ("A100:1.5", "no number of GPUs"),
        ("A100:4096", "at most 1024"),
        ("A100:8-1", "upside down"),
        ("A100:5-7", "no power of two"),
        ("{A100: 4, H100: 8}", "same number"),
        ("[A100, a100]", "given twice"),
        ("[any, A100]", "'any'"),
        ("[]", "names no"),
        ("{}", "names no"),
        ("[[A100]]", "such as"),
        ("null", "such as"),
        ("0", "no kind"),
        ("'A100/../x'", "no kind"),
        ('"A100\\n"', "no kind"),
    ],
)
def test_accelerators_that_mean_nothing_are_refused(written, says):
    line, path, sentence = the_problem(f"{LEAST}resources: {{accelerators: {written}}}")
    assert (line, path) == (5, "resources.accelerators")
    assert says in sentence


@pytest.mark.parametrize("key", ["data", "outputs", "array", "workdir", "file_mounts"])
def test_what_is_not_built_yet_is_refused_by_name(key):
    assert the_problem(f"{GOOD}{key}: [x]\n") == (14, key, "not supported yet")


def test_resources_of_other_tools_are_refused_by_name():
    text = swapped("A100:4}", "A100:4, cpus: 8}")
    assert the_problem(text) == (3, "resources.cpus", "not supported yet")


@pytest.mark.parametrize(
    ("old", "new", "line", "path"),
    [
        ("setup:", "setp:", 5, "setp"),
        ("max_cost:", "max_csot:", 10, "market.max_csot"),
        ("grace_s", "grace", 7, "workload.checkpoint.grace"),
        ("sites_deny", "site_deny", 13, "placement.site_deny"),
    ],
)
def test_an_unknown_key_gets_the_nearest_known_one(old, new, line, path):
    found = {(at, where): sentence for at, where, sentence in problems(swapped(old, new))}
    assert old.rstrip(":") in found[line, path]


def test_a_key_far_from_all_others_gets_no_suggestion():
    assert the_problem(GOOD + "zzzzqqq: 1\n") == (14, "zzzzqqq", "unknown key")


def test_a_key_given_twice_is_refused_with_both_lines():
    text = swapped("  value: 12.0\n", "  value: 12.0\n  value: 13.0\n")
    assert the_problem(text) == (10, "market.value", "given twice, first in line 9")


@pytest.mark.parametrize("key", ["name", "run", "workload", "market"])
def test_a_missing_key_is_named(key):
    kept = [line for line in LEAST.splitlines() if not line.startswith(key)]
    assert the_problem("\n".join(kept)) == (1, key, "missing")


def test_missing_keys_inside_a_block_are_named_there():
    assert the_problem(swapped("samples: 1", "checkpoint: {}", LEAST)) == (
        3,
        "workload.samples",
        "missing",
    )


@pytest.mark.parametrize(
    "name",
    ["''", "../x", "a/b", "a\\b", "-a", ".a", "a b", '"a\\nb"', '"a\\n"', '"\\e[31m"', "é",
     "x" * 64, "1", "true", "null", "[a]", "{a: b}", "~"],
)  # fmt: skip
def test_a_name_that_is_no_safe_word_is_refused(name):
    line, path, _ = the_problem(swapped("name: j", f"name: {name}", LEAST))
    assert (line, path) == (1, "name")


@pytest.mark.parametrize("name", ["a", "0a", "A.b_c-d", "x" * 63, "'1'"])
def test_a_safe_name_is_taken(name):
    assert one(swapped("name: j", f"name: {name}", LEAST)).name == name.strip("'")


@pytest.mark.parametrize(
    "number",
    [".nan", ".inf", "-.inf", "nan", "inf", "-1", "0", "1e999", "1e99999999", "1e-9", "9" * 60,
     "abc", "''", "0x10", "010", "1:30", "[1]", "true", "null", ".", "e5", ".E5", "-", "1e", "１"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("old", "path"),
    [
        ("samples: 1", "workload.samples"),
        ("value: 1", "market.value"),
        ("max_cost: 1", "market.max_cost"),
    ],
)
def test_a_number_that_is_none_or_absurd_is_refused(old, path, number):
    line, where, sentence = the_problem(swapped(old, f"{old.split()[0]} {number}", LEAST))
    assert (line, where) == (3 if "samples" in path else 4, path)
    assert sentence


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("samples: 3.8e6", "samples: 1.5", "workload.samples"),
        ("samples: 3.8e6", "samples: 1e16", "workload.samples"),
        ("value: 12.0", "value: 0.0000001", "market.value"),
        ('max_cost: "80.00"', "max_cost: 1.1234567", "market.max_cost"),
        ("grace_s: 60", "grace_s: 3601", "workload.checkpoint.grace_s"),
        ("grace_s: 60", "grace_s: 0.5", "workload.checkpoint.grace_s"),
        ("num_nodes: 1", "num_nodes: 2", "num_nodes"),
        ("2026-12-01T13:00:00+01:00", "2026-12-01T13:00:00", "market.deadline"),
        ("2026-12-01T13:00:00+01:00", "tomorrow", "market.deadline"),
        ("preemptible: false", "preemptible: 0", "market.preemptible"),
        ("[alder]", "alder", "placement.sites_allow"),
        ("[alder]", "['a b']", "placement.sites_allow[0]"),
        ("[alder]", "[alder, alder]", "placement.sites_allow[1]"),
        ("[birch]", "[alder]", "placement.sites_deny"),
        ("EPOCHS", "1EPOCHS", "envs.1EPOCHS"),
        ("EPOCHS", "HANSE_TOKEN", "envs.HANSE_TOKEN"),
        ('"3"', "yes", "envs.EPOCHS"),
        ('"3"', "[3]", "envs.EPOCHS"),
        ('"3"', '"\\0"', "envs.EPOCHS"),
        ("run: torchrun --nproc-per-node 4 train.py", 'run: " "', "run"),
        ("run: torchrun --nproc-per-node 4 train.py", "run: [a]", "run"),
        ("setup: pip install -r requirements.txt", 'setup: "\\e]0;x\\a"', "setup"),
        ("{accelerators: A100:4}", "A100:4", "resources"),
        ("workload: {", "workload: [{", None),
    ],
)
def test_every_field_refuses_what_it_cannot_mean(old, new, path):
    found = problems(swapped(old, new))
    assert path is None or [where for _, where, _ in found] == [path]
    lines = GOOD.splitlines()
    assert all(line <= len(lines) for line, _, _ in found)


def test_all_problems_of_a_file_come_at_once_in_the_order_of_lines():
    text = swapped("resnet-a", "-a").replace("12.0", ".nan").replace("num_nodes: 1", "nodes: 1")
    assert [line for line, _, _ in problems(text)] == [1, 2, 9]


def test_checkpoint_settings_nobody_honours_are_noted_not_dropped():
    draft = one(swapped("{grace_s: 60}", "{path: ckpt, interval_s: 600, grace_s: 60}"))
    assert [(note.line, note.path) for note in draft.notes] == [
        (7, "workload.checkpoint.path"),
        (7, "workload.checkpoint.interval_s"),
    ]


def test_several_documents_are_several_jobs():
    drafts = load(f"---\n{LEAST}---\n{LEAST.replace('name: j', 'name: k')}---\n".encode())
    assert [draft.name for draft in drafts] == ["j", "k"]


def test_a_problem_in_a_later_document_has_the_line_of_the_file():
    assert the_problem(f"{LEAST}---\n{LEAST.replace('name: j', 'name: /')}")[:2] == (6, "name")


def test_variables_of_the_command_line_win_and_fill_what_has_no_value():
    text = f"{LEAST}envs: {{A: 1, B: }}"
    assert the_problem(text)[:2] == (5, "envs.B")
    assert one(text, env={"A": "2", "B": "3", "C": "4"}).env == {"A": "2", "B": "3", "C": "4"}


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        (b"", 1, "no job"),
        (b"# nothing\n---\n", 1, "no job"),
        (b"- a\n", 1, "block of keys"),
        (b"just a text", 1, "block of keys"),
        (b"a: b\nc: [\n", 3, "expected"),
        (b"a: b\n\tc: d\n", 2, "token"),
        (b"a: 1\nb: \xff\xfe\n", 2, "UTF-8"),
        (b"a: 1\nb: \x07\n", 2, "character"),
        (b"a: &x 1\nb: *x\n", 1, "anchors"),
        (b"a: *x\n", 1, "anchors"),
        (b"a: !!python/object/apply:os.system [x]\n", 1, "tag"),
        (b"a: 1\nb: !mine x\n", 2, "tag"),
        (b"? [a]\n: b\n", 1, "a key must be a word"),
        (b"a: " + b"[" * 5000, 1, "nested deeper"),
        (b"#" * (MAX_BYTES + 1), 1, "at most"),
        (b"#!/bin/bash\n#SBATCH --gres=gpu:4\nsrun x\n", 1, "Slurm"),
        (b"apiVersion: batch/v1\nkind: Job\n", 1, "Kubernetes"),
        (b"type: task\ncommands: [a]\n", 2, "dstack"),
    ],
)
def test_a_file_that_is_no_job_file_is_refused(source, line, says):
    at, _, sentence = the_problem(source)
    assert (at, says in sentence) == (line, True), sentence


def tried(source: bytes) -> tuple[list[dict[str, object]], tuple[Problem, ...]]:
    try:
        return [draft.body() for draft in load(source)], ()
    except JobFileInvalid as refused:
        return [], refused.problems


@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_a_list_of_problems(source):
    bodies, found = tried(source)
    assert bodies or found
    assert all(problem.line >= 1 and problem.sentence for problem in found)


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
_KEYS = ["name", "resources", "envs", "run", "workload", "market", "placement"]


@given(st.sampled_from(_KEYS), _TREES)
def test_a_field_with_anything_in_it_is_read_or_refused_by_its_path(key, tree):
    kept = [line for line in LEAST.splitlines() if not line.startswith(key)]
    bodies, found = tried("\n".join([*kept, f"{key}: {json.dumps(tree)}"]).encode())
    assert all(problem.path.startswith(key) or not problem.path for problem in found)
    assert found or json.dumps(bodies, allow_nan=False)


@given(samples=st.integers(1, 10**15), micro=st.integers(1, 10**15))
def test_numbers_arrive_digit_for_digit(samples, micro):
    value = f"{micro // 10**6}.{micro % 10**6:06d}"
    body = one(
        swapped("samples: 1", f"samples: {samples}", LEAST).replace(
            "{value: 1,", f"{{value: {value},"
        )
    ).body()
    assert (body["samples"], body["value"]) == (samples, value)


def test_the_path_of_a_file_is_never_opened(tmp_path: Path):
    before = list(tmp_path.iterdir())
    load(swapped("setup: pip", f"setup: touch {tmp_path}/x; pip").encode())
    assert list(tmp_path.iterdir()) == before
