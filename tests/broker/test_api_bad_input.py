"""Whatever does not fit is refused with a problem document, and nothing is stored."""

from __future__ import annotations

import json

import pytest

from tests.broker.api_world import BODY, Caller, a_caller, nothing_stored, problem

pytestmark = pytest.mark.django_db
RTL = "\u202e"
HALF = "\ud800"
HUGE = 10**400


@pytest.fixture
def api() -> Caller:
    return a_caller()


BAD_FIELDS = [
    ("job_class", "unheard-of", "job_class"),
    ("job_class", 7, "job_class"),
    ("job_class", None, "job_class"),
    ("name", "", "name"),
    ("name", "a/b", "name"),
    ("name", "..", "name"),
    ("name", "a\\b", "name"),
    ("name", "a\n", "name"),
    ("name", "a\nb", "name"),
    ("name", "$(reboot)", "name"),
    ("name", "a;b", "name"),
    ("name", "`id`", "name"),
    ("name", " a", "name"),
    ("name", "a\x00", "name"),
    ("name", f"a{RTL}b", "name"),
    ("name", f"a{HALF}", "name"),
    ("name", "ａ", "name"),
    ("name", "x" * 64, "name"),
    ("name", 5, "name"),
    ("name", True, "name"),
    ("name", ["a"], "name"),
    ("command", "", "command"),
    ("command", "   \n", "command"),
    ("command", "a\x00b", "command"),
    ("command", f"echo {HALF}", "command"),
    ("command", "x" * (64 * 1024 + 1), "command"),
    ("command", ["python", "train.py"], "command"),
    ("setup", "a\x00b", "setup"),
    ("gpus", [], "gpus"),
    ("gpus", 4, "gpus"),
    ("gpus", "4", "gpus"),
    ("gpus", {"a": 1}, "gpus"),
    ("gpus", [0], "gpus[0]"),
    ("gpus", [1, -2], "gpus[1]"),
    ("gpus", [True], "gpus[0]"),
    ("gpus", [1.0], "gpus[0]"),
    ("gpus", ["1"], "gpus[0]"),
    ("gpus", [10**9], "gpus[0]"),
    ("gpus", [HUGE], "gpus[0]"),
    ("gpus", [2, 2], "gpus"),
    ("gpus", list(range(1, 66)), "gpus"),
    ("samples", 0, "samples"),
    ("samples", -1, "samples"),
    ("samples", 10**16, "samples"),
    ("samples", HUGE, "samples"),
    ("samples", 1.5, "samples"),
    ("samples", "100", "samples"),
    ("samples", True, "samples"),
    ("samples", None, "samples"),
    ("value", 0, "value"),
    ("value", "-1", "value"),
    ("value", "0.0000001", "value"),
    ("value", 1e-9, "value"),
    ("value", "NaN", "value"),
    ("value", "Infinity", "value"),
    ("value", "1e3", "value"),
    ("value", "1_000", "value"),
    ("value", "１２", "value"),
    ("value", " 5", "value"),
    ("value", True, "value"),
    ("value", [5], "value"),
    ("value", HUGE, "value"),
    ("value", "9" * 2000, "value"),
    ("value", 1e300, "value"),
    ("max_cost", "2000000000", "max_cost"),
    ("max_cost", "0", "max_cost"),
    ("deadline", "tomorrow", "deadline"),
    ("deadline", "2001-01-01T00:00:00Z", "deadline"),
    ("deadline", "2030-01-01T00:00:00", "deadline"),
    ("deadline", "0001-01-01T00:00:00+14:00", "deadline"),
    ("deadline", 1900000000, "deadline"),
    ("deadline", True, "deadline"),
    ("env", [], "env"),
    ("env", {"A": 1}, "env.A"),
    ("env", {"A": None}, "env.A"),
    ("env", {"A": {"B": {}}}, "env.A"),
    ("env", {"A": "\x00"}, "env.A"),
    ("env", {"A": HALF}, "env.A"),
    ("env", {"A=B": "x"}, "env.A=B"),
    ("env", {"A\n": "x"}, "env.A\n"),
    ("env", {"1A": "x"}, "env.1A"),
    ("env", {"": "x"}, "env."),
    ("env", {HALF: "x"}, "env.?"),
    ("env", {"HANSE_TOKEN": "x"}, "env.HANSE_TOKEN"),
    ("env", {"LD_PRELOAD": "x"}, "env.LD_PRELOAD"),
    ("env", {f"A{n}": "x" for n in range(201)}, "env"),
    ("preemptible", "yes", "preemptible"),
    ("preemptible", 1, "preemptible"),
    ("preemptible", None, "preemptible"),
    ("preemptible", {}, "preemptible"),
    ("max_runtime_s", 0, "max_runtime_s"),
    ("max_runtime_s", -1, "max_runtime_s"),
    ("max_runtime_s", "60", "max_runtime_s"),
    ("max_runtime_s", "nan", "max_runtime_s"),
    ("max_runtime_s", True, "max_runtime_s"),
    ("max_runtime_s", 1e12, "max_runtime_s"),
    ("max_runtime_s", HUGE, "max_runtime_s"),
    ("grace_s", -0.5, "grace_s"),
    ("grace_s", 3601, "grace_s"),
    ("grace_s", [], "grace_s"),
    ("gpu_kinds", "A100", "gpu_kinds"),
    ("gpu_kinds", ["A/100"], "gpu_kinds[0]"),
    ("gpu_kinds", [["A100"]], "gpu_kinds[0]"),
    ("sites_allow", ["a", "../b"], "sites_allow[1]"),
    ("sites_deny", ["a;b"], "sites_deny[0]"),
    ("sites_deny", ["a"] * 101, "sites_deny"),
    ("pools", ["north"], "pools[0]"),
    ("pools", ["north/gpu"], "pools[0]"),
    ("pools", ["north.gpu\n"], "pools[0]"),
    ("nmae", "typo", "nmae"),
    (HALF, "x", "?"),
    ("x" * 5000, "x", "x" * 999 + "…"),
    ("__class__", "x", "__class__"),
    ("tenant", "somebody", "tenant"),
]


@pytest.mark.parametrize(("name", "value", "path"), BAD_FIELDS)
def test_a_field_that_does_not_fit_is_named(api, name, value, path):
    with nothing_stored():
        problem(api.post("/jobs", {**BODY, name: value}), 422, "bad_input", path)


def test_all_bad_fields_are_named_at_once(api):
    with nothing_stored():
        answer = api.post("/jobs", {**BODY, "gpus": [0], "samples": 0, "env": {"9": "x"}})
    problem(answer, 422, "bad_input", "gpus[0]", "samples", "env.9")


@pytest.mark.parametrize("missing", sorted(BODY))
def test_each_required_field_is_missed(api, missing):
    body = {name: value for name, value in BODY.items() if name != missing}
    with nothing_stored():
        problem(api.post("/jobs", body), 422, "bad_input", missing)


def test_no_more_than_fifty_problems_are_told(api):
    answer = api.post("/jobs", {f"x{n}": 1 for n in range(10_000)})

    assert len(answer.json()["errors"]) == 50
    assert len(answer.content) < 10_000


def raw(**changes: str) -> bytes:
    fields = {name: json.dumps(value) for name, value in BODY.items()} | changes
    return ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}").encode()


BAD_BODIES = {
    "nothing of JSON": b"name=night",
    "cut off": raw()[:-1],
    "two documents": raw() + raw(),
    "a trailing comma": raw()[:-1] + b",}",
    "NaN": raw(value="NaN"),
    "Infinity": raw(samples="Infinity"),
    "minus Infinity": raw(value="-Infinity"),
    "a number beyond a float": raw(max_runtime_s="1e999"),
    "more digits than anyone reads": raw(samples="9" * 5000),
    "a key twice": raw()[:-1] + b',"name":"other"}',
    "a key twice deep inside": raw(env='{"A":"1","A":"2"}'),
    "a list": b"[" + raw() + b"]",
    "a text": b'"job"',
    "null": b"null",
    "deep nesting": raw(env="[" * 200_000 + "]" * 200_000),
    "UTF-16": raw().decode().encode("utf-16"),
    "Latin-1": raw(name='"caf\xe9"').decode().encode("latin-1"),
    "a byte order mark": b"\xef\xbb\xbf" + raw(),
    "overlong UTF-8": raw()[:-1] + b',"setup":"\xc0\xaf"}',
}


@pytest.mark.parametrize("what", sorted(BAD_BODIES))
def test_a_body_that_is_not_one_json_object_is_refused(api, what):
    with nothing_stored():
        problem(api.post("/jobs", BAD_BODIES[what]), 400, "parse_error")


def test_an_empty_body_misses_its_fields(api):
    with nothing_stored():
        problem(api.post("/jobs", b""), 422, "bad_input", *BODY)


def test_a_body_over_the_limit_is_too_large(api):
    with nothing_stored():
        problem(api.post("/jobs", b" " * (512 * 1024) + raw()), 413, "too_large")
        problem(api.post("/classes", b'{"title":"' + b"x" * 256 * 1024), 413, "too_large")


def test_a_body_at_the_limit_is_taken(api):
    body = raw()

    assert api.post("/jobs", b" " * (512 * 1024 - len(body)) + body).status_code == 201


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data"],
)
def test_another_content_type_is_not_read(api, kind):
    with nothing_stored():
        answer = api.post("/jobs", raw(), content_type=kind)
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", "a\nb"),
        ("title", f"a{RTL}b"),
        ("title", "x" * 201),
        ("title", 5),
        ("name", "a b"),
        ("owner", "alder"),
    ],
)
def test_a_class_is_as_strict(api, name, value):
    with nothing_stored():
        problem(api.post("/classes", {"name": "vit", name: value}), 422, "bad_input", name)
