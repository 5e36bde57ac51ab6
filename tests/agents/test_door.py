"""Who comes in: the policy file, the operator's drain, and what of it the broker is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agents import drain
from agents.clock import VirtualClock
from agents.door import NOTICE_S
from agents.drain import Drain
from agents.errors import DriverFailed
from agents.protocol import (
    AttemptState,
    EndReason,
    JobSpec,
    decode,
    encode,
    reads,
    told_version,
)
from agents.supply import ASK_S, LASTING_S, QUIET_S, Shown, damped
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import AgentProcess, a_lease, steps, steps_until_told, until
from tests.agents.rehearsal import Rehearsal

ANN = {"tenant": "ann"}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rehearsal]]:
    made: list[Rehearsal] = []

    def one(rules: str | None = "", **changes: Any) -> Rehearsal:
        found = Rehearsal(tmp_path, changes)
        made.append(found)
        if rules is not None:
            found.rules(rules)
        return found.open()

    yield one
    for old in made:
        old.journal.close()


RULES = """
tenants: {deny: [ann]}
classes: {deny: [secret]}
max_gpus: 1
max_walltime_hours: 2
"""


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (ANN, "tenant_not_admitted"),
        ({"tenant": "bob", "job_class": "secret"}, "class_not_admitted"),
        ({"tenant": "bob", "gpus": 2}, "too_many_gpus"),
        ({"tenant": "bob", "max_runtime_s": 7201.0}, "walltime_too_long"),
        ({"tenant": "ann", "probe": True}, "tenant_not_admitted"),
    ],
)
def test_a_lease_that_the_rules_forbid_is_declined_with_their_code(
    make: Callable[..., Rehearsal], changes: dict[str, Any], code: str
) -> None:
    site = make(RULES)
    site.broker.lease(a_lease(**changes))
    site.go(2)
    assert site.code("a1") == code
    assert site.driver.known() == frozenset()
    [report] = site.broker.of("a1")
    assert report.end is not None
    assert report.end.message.startswith("this site")


def test_an_older_broker_is_sent_no_field_that_it_would_refuse(
    make: Callable[..., Rehearsal],
) -> None:
    """It names no tenant, so it would refuse the code: the sentence still says why."""
    site = make("tenants: {allow: [ann]}")
    site.broker.lease(a_lease())
    site.go(2)
    end = encode(site.end("a1"))["end"]
    assert end == {
        "reason": "declined",
        "exit_code": None,
        "message": "this site takes no jobs of a tenant that is not named",
    }


RECORDED_SPEC = {
    **{"job": "j", "name": "n", "job_class": "c", "command": "true", "setup": "", "env": {}},
    **{"samples_done": 0, "samples_wanted": 1, "probe": False, "max_runtime_s": 1.0},
    **{"grace_s": 1.0, "log_cap_bytes": 1},
}


def test_messages_of_the_first_release_are_read_and_written_as_they_were() -> None:
    spec = decode(JobSpec, RECORDED_SPEC)
    assert spec.tenant is None
    assert encode(spec) == RECORDED_SPEC
    assert reads(told_version("0.1.0"), "tenant")
    assert not any(reads(version, "tenant") for version in ("0.1.0", "0.1.0+plan", ""))


def test_without_a_policy_the_offer_is_what_it_always_was(make: Callable[..., Rehearsal]) -> None:
    site = make(None)
    site.config = replace(site.config, policy=None)
    site.open().go(2)
    assert "policy" not in encode(site.broker.offers[-1])
    assert site.offered() == 2


def test_the_file_is_read_again_when_it_changes_and_the_offer_says_so(
    make: Callable[..., Rehearsal],
) -> None:
    site = make("tenants: {deny: [ann]}")
    site.go(2)
    first = site.broker.offers[-1].policy
    assert (first.tenants_deny, first.max_gpus) == (("ann",), None)
    site.rules("keep: {a100: 1}\nmax_gpus: 2\nhours: [mon-sun 00:00-24:00]")
    site.go(2)
    second = site.broker.offers[-1].policy
    assert (second.tenants_deny, second.max_gpus, second.hours) == (
        (),
        2,
        ("mon-sun 00:00-24:00",),
    )
    assert second.digest != first.digest
    assert site.offered() == 1
    site.broker.lease(a_lease(**ANN))
    site.broker.lease(a_lease("big", gpus=2, **ANN))
    site.go(2)
    assert site.broker.end("a1") is None
    assert site.code("big") == "kept_for_local_users"


def test_rules_that_are_not_published_are_only_known_by_their_digest(
    make: Callable[..., Rehearsal],
) -> None:
    site = make("tenants: {deny: [ann]}\npublish: false")
    site.go(2)
    policy = site.broker.offers[-1].policy
    assert (policy.tenants_deny, len(policy.digest)) == ((), 64)


def status(site: Rehearsal) -> dict[str, Any]:
    return dict(json.loads(site.journal.noted("room")))


def test_a_broken_file_keeps_the_last_good_rules_and_says_so(
    make: Callable[..., Rehearsal],
) -> None:
    site = make("tenants: {deny: [ann]}")
    site.rules("tenants: {deny: ann}")
    site.broker.lease(a_lease(**ANN))
    site.broker.lease(a_lease("a2", tenant="bob", samples_wanted=1))
    site.go(5)
    assert site.code("a1") == "tenant_not_admitted"
    assert site.end("a2").end is not None
    assert "tenants.deny: a list is expected" in status(site)["trouble"]
    assert status(site)["in_force"]
    site.policy.unlink()
    site.go(2)
    assert "cannot be read" in status(site)["trouble"]
    site.rules("")
    site.go(2)
    assert status(site)["trouble"] == ""


def test_without_any_good_rules_since_the_start_nothing_new_is_taken(
    make: Callable[..., Rehearsal],
) -> None:
    site = make("no: policy")
    site.broker.lease(a_lease(**ANN))
    site.go(2)
    assert site.code("a1") == "policy_unreadable"
    assert site.offered() == 0
    assert not status(site)["in_force"]
    site.rules("")
    site.broker.lease(a_lease("a2", **ANN))
    site.go(5)
    assert site.offered() == 2
    assert site.site.busy()


def test_outside_the_hours_nothing_is_on_offer_and_what_runs_goes_on(
    make: Callable[..., Rehearsal],
) -> None:
    begin = VirtualClock().wall()
    shut = begin + timedelta(minutes=10)
    site = make(f"hours: [mon-sun {begin:%H:%M}-{shut:%H:%M}]")
    site.broker.lease(a_lease(max_runtime_s=1e6, fence_s=1e5, **ANN))
    site.go(5)
    assert site.offered() == 2
    site.go(600, step=5.0)
    assert site.offered() == 0
    site.broker.lease(a_lease("late", **ANN))
    site.go(5)
    assert site.code("late") == "outside_hours"
    known = site.journal.get("a1")
    assert known is not None
    assert known.state is AttemptState.RUNNING
    site.go(86400 - 540, step=60.0)
    assert site.offered() == 2


@pytest.mark.parametrize(
    ("moment", "offered", "taken"),
    [
        ((12, 0, 0), 2, True),
        ((17, 59, 30), 0, True),
        ((18, 0, 0), 0, False),
        ((7, 59, 59), 0, False),
    ],
)
def test_the_offer_closes_a_little_before_the_hours_end(
    make: Callable[..., Rehearsal], moment: tuple[int, int, int], offered: int, taken: bool
) -> None:
    site = make("hours: [mon-sun 08:00-18:00]")
    now = datetime(2026, 1, 5, *moment, tzinfo=UTC)
    site.clock.set_wall((now - site.clock.wall()).total_seconds())
    assert site.door.offered(site.config.pools[0]) == offered
    assert (site.door.veto(a_lease(**ANN)) is None) is taken


def test_what_waits_when_the_rules_change_is_declined_what_has_begun_is_not(
    make: Callable[..., Rehearsal],
) -> None:
    site = make("")
    site.broker.lease(a_lease("runs", gpus=2, max_runtime_s=1e6, **ANN))
    site.go(3)
    site.broker.lease(a_lease("waits", gpus=2, **ANN))
    site.go(3)
    assert site.journal.get("waits") is not None
    site.rules("tenants: {deny: [ann]}")
    site.go(3)
    assert site.code("waits") == "tenant_not_admitted"
    assert site.broker.end("runs") is None


def test_kept_gpus_are_not_given_away_bit_by_bit(make: Callable[..., Rehearsal]) -> None:
    site = make("keep: {a100: 1}")
    for name in ("a1", "a2"):
        site.broker.lease(a_lease(name, max_runtime_s=1e6, **ANN))
    site.go(5)
    states = {a.attempt: a.state for a in site.journal.attempts()}
    assert states == {"a1": AttemptState.RUNNING, "a2": AttemptState.WAITING}


# -- what local users leave ---------------------------------------------------------------------


def test_less_is_shown_once_a_minute_nothing_at_once_and_more_when_it_lasts() -> None:
    shown = damped(None, 8, 0.0)
    assert damped(shown, 6, 30.0).gpus == 8  # too soon
    shown = damped(shown, 6, QUIET_S)
    assert shown == Shown(6, QUIET_S)
    assert damped(shown, 0, QUIET_S + 1).gpus == 0

    rising = damped(shown, 8, 100.0)
    rising = damped(rising, 7, 130.0)  # for a moment there was less
    assert rising.gpus == 6
    assert damped(rising, 8, 100.0 + LASTING_S).gpus == 7
    fell_back = damped(rising, 6, 140.0)
    assert damped(fell_back, 8, 100.0 + LASTING_S).gpus == 6


def test_a_queue_that_flutters_for_an_hour_gives_few_offers() -> None:
    shown, changes = damped(None, 8, 0.0), 0
    for second in range(0, 3600, 10):
        after = damped(shown, 8 if second // 10 % 2 else 5, float(second))
        changes += after.gpus != shown.gpus
        shown = after
    assert changes == 1
    assert shown.gpus == 5


def test_local_users_shrink_the_offer_and_a_silent_scheduler_changes_nothing(
    make: Callable[..., Rehearsal],
) -> None:
    site = make("")
    site.driver.left = {"a100": 1}
    site.go(2)
    assert [offer.pools[0].gpus for offer in site.broker.offers] == [1]
    site.driver.left = {"a100": 0}
    site.go(ASK_S + 2)
    assert site.offered() == 0
    site.driver.trouble = DriverFailed("the head does not answer")
    site.go(100)
    assert status(site)["supply_trouble"] == "the head does not answer"
    assert site.offered() == 0
    site.driver.trouble, site.driver.left = None, {"a100": 2}
    site.go(LASTING_S / 2)
    assert site.offered() == 0
    site.go(LASTING_S)
    assert site.offered() == 2
    assert len(site.broker.offers) == 3


def test_an_answer_that_cannot_be_read_costs_no_job(make: Callable[..., Rehearsal]) -> None:
    site = make("")
    site.driver.trouble = KeyError("gres")
    site.broker.lease(a_lease(samples_wanted=10, **ANN))
    site.go(20)
    assert site.end("a1").end is not None
    assert status(site)["supply_trouble"] == "KeyError('gres')"
    assert site.offered() == 2


# -- drain and leave ----------------------------------------------------------------------------


def test_a_drained_site_offers_nothing_declines_and_finishes(
    make: Callable[..., Rehearsal],
) -> None:
    site = make("")
    site.broker.lease(a_lease(samples_wanted=300, **ANN))
    site.go(5)
    drain.write(site.drain, Drain("new switches", "2026-01-01T00:00:00Z"))
    site.broker.lease(a_lease("on-its-way", samples_wanted=10, **ANN))
    site.go(1)
    assert site.offered() == 0
    site.broker.lease(a_lease("new", **ANN))
    site.go(9)
    on_its_way = site.end("on-its-way").end
    assert on_its_way is not None
    assert on_its_way.reason is EndReason.EXITED
    assert site.broker.offers[-1].note == "draining: new switches"
    assert site.code("new") == "draining"
    site.go(30)
    end = site.end("a1").end
    assert end is not None
    assert end.reason is EndReason.EXITED
    drain.clear(site.drain)
    site.go(5)
    assert site.offered() == 2


def test_a_drain_begins_without_the_broker_after_a_minute(make: Callable[..., Rehearsal]) -> None:
    site = make("")
    site.go(2)
    drain.write(site.drain, Drain("new switches", ""))
    site.door.look()
    lease = a_lease(**ANN)
    assert site.door.veto(lease) is None
    site.clock.advance(NOTICE_S)
    veto = site.door.veto(lease)
    assert veto is not None
    assert veto.code == "draining"
    site.clock.advance(-NOTICE_S)
    site.open()  # a restart: no award is on its way to this one
    veto = site.door.veto(lease)
    assert veto is not None


@pytest.mark.parametrize("text", ["{}", "{", '{"reason": 1, "at": ""}'])
def test_a_drain_file_that_cannot_be_read_closes_the_site(
    make: Callable[..., Rehearsal], text: str
) -> None:
    site = make("")
    site.drain.write_text(text, encoding="utf-8")
    site.go(2)
    assert site.offered() == 0


def test_leaving_hands_back_what_runs_and_ends_when_all_is_told(
    broker: FakeBroker, make_agent: Callable[..., AgentProcess]
) -> None:
    agent = make_agent()
    agent.start()
    broker.lease(a_lease("runs", command=steps_until_told(), **ANN))
    broker.lease(a_lease("holds", command=steps_until_told(), **ANN))
    broker.lease(a_lease("waits", command=steps(1), **ANN))
    until(lambda: broker.of("runs") and broker.of("holds"))
    until(lambda: any(s.attempt == "waits" for s in broker.syncs[-1].attempts))

    drain.write(agent.state / "drain.json", Drain("decommissioned", "", leave=True))

    assert agent.wait() == 0
    codes = {}
    for name in ("runs", "holds", "waits"):
        end = broker.end(name)
        assert end is not None
        assert end.end is not None
        codes[name] = (end.end.reason, end.end.code)
    assert codes == {
        "runs": (EndReason.DRIVER_FAILED, "leaving"),
        "holds": (EndReason.DRIVER_FAILED, "leaving"),
        "waits": (EndReason.DECLINED, "leaving"),
    }
    assert broker.offers[-1].pools[0].gpus == 0
    agent.start()  # by a service manager, say: it has nothing to do here
    assert agent.wait() == 0
