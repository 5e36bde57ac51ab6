"""A real agent, a real guard, real jobs, and a broker that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.clock import SystemClock, rfc3339
from agents.protocol import AttemptState, EndReason, Report, ReportKind
from tests.agents.fake_broker import REPORTS_PATH, SYNC_PATH, Dropped, FakeBroker
from tests.agents.making import AgentProcess, a_lease, alive, steps, steps_until_told, until

Make = Callable[..., AgentProcess]


def state_of(broker: FakeBroker, attempt: str) -> AttemptState | None:
    if not broker.syncs:
        return None
    return next((s.state for s in broker.syncs[-1].attempts if s.attempt == attempt), None)


def assert_whole(reports: list[Report]) -> None:
    """Numbers without gaps, the end last, samples never back."""
    assert [report.seq for report in reports] == list(range(1, len(reports) + 1))
    assert reports[-1].kind is ReportKind.ENDED
    samples = [r.progress.samples for r in reports if r.progress is not None]
    assert samples == sorted(samples)


def ended(broker: FakeBroker, attempt: str = "a1", seconds: float = 20.0) -> Report:
    report = until(lambda: broker.end(attempt), seconds)
    assert report is not None
    assert_whole(broker.of(attempt))
    return report


def test_a_lease_runs_to_its_end_and_is_forgotten(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps(20)))
    end = ended(broker)
    assert end.end is not None
    assert (end.end.reason, end.end.exit_code) == (EndReason.EXITED, 0)
    assert end.progress is not None
    assert end.progress.samples == end.progress.contract_samples == 20
    assert end.progress.gpu_seconds > 0.9
    assert end.progress.samples_per_s is not None
    assert 5 < end.progress.samples_per_s < 20  # one in 0.05 s and what the shell needs
    assert broker.log("a1") == b"".join(b"step %d\n" % i for i in range(1, 21))
    assert {r.contract for r in broker.of("a1")} == {"c1"}
    broker.forget.add("a1")
    until(lambda: broker.syncs[-1].attempts == ())
    until(lambda: not (agent.state / "attempts" / "a1").exists())
    assert (agent.state / "work" / "job-a1" / "checkpoint").is_dir()
    assert agent.terminate() == 0


def test_a_revoke_stops_the_job_and_its_gpus_go_to_the_award_of_the_same_sync(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.lease(a_lease("old", gpus=2, command=steps(10_000)))
    until(lambda: broker.of("old", ReportKind.PROGRESS))
    with broker.changed:
        broker.revoke("old", why="outbid by another job")
        broker.lease(a_lease("new", gpus=2, command=steps(3)))
    old, new = ended(broker, "old"), ended(broker, "new")
    assert old.end is not None
    assert new.end is not None
    assert (old.end.reason, old.end.message) == (EndReason.REVOKED, "outbid by another job")
    assert new.end.reason is EndReason.EXITED
    [started] = broker.of("new", ReportKind.STARTED)
    assert started.at >= old.at[:-4]  # never both on the same GPUs
    seen = [{s.attempt: s.state for s in sync.attempts} for sync in broker.syncs]
    for states in seen:
        assert {states.get("old"), states.get("new")} != {AttemptState.RUNNING}


def test_declines_with_a_sentence(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease("big", gpus=3))
    broker.lease(a_lease("elsewhere", pool="b200"))
    broker.lease(a_lease("../../etc/x", job="j"))
    broker.lease(a_lease("sly", env={"LD_PRELOAD": "x.so"}))
    why = {}
    for name in ("big", "elsewhere", "../../etc/x", "sly"):
        end = ended(broker, name).end
        assert end is not None
        assert end.reason is EndReason.DECLINED
        why[name] = end.message
    assert why["big"] == "pool a100 has 2 GPUs, the lease asks for 3"
    assert why["elsewhere"] == "this site has no pool 'b200'"
    assert "folder" in why["../../etc/x"]
    assert "LD_PRELOAD" in why["sly"]


def test_an_unknown_revoke_is_answered_and_its_attempt_never_starts(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.revoke("ghost")
    end = ended(broker, "ghost").end
    assert end is not None
    assert end.reason is EndReason.NEVER_STARTED
    broker.lease(a_lease("ghost", command="touch ran"))  # an old message comes late
    broker.lease(a_lease("other", command=steps(1)))
    ended(broker, "other")
    assert len(broker.of("ghost")) == 1
    assert not (agent.state / "work" / "job-ghost").exists()


def test_a_new_contract_splits_the_account_and_not_the_job(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    order = a_lease(command=steps_until_told())
    broker.lease(order)
    until(lambda: [r for r in broker.of("a1") if r.progress and r.progress.samples >= 5])
    broker.lease(replace(order, contract="c2"))
    until(lambda: [r for r in broker.of("a1") if r.contract == "c2"])
    agent.finish("job-a1")
    end = ended(broker)
    reports = broker.of("a1")
    under = {name: [r for r in reports if r.contract == name] for name in ("c1", "c2")}
    assert reports == under["c1"] + under["c2"]
    last = [r.progress for r in under["c1"] if r.progress][-1]
    assert end.progress is not None
    assert last.contract_samples == last.samples >= 5
    assert end.progress.samples > last.samples
    assert end.progress.contract_samples == end.progress.samples - last.samples
    assert len(broker.of("a1", ReportKind.STARTED)) == 1


def test_the_broker_may_be_away_for_long(broker: FakeBroker, agent: AgentProcess) -> None:
    """Ten renewal periods without an answer: the job runs, every report arrives once."""
    broker.renew_s = 0.2
    broker.lease(a_lease(command=steps(60)))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    broker.away = True
    guard = agent.guard("a1")["pid"]
    gone = time.monotonic() + 10 * broker.renew_s
    until(lambda: time.monotonic() > gone)
    assert alive(guard)
    broker.away = False
    end = ended(broker)
    assert end.end is not None
    assert end.end.reason is EndReason.EXITED
    assert broker.log("a1").count(b"step") == 60
    assert end.progress is not None
    assert end.progress.samples == 60


def test_the_fence_holds_when_the_agent_is_dead(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps(10_000), fence_s=2.0, grace_s=0.2))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    agent.kill()
    guard = agent.guard("a1")["pid"]
    folder = agent.state / "attempts" / "a1"
    until(lambda: not alive(guard))
    record = json.loads((folder / "exit.json").read_text())
    renewal = json.loads((folder / "renewal.json").read_text())
    assert record["reason"] == "fenced"
    assert record["ended"] <= renewal["fence_at"] + 0.5
    agent.start()
    end = ended(broker).end
    assert end is not None
    assert end.reason is EndReason.FENCED


def test_the_fence_holds_when_the_broker_is_away(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps(10_000), fence_s=1.5, grace_s=0.2))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    broker.away = True
    guard = agent.guard("a1")["pid"]
    until(lambda: not alive(guard))
    broker.away = False
    end = ended(broker).end
    assert end is not None
    assert end.reason is EndReason.FENCED


def test_a_killed_agent_comes_back_to_the_same_process(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.lease(a_lease(command=steps_until_told() + "; echo pid $$"))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    guard = agent.guard("a1")["pid"]
    for _ in range(3):
        before = len(broker.arrivals)
        agent.kill()
        assert alive(guard)
        agent.start()
        until(lambda: len(broker.arrivals) > before)  # noqa: B023 - called before the next round
    assert agent.guard("a1")["pid"] == guard
    agent.finish("job-a1")
    end = ended(broker)
    assert end.progress is not None
    assert end.progress.samples == broker.log("a1").count(b"step")
    assert broker.log("a1").count(b"pid") == 1
    assert len(broker.of("a1", ReportKind.STARTED)) == 1
    boots = {sync.boot.split(".")[1]: sync.boot.split(".")[0] for sync in broker.syncs}
    assert (set(boots), len(set(boots.values()))) == ({"1", "2", "3", "4"}, 1)


def test_sigterm_leaves_the_jobs_running(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps_until_told()))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    began = time.monotonic()
    assert agent.terminate() == 0
    assert time.monotonic() - began < 3
    assert alive(agent.guard("a1")["pid"])
    agent.finish("job-a1")
    agent.start()
    end = ended(broker)
    assert end.end is not None
    assert end.end.reason is EndReason.EXITED
    assert end.progress is not None
    assert end.progress.samples == broker.log("a1").count(b"step")


def test_an_operator_may_empty_the_site(broker: FakeBroker, make_agent: Make) -> None:
    agent = make_agent()
    agent.start("--stop-jobs")
    broker.lease(a_lease(command=steps(10_000)))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    assert agent.terminate() == 0
    end = broker.end("a1")
    assert end is not None
    assert end.end is not None
    assert end.end.message == "the operator stopped this site"


def test_lost_and_repeated_answers_change_nothing(broker: FakeBroker, agent: AgentProcess) -> None:
    """Each third answer is lost, and syncs are sometimes answered with an old reply."""
    count, old = [0], []

    def spoil(path: str, request: Any, reply: Any) -> Any:
        count[0] += 1
        if path == SYNC_PATH:
            old.append(reply)
            return old[len(old) // 2] if count[0] % 4 == 0 else reply
        if path == REPORTS_PATH and count[0] % 3 == 0:
            raise Dropped
        return reply

    broker.answer_with = spoil
    order = a_lease(command=steps_until_told() + "; echo once >> ran")
    broker.lease(order)
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    broker.lease(replace(order, contract="c2"))
    until(lambda: [r for r in broker.of("a1") if r.contract == "c2"])
    agent.finish("job-a1")
    end = ended(broker, seconds=40)
    assert end.progress is not None
    assert end.progress.samples == broker.log("a1").count(b"step")
    broker.forget.add("a1")
    until(lambda: broker.syncs[-1].attempts == ())
    broker.lease(order)  # comes again after it was forgotten
    seen = len(broker.syncs)
    until(lambda: len(broker.syncs) > seen + 8)
    assert (agent.state / "work" / "job-a1" / "ran").read_text() == "once\n"
    contracts = [r.contract for r in broker.of("a1")]
    assert contracts == sorted(str(c) for c in contracts)


def test_wrong_clocks_change_nothing(broker: FakeBroker, make_agent: Make) -> None:
    """The broker's time of day is an hour off the site's: the offer's dates are the broker's."""
    broker.clock_offset_s = 3600.0
    agent = make_agent(offer={"validity_hours": 2})
    agent.start()
    broker.lease(a_lease(command=steps(5)))
    ended(broker)
    until(lambda: broker.offers)
    [offer] = broker.offers
    ours = rfc3339(SystemClock().wall())
    assert offer.valid_from > ours
    agent.kill()
    agent.start()
    until(lambda: len(broker.offers) > 1)
    assert broker.offers[1].digest() == offer.digest()  # a restart makes no new version


def test_the_offer_is_sent_again_when_asked(broker: FakeBroker, agent: AgentProcess) -> None:
    until(lambda: len(broker.syncs) > 2)
    assert len(broker.offers) == 1
    with broker.changed:
        broker.asks = ("offer", "a word of a later version")
        broker.changed.notify_all()
    until(lambda: len(broker.offers) == 2)
    assert broker.offers[0] == broker.offers[1]


def test_a_refused_offer_costs_no_renewal(broker: FakeBroker, make_agent: Make) -> None:
    broker.refuses_offers = True
    broker.asks = ("offer",)
    broker.lease(a_lease(command=steps(10_000)))
    agent = make_agent()
    agent.start()
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    seen = len(broker.syncs)
    until(lambda: len(broker.syncs) > seen + 3)
    assert broker.offers == []
    assert all(request.offer is None for request in broker.syncs)
    assert "offer.affinities[0].job_class" in agent.log()
    assert agent.terminate() == 0


def test_a_refused_credential_stops_no_job(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps(10_000)))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    broker.problem = (401, "credential_withdrawn", "This site's credential was withdrawn.")
    until(lambda: "credential_withdrawn" in agent.log())
    assert alive(agent.guard("a1")["pid"])
    assert "hs_first" not in agent.log()
    assert agent.terminate() == 0


def test_another_protocol_stops_the_agent_and_no_job(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.lease(a_lease(command=steps(10_000)))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    broker.protocol = "hanse.agent/2"
    assert agent.wait() == 4
    assert "hanse.agent/2" in agent.log()
    assert alive(agent.guard("a1")["pid"])


def test_two_agents_do_not_share_a_folder(broker: FakeBroker, agent: AgentProcess) -> None:
    until(lambda: broker.syncs)
    second = AgentProcess(agent.folder, broker.url)
    second.start()
    assert second.wait() == 1
    assert "another agent runs" in agent.log()


def test_a_site_without_answers_from_probes_offers_nothing_and_then_what_it_measured(
    broker: FakeBroker, make_agent: Make
) -> None:
    command = ["sh", "-c", steps(10)]
    agent = make_agent(classes={"resnet50": {"probe": {"command": command, "seconds": 5}}})
    agent.start()
    until(lambda: len(broker.offers) == 2)
    assert broker.offers[0].affinities == ()
    [affinity] = broker.offers[1].affinities
    assert (affinity.job_class, affinity.source) == ("resnet50", "probed")
    assert 5 < affinity.samples_per_s < 20
    agent.kill()
    agent.start()
    until(lambda: len(broker.offers) == 3)
    assert broker.offers[2] == broker.offers[1]  # measured once


def test_a_probe_of_the_broker_ends_with_its_samples(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.lease(a_lease(command=steps(10_000), probe=True, samples_wanted=10))
    end = ended(broker)
    assert end.end is not None
    assert end.end.reason is EndReason.RUNTIME_LIMIT
    assert end.progress is not None
    assert 10 <= end.progress.samples < 60


def test_work_continues_in_the_jobs_folder(broker: FakeBroker, agent: AgentProcess) -> None:
    save = 'echo "$HANSE_ATTEMPT $HANSE_SAMPLES_DONE" >> "$HANSE_CHECKPOINT_DIR/saved"'
    broker.lease(a_lease("t1", job="same", command=save))
    ended(broker, "t1")
    broker.lease(a_lease("t2", job="same", samples_done=7, command=f'{save}; cat "{_SAVED}"'))
    ended(broker, "t2")
    assert broker.log("t2") == b"t1 0\nt2 7\n"


_SAVED = "$HANSE_CHECKPOINT_DIR/saved"


def test_a_killed_guard_leaves_nothing_and_is_told(broker: FakeBroker, agent: AgentProcess) -> None:
    work = Path("work") / "job-a1"
    command = "setsid sleep 600 & echo $! > child; " + steps(10_000)
    broker.lease(a_lease(command=command))
    until(lambda: broker.of("a1", ReportKind.PROGRESS))
    child = int((agent.state / work / "child").read_text())
    assert alive(child)
    os.kill(agent.guard("a1")["pid"], signal.SIGKILL)
    end = ended(broker).end
    assert end is not None
    assert end.reason is EndReason.LOST
    until(lambda: not alive(child))
