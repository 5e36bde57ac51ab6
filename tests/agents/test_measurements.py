"""What a job measured of its steps, from its progress line to the report."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agents import attempt as facts
from agents.drivers.meter import Meter
from agents.protocol import Measurement, Progress, Report, decode, encode
from tests.agents.making import a_lease

WHOLE = {
    "step_time_s": 0.25,
    "local_batch": 32,
    "replicas": 4,
    "nodes": 2,
    "accumulation": 1,
    "sync_time_s": 0.05,
    "gpu": "NVIDIA A100-SXM4-80GB",
    "grad_sqr": 1.5,
    "grad_var": 0.5,
    "memory_peak_bytes": 2**33,
}


def read(*lines: dict[str, Any]) -> Meter:
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return Meter().read(data, now=100.0, since=0.0)


def test_a_line_that_measures_is_passed_on_as_it_stands() -> None:
    meter = read({"samples": 8}, {"samples": 64, **WHOLE}, {"samples": 80})
    assert meter.measurement == Measurement(line=2, **WHOLE)  # type: ignore[arg-type]


def test_a_line_without_a_local_batch_measures_nothing() -> None:
    assert read({"samples": 8, "step_time_s": 0.5}).measurement is None


def test_what_is_not_said_is_none() -> None:
    told = read({"samples": 8, "local_batch": 4}).measurement
    assert told == Measurement(line=1, local_batch=4.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step_time_s", float("nan")),
        ("step_time_s", float("inf")),
        ("step_time_s", "fast"),
        ("step_time_s", True),
        ("local_batch", [32]),
        ("replicas", 2.5),
        ("nodes", 10**30),
        ("memory_peak_bytes", {"cuda:0": 3}),
        ("grad_sqr", "\ud800\x00"),
        ("gpu", "x" * 201),
        ("gpu", "A100\x00"),
        ("gpu", 7),
    ],
)
def test_what_cannot_be_read_is_told_and_the_rest_is_passed_on(name: str, value: Any) -> None:
    told = read({"samples": 8, **WHOLE, name: value}).measurement
    assert told is not None
    assert name in told.problem
    assert getattr(told, name) in (None, "")
    assert told.accumulation == 1
    assert decode(Measurement, json.loads(json.dumps(encode(told)))) == told


def test_negative_numbers_are_for_the_broker_to_judge() -> None:
    told = read({"samples": 8, "local_batch": -4, "step_time_s": -1.0}).measurement
    assert (told and told.step_time_s, told and told.problem) == (-1.0, "")


def test_a_measurement_is_reported_once() -> None:
    attempt = facts.received(a_lease(), fence_at=9.0, boot="b")
    attempt = replace(attempt, meter=read({"samples": 8, **WHOLE}))
    told = attempt.progress().measurement
    assert told is not None
    attempt = replace(attempt, told_lines=attempt.meter.lines)
    assert attempt.progress().measurement is None
    attempt = replace(attempt, meter=read({"samples": 8, **WHOLE}, {"samples": 9, **WHOLE}))
    again = attempt.progress().measurement
    assert again is not None
    assert again.line == 2


def test_a_broker_that_knows_no_measurements_is_sent_none() -> None:
    plain = encode(Progress(1, 1, 1.0))
    assert "measurement" not in plain
    assert decode(Progress, plain) == Progress(1, 1, 1.0)
    assert decode(Progress, {**plain, "measurement": None}) == Progress(1, 1, 1.0)


def test_the_journal_keeps_it() -> None:
    attempt = replace(
        facts.received(a_lease(), fence_at=9.0, boot="b"), meter=read({"samples": 8, **WHOLE})
    )
    assert decode(facts.Attempt, json.loads(json.dumps(encode(attempt)))) == attempt
    report = facts.fact_progress(attempt, "2026-11-21T12:00:00Z")
    assert decode(Report, json.loads(json.dumps(encode(report)))) == report
