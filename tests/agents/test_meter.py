"""Progress lines as jobs write them: cut, wrong, hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.drivers.meter import MAX_READ, Meter


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def read(*parts: bytes, now: float = 100.0) -> Meter:
    meter, rest = Meter(), b""
    for part in parts:
        rest += part
        before = meter.offset
        meter = meter.read(rest, now=now, since=0.0)
        rest = rest[meter.offset - before :]
    return meter


def test_speed_is_between_the_first_and_the_last_line() -> None:
    meter = read(line(samples=100, t=10.0), line(samples=150, t=20.0), line(samples=300, t=30.0))
    assert (meter.samples, meter.lines, meter.samples_per_s) == (300, 3, 10.0)
    assert read(line(samples=5, t=1.0)).samples_per_s is None


def test_a_partial_line_waits() -> None:
    whole = line(samples=7, loss=0.5)
    meter = read(whole[:5])
    assert (meter.lines, meter.offset) == (0, 0)
    assert read(whole[:5], whole[5:]).samples == 7
    assert Meter().read(whole[:-1], now=1.0, since=0.0, final=True).samples == 7


@pytest.mark.parametrize(
    "junk",
    [
        b"Epoch 1/3\n",
        b"[1]\n",
        b"{}\n",
        b'{"samples": NaN}\n',
        b'{"samples": Infinity}\n',
        b'{"samples": -1}\n',
        b'{"samples": true}\n',
        b'{"samples": "9"}\n',
        b'{"samples": 1e400}\n',
        b'{"samples": ' + b"9" * 400 + b"}\n",
        b'{"samples": ' + b"9" * 5000 + b"}\n",
        b"\xff\xfe\n",
        b"[" * 50_000 + b"\n",
    ],
)
def test_junk_is_counted_and_skipped(junk: bytes) -> None:
    meter = read(line(samples=3, t=1.0) + junk + line(samples=4, t=2.0))
    assert (meter.samples, meter.lines, meter.junk, meter.samples_per_s) == (4, 2, 1, 1.0)


def test_samples_never_go_back_and_times_neither() -> None:
    meter = read(line(samples=10, t=50.0), line(samples=4, t=40.0), line(samples=12, t=60.0))
    assert (meter.samples, meter.last_t) == (12, 60.0)


def test_a_time_outside_the_jobs_life_is_not_believed() -> None:
    meter = Meter().read(line(samples=1, t=5.0) + line(samples=2, t=1e9), now=30.0, since=20.0)
    assert (meter.first_t, meter.last_t) == (30.0, 30.0)


def test_bad_extras_keep_the_last_good_ones() -> None:
    meter = read(line(samples=1, loss=2.0, step_time_s=0.1), b'{"samples":2,"loss":NaN}\n')
    assert (meter.samples, meter.loss, meter.step_time_s) == (2, 2.0, 0.1)


def test_an_endless_line_is_dropped() -> None:
    meter = read(b"x" * MAX_READ)
    assert (meter.offset, meter.skipping) == (MAX_READ, True)
    meter = meter.read(b"xxx\n" + line(samples=2), now=1.0, since=0.0)
    assert (meter.samples, meter.junk, meter.lines) == (2, 1, 1)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40) | st.just(line(samples=3)), max_size=8))
def test_any_bytes_are_survived_and_all_are_read(parts: list[bytes]) -> None:
    data = b"".join(parts) + b"\n"
    meter = read(data)
    assert meter.offset == len(data)
    assert meter.samples in (0, 3) or meter.lines
