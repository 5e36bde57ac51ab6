"""Many jobs are looked at in turns: each of them, those that are being stopped at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents import attempt as facts
from agents.attempt import Attempt
from agents.pace import AT_ONCE, LOOKS_PER_S, STEADY_S, TOLD_TOGETHER, Rounds, report_s
from agents.protocol import AttemptState
from tests.agents.making import a_lease


def crowd(number: int, **changes: object) -> list[Attempt]:
    one = facts.received(a_lease(), fence_at=5.0, boot="b")
    values: dict[str, Any] = {"state": AttemptState.RUNNING, "ref": "x", **changes}
    one = replace(one, **values)
    return [replace(one, attempt=f"a{i}") for i in range(number)]


def test_a_few_are_looked_at_every_time() -> None:
    rounds, attempts = Rounds(), crowd(AT_ONCE)
    for now in (1.0, 1.0, 1.5):
        assert rounds.due(attempts, now) == attempts


def test_what_the_driver_does_not_have_is_not_looked_at() -> None:
    attempts = [*crowd(1, ref=""), *crowd(1, state=AttemptState.ENDED)]
    assert Rounds().due(attempts, 1.0) == []


@given(number=st.integers(AT_ONCE + 1, 400), tick=st.floats(0.1, 5.0))
def test_of_many_each_has_its_turn(number: int, tick: float) -> None:
    rounds, attempts = Rounds(), crowd(number)
    rounds.due(attempts, 0.0)
    most = max(AT_ONCE, int(LOOKS_PER_S * tick + 1))
    seen: set[str] = set()
    for turn in range(1, -(-number // AT_ONCE) + 2):
        found = rounds.due(attempts, turn * tick)
        assert len(found) <= min(most, number)
        seen |= {one.attempt for one in found}
    assert len(seen) == number


def test_what_is_being_stopped_never_waits() -> None:
    rounds, attempts = Rounds(), crowd(10 * AT_ONCE)
    attempts[-1] = replace(attempts[-1], state=AttemptState.STOPPING)
    for turn in range(5):
        assert attempts[-1] in rounds.due(attempts, 0.5 * turn)


def test_reports_come_further_apart() -> None:
    assert report_s(10.0, 1) == report_s(10.0, TOLD_TOGETHER) == 10.0
    assert report_s(10.0, 2 * TOLD_TOGETHER) == 20.0
    assert report_s(10.0, 10**6) == STEADY_S
    assert report_s(300.0, 10**6) == 300.0
