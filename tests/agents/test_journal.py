"""A kill at any statement leaves state and reports in agreement."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents import attempt as facts
from agents.attempt import Attempt
from agents.drivers.base import LogPart
from agents.drivers.meter import Meter
from agents.journal import Journal
from agents.protocol import AttemptState, Receipt, ReportKind
from tests.agents.making import a_lease


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "j.sqlite3")
    yield made
    made.close()


def received(name: str = "a1") -> Attempt:
    return facts.received(a_lease(name), fence_at=5.0, boot="b")


def trained(attempt: Attempt, samples: int) -> Attempt:
    return replace(attempt, meter=Meter(samples=samples, lines=samples))


def test_what_was_recorded_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite3"
    journal = Journal(path)
    first = journal.record(received("b"))
    journal.record(received("a"))
    first = journal.record(trained(first, 3), [facts.fact_progress(trained(first, 3), "t")])
    journal.note("orders", "x")
    journal.close()
    again = Journal(path)
    assert [a.attempt for a in again.attempts()] == ["b", "a"]  # in the order they came
    assert again.get("b") == first
    [report] = again.pending(limit=10, max_bytes=10**6)
    assert (report.seq, report.progress and report.progress.samples) == (1, 3)
    assert again.noted("orders") == "x"
    assert again.noted("nothing") == ""
    again.close()


def test_each_start_has_the_journals_id_and_its_own_number(tmp_path: Path) -> None:
    for path, new_id, expected in (
        ("j", "one", "one.1"),
        ("j", "two", "one.2"),
        ("other", "two", "two.1"),
        ("j", "three", "one.3"),
    ):
        journal = Journal(tmp_path / path)
        assert journal.begin(new_id) == expected
        journal.close()


def test_numbers_have_no_gaps_whatever_value_a_caller_brings(journal: Journal) -> None:
    old = journal.record(received())
    for _ in range(3):
        journal.record(old, [facts.fact_progress(old, "t")] * 2)
    journal.keep(old)
    journal.record(old, [facts.fact_progress(old, "t")])
    assert [r.seq for r in journal.pending(limit=99, max_bytes=10**9)] == list(range(1, 8))


def test_receipts_drop_reports_and_refusals_are_kept_for_the_operator(journal: Journal) -> None:
    attempt = journal.record(received())
    journal.record(attempt, [facts.fact_progress(attempt, "t")] * 3)
    told = journal.receive(
        [
            Receipt("a1", 1, True),
            Receipt("a1", 2, False, "superseded", "too late"),
            Receipt("a1", 9, False, "unknown", "never sent"),
        ]
    )
    assert [r.seq for r in told] == [2]
    assert [r.seq for r in journal.pending(limit=9, max_bytes=9)] == [3]
    assert journal.refusals() == [Receipt("a1", 2, False, "superseded", "too late")]
    assert journal.unsent() == journal.unsent("a1") == 1


def test_a_batch_is_bounded_by_bytes_and_has_at_least_one(journal: Journal) -> None:
    attempt = journal.record(received())
    chunk = facts.fact_log(attempt, LogPart(b"x" * 1000), "t")
    journal.record(attempt, [chunk] * 5)
    assert len(journal.pending(limit=5, max_bytes=1)) == 1
    assert len(journal.pending(limit=5, max_bytes=3500)) == 2
    assert len(journal.pending(limit=4, max_bytes=10**6)) == 4
    count, size = journal.unsent_of("a1", ReportKind.LOG)
    assert count == 5
    assert size > 5000
    assert journal.unsent_of("a1", ReportKind.PROGRESS) == (0, 0)


def test_a_forgotten_attempt_stays_seen(journal: Journal) -> None:
    journal.record(received(), [facts.fact_started(received(), "t")])
    assert not journal.seen("a2")
    journal.forget("a1")
    assert journal.seen("a1")
    assert journal.get("a1") is None
    assert journal.unsent() == 0


def story(path: Path, die_at: int) -> None:
    """In a child: three changes, each with its reports; the process ends at one statement."""
    count = [0]

    def step(statement: str) -> None:
        count[0] += 1
        if count[0] == die_at:
            os._exit(17)

    connect = sqlite3.connect

    def watched(*words: object, **named: object) -> sqlite3.Connection:
        connection = connect(*words, **named)  # type: ignore[call-overload]
        connection.set_trace_callback(step)
        return connection  # type: ignore[no-any-return]

    sqlite3.connect = watched  # type: ignore[assignment]
    journal = Journal(path)
    attempt = journal.get("a1") or journal.record(received())
    for samples in (1, 2, 3):
        if attempt.meter.samples >= samples:
            continue
        attempt = trained(attempt, samples)
        told = [facts.fact_progress(attempt, "t"), facts.fact_progress(attempt, "t")]
        attempt = journal.record(attempt, told)
        journal.receive([Receipt("a1", 2 * samples - 1, True)])
    journal.record(replace(attempt, state=AttemptState.ENDED))
    os._exit(0)


def in_a_child(path: Path, die_at: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            story(path, die_at)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_kill_at_every_statement_loses_and_doubles_nothing(tmp_path: Path) -> None:
    die_at, code = 0, 17
    while code == 17:
        die_at += 1
        path = tmp_path / f"{die_at}.sqlite3"
        code = in_a_child(path, die_at)
        check_agreement(path)
        assert in_a_child(path, 0) == 0  # it goes on from where it was
        check_agreement(path)
        journal = Journal(path)
        attempt = journal.get("a1")
        assert attempt is not None
        assert (attempt.state, attempt.meter.samples, attempt.last_seq) == ("ended", 3, 6)
        journal.close()
    assert code == 0
    assert die_at > 40


def check_agreement(path: Path) -> None:
    """State and numbering agree; two reports tell of each change."""
    journal = Journal(path)
    attempt = journal.get("a1")
    if attempt is not None:
        assert attempt.last_seq == 2 * attempt.meter.samples
        pending = journal.pending(limit=99, max_bytes=10**9)
        assert [r.progress and r.progress.samples for r in pending] == [
            (r.seq + 1) // 2 for r in pending
        ]
        assert set(range(2, attempt.last_seq + 1, 2)) <= {r.seq for r in pending}
    journal.close()
