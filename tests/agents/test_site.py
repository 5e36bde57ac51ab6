"""The site's floor in virtual time: a fake driver, no network, no waiting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.clock import VirtualClock
from agents.courier import InlineCourier
from agents.drivers.base import Handle, Task
from agents.drivers.fake import FakeDriver
from agents.errors import BrokerRefused, BrokerUnreachable
from agents.journal import Journal
from agents.loop import Loop
from agents.offer import Showcase, document
from agents.orders import refusal
from agents.protocol import (
    AttemptState,
    EndReason,
    LeaseOrder,
    Report,
    ReportBatch,
    ReportKind,
    ReportReply,
    RevokeOrder,
    SyncReply,
    SyncRequest,
)
from agents.site import Site
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import a_config, a_lease


class Rehearsal:
    """A site in virtual time, with the means to crash and restart it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.config = a_config(folder, **changes)
        self.path = folder / "j.sqlite3"
        self.clock = VirtualClock()
        self.driver = FakeDriver(clock=self.clock, speeds={("a100", "resnet50"): 10.0})
        self.broker = FakeBroker()
        self.trouble: Exception | None = None
        self.boot = "boot-1"
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.path)
        self.site = Site(
            config=self.config,
            journal=self.journal,
            driver=self.driver,
            clock=self.clock,
            boot=self.boot,
        )
        self.loop = Loop(
            site=self.site,
            journal=self.journal,
            showcase=Showcase(offer=document(self.config, []), hours=None, journal=self.journal),
            broker=self,
            courier=InlineCourier(self.clock),
            clock=self.clock,
            settings=self.config.sync,
            boot="agent",
        )

    def restart(self) -> None:
        self.journal.close()
        self.open()
        self.site.readopt()

    def sync(self, request: SyncRequest) -> SyncReply:
        self._fail()
        return self.broker.sync(replace(request, wait_s=0.0))

    def reports(self, batch: ReportBatch) -> ReportReply:
        self._fail()
        return self.broker.take(batch)

    def _fail(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def go(self, seconds: float, step: float = 0.5) -> None:
        for _ in range(round(seconds / step)):
            self.loop.step(wait_s=0.0)
            self.clock.advance(step)

    def reply(self, *leases: LeaseOrder, revokes: tuple[RevokeOrder, ...] = ()) -> SyncReply:
        return SyncReply("p", "t", 60.0, "x", leases, revokes, (), ())

    def state(self, attempt: str) -> AttemptState | None:
        known = self.journal.get(attempt)
        return None if known is None else known.state

    def end(self, attempt: str) -> Report:
        found = self.broker.end(attempt)
        assert found is not None
        return found


@pytest.fixture
def rehearsal(tmp_path: Path) -> Iterator[Rehearsal]:
    made = Rehearsal(tmp_path)
    yield made
    made.journal.close()


def reason(report: Report) -> EndReason:
    assert report.end is not None
    return report.end.reason


def test_a_day_of_virtual_time(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease(samples_wanted=36_000, max_runtime_s=1e6))
    rehearsal.go(4000, step=5.0)
    end = rehearsal.end("a1")
    assert end.progress is not None
    assert end.progress.samples == 36_000
    assert end.progress.samples_per_s == pytest.approx(10.0)
    assert end.progress.gpu_seconds == pytest.approx(3600.0, abs=1.0)


def test_a_wrong_wall_clock_decides_nothing(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease(samples_wanted=1000))
    rehearsal.go(20)
    rehearsal.clock.set_wall(-3600.0)
    rehearsal.go(20)
    rehearsal.clock.set_wall(7200.0)
    rehearsal.go(80)
    assert reason(rehearsal.end("a1")) is EndReason.EXITED


def test_the_fence_counts_from_when_the_sync_was_sent(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease(fence_s=100.0, grace_s=10.0))
    rehearsal.go(10)
    last = rehearsal.clock.boottime()
    rehearsal.trouble = BrokerUnreachable("gone")
    rehearsal.go(85)
    assert rehearsal.state("a1") is AttemptState.RUNNING
    rehearsal.go(20)
    rehearsal.trouble = None
    rehearsal.go(60)
    assert reason(rehearsal.end("a1")) is EndReason.FENCED
    known = rehearsal.journal.get("a1")
    assert known is not None
    assert known.exit is not None
    assert known.exit.ended is not None
    assert known.exit.ended <= last + 100.0 - 10.0  # SIGTERM leaves the grace before the fence


def test_what_waits_beyond_its_fence_is_not_started(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease("first", gpus=2))
    rehearsal.broker.lease(a_lease("second", gpus=1, fence_s=50.0))
    rehearsal.go(5)
    assert rehearsal.state("second") is AttemptState.WAITING
    rehearsal.trouble = BrokerUnreachable("gone")
    rehearsal.go(60)
    assert rehearsal.state("second") is AttemptState.ENDED
    rehearsal.trouble = None
    rehearsal.go(60)
    assert reason(rehearsal.end("second")) is EndReason.FENCED
    assert rehearsal.state("first") is AttemptState.RUNNING


def test_a_waiting_attempt_keeps_its_place(rehearsal: Rehearsal) -> None:
    """A small job does not overtake a large one to the GPUs that it waits for."""
    rehearsal.broker.lease(a_lease("one", gpus=1))
    rehearsal.broker.lease(a_lease("large", gpus=2))
    rehearsal.broker.lease(a_lease("small", gpus=1))
    rehearsal.go(5)
    states = [rehearsal.state(name) for name in ("one", "large", "small")]
    assert states == [AttemptState.RUNNING, AttemptState.WAITING, AttemptState.WAITING]
    rehearsal.broker.revoke("one")
    rehearsal.go(5)
    assert rehearsal.state("large") is AttemptState.RUNNING


def test_a_jobs_next_attempt_waits_for_its_last(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease("t1", job="same"))
    rehearsal.broker.lease(a_lease("t2", job="same"))
    rehearsal.go(5)
    assert rehearsal.state("t2") is AttemptState.WAITING
    rehearsal.broker.revoke("t1")
    rehearsal.go(5)
    assert rehearsal.state("t2") is AttemptState.RUNNING


def test_a_revoke_before_the_start(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease("first", gpus=2))
    rehearsal.broker.lease(a_lease("second"))
    rehearsal.go(5)
    rehearsal.broker.revoke("second")
    rehearsal.go(5)
    assert reason(rehearsal.end("second")) is EndReason.NEVER_STARTED


def test_an_award_and_its_revoke_in_one_sync(rehearsal: Rehearsal) -> None:
    revoke = RevokeOrder("a1", "c", "w", 1.0)
    reply = rehearsal.reply(a_lease(), revokes=(revoke,))
    for _ in range(2):  # acting twice changes nothing
        rehearsal.site.act(reply, sent=rehearsal.clock.boottime(), listed=frozenset())
    rehearsal.go(2)
    [end] = rehearsal.broker.of("a1")
    assert reason(end) is EndReason.NEVER_STARTED


def test_an_attempt_that_was_forgotten_is_not_started_again(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease(samples_wanted=10))
    rehearsal.go(5)
    rehearsal.broker.forget.add("a1")
    rehearsal.go(2)
    assert rehearsal.state("a1") is None
    rehearsal.broker.forget.clear()
    rehearsal.broker.lease(a_lease(samples_wanted=10))
    rehearsal.restart()
    rehearsal.go(5)
    assert rehearsal.state("a1") is None
    assert rehearsal.driver.known() == frozenset()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gpus": 0}, "asks for 0"),
        ({"fence_s": 0.0}, "fence"),
        ({"max_runtime_s": 0.0}, "runtime limit"),
        ({"grace_s": -1.0}, "negative"),
        ({"log_cap_bytes": -1}, "negative"),
        ({"command": " "}, "no command"),
        ({"command": "x" * 65537}, "characters"),
        ({"job": "a/b"}, "folder"),
        ({"env": {"A-B": ""}}, "not a name"),
    ],
)
def test_what_no_site_takes(rehearsal: Rehearsal, changes: dict[str, Any], why: str) -> None:
    assert why in (refusal(a_lease(**changes), rehearsal.config) or "")
    assert refusal(a_lease(), rehearsal.config) is None


def test_a_driver_that_cannot_start_is_reported_and_the_rest_goes_on(rehearsal: Rehearsal) -> None:
    rehearsal.driver.refuse = "no GPU answers"
    rehearsal.broker.lease(a_lease("a1"))
    rehearsal.go(5)
    assert rehearsal.end("a1").end is not None
    assert reason(rehearsal.end("a1")) is EndReason.DRIVER_FAILED
    rehearsal.driver.refuse = ""
    rehearsal.broker.lease(a_lease("a2", samples_wanted=10))
    rehearsal.go(5)
    assert reason(rehearsal.end("a2")) is EndReason.EXITED


def test_terms_may_change_without_a_new_contract(rehearsal: Rehearsal) -> None:
    order = a_lease(fence_s=100.0)
    rehearsal.broker.lease(order)
    rehearsal.go(5)
    rehearsal.broker.lease(replace(order, fence_s=1000.0, contract_samples=5))
    rehearsal.go(5)
    before = len(rehearsal.broker.of("a1"))
    rehearsal.trouble = BrokerUnreachable("gone")
    rehearsal.go(500, step=5)
    assert rehearsal.state("a1") is AttemptState.RUNNING
    assert before


def test_a_contract_is_credited_up_to_the_moment_of_the_change(rehearsal: Rehearsal) -> None:
    order = a_lease()
    rehearsal.broker.lease(order)
    rehearsal.go(10, step=0.05)
    rehearsal.clock.advance(7.0)  # nobody has looked since
    now = rehearsal.clock.boottime()
    reply = rehearsal.reply(replace(order, contract="c2"))
    rehearsal.site.act(reply, sent=now, listed=frozenset({"a1"}))
    rehearsal.go(1, step=0.05)
    last = [r for r in rehearsal.broker.of("a1") if r.contract == "c1"][-1]
    assert last.progress is not None
    assert last.progress.contract_samples >= 160


def test_an_old_contract_does_not_come_back(rehearsal: Rehearsal) -> None:
    order = a_lease()
    for contract in ("c1", "c2", "c1", "c3", "c2"):
        rehearsal.broker.lease(replace(order, contract=contract))
        rehearsal.go(3)
    seen = [r.contract for r in rehearsal.broker.of("a1")]
    assert seen == sorted(str(c) for c in seen)
    assert set(seen) == {"c1", "c2", "c3"}


def test_other_gpus_for_a_live_attempt_are_not_believed(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease(gpus=1))
    rehearsal.go(2)
    rehearsal.broker.lease(a_lease(gpus=2, contract="c2"))
    rehearsal.go(2)
    known = rehearsal.journal.get("a1")
    assert known is not None
    assert (known.contract, known.order and known.order.gpus) == ("c1", 1)


def test_forgetting_what_still_runs_stops_it_first(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease())
    rehearsal.go(3)
    rehearsal.broker.leases.clear()
    rehearsal.broker.forget.add("a1")
    rehearsal.go(3)
    assert rehearsal.state("a1") is None
    assert rehearsal.driver.known() == frozenset()
    assert rehearsal.journal.seen("a1")


def test_logs_wait_while_the_broker_is_away_and_the_end_comes_last(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, logs={"unsent_mb": 0.001})
    rehearsal.broker.lease(a_lease(samples_wanted=5000, fence_s=1e6))
    rehearsal.go(5)
    rehearsal.trouble = BrokerUnreachable("gone")
    rehearsal.go(600, step=1.0)
    count, size = rehearsal.journal.unsent_of("a1", ReportKind.LOG)
    assert size < 200_000
    progress, _ = rehearsal.journal.unsent_of("a1", ReportKind.PROGRESS)
    assert progress <= 50
    rehearsal.trouble = None
    rehearsal.go(120)
    assert rehearsal.broker.of("a1")[-1].kind is ReportKind.ENDED
    assert rehearsal.broker.log("a1").splitlines()[-1] == b"500 s: 5000 samples"
    assert count
    rehearsal.journal.close()


def test_one_bad_report_does_not_hold_up_the_others(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease(samples_wanted=100))
    take = rehearsal.broker.take

    def fussy(batch: ReportBatch) -> ReportReply:
        if any(r.seq == 2 for r in batch.reports):
            raise BrokerRefused("bad_report", "seq 2 cannot be read", status=422)
        return take(batch)

    rehearsal.broker.take = fussy  # type: ignore[method-assign]
    rehearsal.go(60)
    seqs = [r.seq for r in rehearsal.broker.of("a1")]
    assert seqs == [1, *range(3, len(seqs) + 2)]
    assert [r.seq for r in rehearsal.journal.refusals()] == [2]


def test_a_refusal_is_retried_slowly(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease())
    rehearsal.go(5)
    asked = [0]
    rehearsal.trouble = BrokerRefused("withdrawn", "no", status=403)
    sync = rehearsal.sync

    def counted(request: SyncRequest) -> SyncReply:
        asked[0] += 1
        return sync(request)

    rehearsal.sync = counted  # type: ignore[method-assign]
    rehearsal.go(300)
    assert 3 <= asked[0] <= 8
    assert rehearsal.state("a1") is AttemptState.RUNNING


def test_a_restart_between_the_two_writes_of_a_start(rehearsal: Rehearsal) -> None:
    """The driver started it, the journal does not know yet: it is found, once."""
    start = rehearsal.driver.start

    def crash(task: Task) -> Handle:
        start(task)
        raise KeyboardInterrupt

    rehearsal.driver.start = crash  # type: ignore[method-assign]
    rehearsal.broker.lease(a_lease(samples_wanted=50))
    with pytest.raises(KeyboardInterrupt):
        rehearsal.go(1)
    rehearsal.driver.start = start  # type: ignore[method-assign]
    rehearsal.restart()
    rehearsal.go(20)
    kinds = [r.kind for r in rehearsal.broker.of("a1")]
    assert kinds.count(ReportKind.STARTED) == 1
    assert reason(rehearsal.end("a1")) is EndReason.EXITED


def test_a_restart_before_the_driver_started_it(rehearsal: Rehearsal) -> None:
    def crash(task: Task) -> Handle:
        raise KeyboardInterrupt

    rehearsal.driver.start = crash  # type: ignore[method-assign]
    rehearsal.broker.lease(a_lease())
    with pytest.raises(KeyboardInterrupt):
        rehearsal.go(1)
    rehearsal.restart()
    rehearsal.go(2)
    end = rehearsal.end("a1")
    assert end.end is not None
    assert "nothing ran" in end.end.message


def test_a_restart_of_the_host(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease("ran", gpus=2))
    rehearsal.broker.lease(a_lease("waited"))
    rehearsal.go(5)
    rehearsal.driver = FakeDriver(clock=rehearsal.clock, speeds={})
    rehearsal.boot = "boot-2"
    rehearsal.clock.advance(-900)
    rehearsal.restart()
    rehearsal.go(5)
    assert reason(rehearsal.end("ran")) is EndReason.LOST
    assert reason(rehearsal.end("waited")) is EndReason.FENCED


def test_what_the_journal_does_not_know_is_stopped(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease())
    rehearsal.go(3)
    rehearsal.journal.forget("a1")
    rehearsal.broker.leases.clear()
    rehearsal.restart()
    handle = rehearsal.driver.readopt("a1")
    assert handle is not None
    assert rehearsal.driver.poll(handle).exit is not None


def test_a_stop_survives_a_restart(rehearsal: Rehearsal) -> None:
    rehearsal.broker.lease(a_lease())
    rehearsal.go(3)
    rehearsal.driver.stop = lambda *a, **k: None  # type: ignore[method-assign]
    rehearsal.broker.revoke("a1")
    rehearsal.go(3)
    assert rehearsal.state("a1") is AttemptState.STOPPING
    del rehearsal.driver.stop
    rehearsal.restart()
    rehearsal.go(3)
    assert reason(rehearsal.end("a1")) is EndReason.REVOKED
