"""Reports: numbered facts that may come late, twice, in any order, or from somebody else."""

from __future__ import annotations

import itertools
import uuid

import pytest

from agents.protocol import MAX_LOG_CHUNK, MAX_REPORTS
from federation.models import Contract, Job, Lease, LogChunk, Report
from tests.broker.api_world import (
    Caller,
    a_batch,
    a_caller,
    a_report,
    a_running_job,
    a_site_now,
    a_sync,
    an_agent_of,
    log_part,
    nothing_stored,
    problem,
    progress,
)
from tests.support import world

pytestmark = pytest.mark.django_db


class Reporting:
    """A delivered lease and the agent that reports on it."""

    def __init__(self) -> None:
        self.tenant = world.a_tenant("ann")
        self.site = a_site_now("north")
        self.lease = a_running_job(self.tenant, self.site)
        self.agent = an_agent_of(self.site)
        self.agent.post("/sync", a_sync())
        listed = [{"attempt": str(self.lease.pk), "state": "starting"}]
        self.agent.post("/sync", a_sync(attempts=listed))

    def send(self, *reports: dict[str, object]):
        return self.agent.post("/reports", a_batch(*reports))

    def report(self, seq: int, kind: str = "progress", **parts: object) -> dict[str, object]:
        return a_report(self.lease, seq, kind, **parts)

    def state(self) -> dict[str, object]:
        """All that reports move, apart from their own times."""
        self.lease.refresh_from_db()
        job = Job.objects.get(pk=self.lease.job_id)
        contract = Contract.objects.get(lease=self.lease)
        return {
            "lease": (self.lease.state, self.lease.samples, self.lease.gpu_seconds),
            "speed": (self.lease.measured_samples_per_s, self.lease.progress_lines),
            "reports": (self.lease.reports_stored, self.lease.reports_highest, self.lease.end_seq),
            "log": (self.lease.log_bytes, self.lease.log_truncated),
            "job": (job.state, job.samples_done, job.reason_code),
            "contract": (contract.state, contract.delivered, contract.gpu_seconds),
        }


@pytest.fixture
def site() -> Reporting:
    return Reporting()


def receipts(answer) -> list[tuple[int, bool, str]]:
    assert answer.status_code == 200, answer.content
    return [(r["seq"], r["accepted"], r["code"]) for r in answer.json()["receipts"]]


def whole_story(site: Reporting) -> list[dict[str, object]]:
    speed = {"samples_per_s": 900.0, "lines": 4}
    return [
        site.report(1, "started", progress=progress(0)),
        site.report(2, "log", log=log_part(0, b"hello ")),
        site.report(3, progress=progress(400, **speed)),
        site.report(4, "log", log=log_part(6, b"world")),
        site.report(5, "ended", progress=progress(900), end={"reason": "exited", "exit_code": 0}),
    ]


def test_reports_move_lease_job_contract_and_log(site):
    answer = site.send(*whole_story(site))

    assert receipts(answer) == [(seq, True, "") for seq in range(1, 6)]
    assert site.state() == {
        "lease": ("done", 900, 0.9),
        "speed": (900.0, 4),
        "reports": (5, 5, 5),
        "log": (11, False),
        "job": ("succeeded", 900, "exit_0"),
        "contract": ("running", 900, 0.9),
    }
    log = a_caller(site.tenant).get(f"/jobs/{site.lease.job_id}/logs")
    assert (log.content, log["Hanse-Complete"]) == (b"hello world", "true")


def test_a_replay_is_accepted_and_changes_nothing(site):
    story = whole_story(site)
    site.send(*story)

    with nothing_stored():
        before = site.state()
        again = site.send(*story)
        assert site.state() == before
    assert receipts(again) == [(seq, True, "") for seq in range(1, 6)]


def test_a_report_twice_in_one_batch_is_stored_once(site):
    report = site.report(1, progress=progress(5))

    assert receipts(site.send(report, report)) == [(1, True, ""), (1, True, "")]
    assert Report.objects.count() == 1


def test_a_number_that_was_used_keeps_its_first_content(site):
    site.send(site.report(1, progress=progress(5)))
    before = site.state()
    site.send(site.report(1, progress=progress(50_000)))

    assert site.state() == before


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (0, 2, 1, 4, 3), (2, 4, 0, 3, 1)])
def test_any_order_of_single_reports_leads_to_the_same_end(site, order):
    story = whole_story(site)
    for place in order:
        site.send(story[place])

    told = site.state()
    assert told["lease"] == ("done", 900, 0.9)
    assert told["reports"] == (5, 5, 5)
    assert told["log"] == (11, False)
    assert told["job"] == ("succeeded", 900, "exit_0")


def test_totals_never_fall(site):
    site.send(site.report(1, progress=progress(500)))
    site.send(site.report(2, progress=progress(100)))

    assert site.state()["lease"][1] == 500
    assert site.state()["job"][1] == 500


def test_an_unknown_attempt_is_refused_alone(site):
    ghost = site.report(1) | {"attempt": str(uuid.uuid4())}

    answer = site.send(ghost, site.report(1, progress=progress(5)))

    assert sorted(receipts(answer)) == [(1, False, "unknown_attempt"), (1, True, "")]
    assert Report.objects.count() == 1


def test_someone_elses_attempt_is_as_unknown_as_one_that_never_was(site):
    thief = an_agent_of(a_site_now("south", speeds={}))
    report = site.report(1, "ended", end={"reason": "lost"}, progress=progress(5))

    with nothing_stored():
        theirs = thief.post("/reports", a_batch(report))
        nobodys = thief.post("/reports", a_batch(report | {"attempt": str(uuid.UUID(int=7))}))

    assert receipts(theirs) == receipts(nobodys) == [(1, False, "unknown_attempt")]
    assert theirs.json()["receipts"][0]["why"] == nobodys.json()["receipts"][0]["why"]
    assert site.state()["lease"][0] == "active"


def test_a_contract_of_another_lease_is_not_delivered_on(site):
    other = a_running_job(site.tenant, a_site_now("south"))
    report = site.report(1, progress=progress(5)) | {
        "contract": str(Contract.objects.get(lease=other).pk)
    }

    assert receipts(site.send(report)) == [(1, True, "")]
    assert set(Contract.objects.values_list("delivered", flat=True)) == {0}


def test_a_late_report_of_a_fenced_attempt_is_kept_and_moves_nothing(site):
    Lease.objects.filter(pk=site.lease.pk).update(state="fenced")
    Job.objects.filter(pk=site.lease.job_id).update(state="pending")

    assert receipts(site.send(*whole_story(site))) == [(seq, True, "") for seq in range(1, 6)]

    assert site.state()["job"] == ("pending", 0, "awarded")
    assert site.state()["lease"][:2] == ("fenced", 0)
    assert set(Report.objects.values_list("applied", flat=True)) == {False}


def test_a_batch_may_hold_as_many_reports_as_the_protocol_says(site):
    many = [site.report(seq, progress=progress(seq)) for seq in range(1, MAX_REPORTS + 1)]

    assert len(receipts(site.send(*many))) == MAX_REPORTS
    with nothing_stored():
        problem(site.send(*many, site.report(MAX_REPORTS + 1)), 413, "too_large")


def test_a_log_piece_as_large_as_allowed_is_kept_and_a_larger_one_refused(site):
    site.send(site.report(1, "log", log=log_part(0, b"x" * MAX_LOG_CHUNK)))
    assert LogChunk.objects.get().size == MAX_LOG_CHUNK

    with nothing_stored():
        answer = site.send(site.report(2, "log", log=log_part(0, b"x" * (MAX_LOG_CHUNK + 1))))
    problem(answer, 422, "bad_input", "reports[0].log.data")


def test_a_log_beyond_its_cap_fills_no_disk(site, settings):
    settings.LOG_CAP_BYTES = 10
    site.send(
        site.report(1, "log", log=log_part(0, b"abcdefgh")),
        site.report(2, "log", log=log_part(8, b"ijklmnop")),
        site.report(3, "log", log=log_part(16, b"qrst")),
        site.report(4, "log", log=log_part(10**12, b"far away")),
    )

    assert sum(LogChunk.objects.values_list("size", flat=True)) == 10
    assert site.state()["log"] == (10, True)
    log = a_caller(site.tenant).get(f"/jobs/{site.lease.job_id}/logs")
    assert (log.content, log["Hanse-Truncated"]) == (b"abcdefghij", "true")


BAD = [
    ({"seq": 0}, "seq"),
    ({"seq": -1}, "seq"),
    ({"seq": 2**31}, "seq"),
    ({"seq": 10**400}, "seq"),
    ({"seq": True}, "seq"),
    ({"attempt": "x"}, "attempt"),
    ({"contract": "x"}, "contract"),
    ({"kind": "gossip"}, "kind"),
    ({"at": "then"}, "at"),
    ({"at": "2026-01-01T00:00:00"}, "at"),
    ({"kind": "ended"}, "end"),
    ({"end": {"reason": "exited"}}, "end"),
    ({"kind": "ended", "end": {"reason": "bored"}}, "end.reason"),
    ({"kind": "ended", "end": {"reason": "exited", "exit_code": 2**31}}, "end.exit_code"),
    ({"kind": "ended", "end": {"reason": "exited", "exit_code": True}}, "end.exit_code"),
    ({"kind": "ended", "end": {"reason": "lost", "message": "a\x00"}}, "end.message"),
    ({"kind": "ended", "end": {"reason": "lost", "message": "\udfff"}}, "end.message"),
    ({"log": log_part(-1, b"x")}, "log.offset"),
    ({"log": log_part(2**60, b"x")}, "log.offset"),
    ({"log": {"offset": 0, "data": "not base64!"}}, "log.data"),
    ({"log": {"offset": 0, "data": "YQ"}}, "log.data"),
    ({"progress": progress(-1, contract_samples=-1)}, "progress.samples"),
    ({"progress": progress(5, contract_samples=6)}, "progress.contract_samples"),
    ({"progress": progress(5, contract_samples=-1)}, "progress.contract_samples"),
    ({"progress": progress(5, gpu_seconds=-0.1)}, "progress.gpu_seconds"),
    ({"progress": progress(5, gpu_seconds=1e18)}, "progress.gpu_seconds"),
    ({"progress": progress(2**53)}, "progress.samples"),
    ({"progress": progress(5, lines=-1)}, "progress.lines"),
    ({"progress": progress(5, lines=2**31)}, "progress.lines"),
    ({"progress": progress(5, samples_per_s=-1.0)}, "progress.samples_per_s"),
    ({"progress": progress(5, samples_per_s=1e300)}, "progress.samples_per_s"),
    ({"progress": progress(5, loss="low")}, "progress.loss"),
    ({"mood": "fine"}, "mood"),
]


@pytest.mark.parametrize(("changes", "path"), BAD)
def test_a_report_that_does_not_fit_is_refused_with_the_path(site, changes, path):
    good = site.report(1, progress=progress(5))
    with nothing_stored():
        answer = site.send(good, {**site.report(2, progress=progress(6)), **changes})
    problem(answer, 422, "bad_input", f"reports[1].{path}")


def test_a_batch_needs_its_protocol_and_its_list(site):
    with nothing_stored():
        problem(site.agent.post("/reports", {}), 422, "bad_input", "protocol")
        later = a_batch() | {"protocol": "hanse.agent/9"}
        problem(site.agent.post("/reports", later), 409, "protocol_mismatch")
        problem(
            site.agent.post("/reports", a_batch() | {"reports": {}}), 422, "bad_input", "reports"
        )
        problem(site.agent.post("/reports", b" " * (4 * 2**20 + 1)), 413, "too_large")


def test_an_empty_batch_is_nothing_to_do(site):
    with nothing_stored():
        assert receipts(site.send()) == []


def test_a_stranger_reports_nothing(site):
    stranger = Caller("hsa_stranger", prefix="/gateway/v1")
    with nothing_stored():
        answer = stranger.post("/reports", a_batch(site.report(1, progress=progress(5))))
    problem(answer, 401, "credential_invalid")


@pytest.mark.parametrize(
    ("end", "state", "code"),
    [
        ({"reason": "exited", "exit_code": 3}, "failed", "exit_3"),
        ({"reason": "runtime_limit"}, "failed", "runtime_limit"),
        ({"reason": "declined", "message": "maintenance"}, "pending", "declined"),
        ({"reason": "driver_failed"}, "pending", "driver_failed"),
        ({"reason": "lost"}, "pending", "lost"),
        ({"reason": "never_started"}, "pending", "never_started"),
    ],
)
def test_each_end_moves_the_job_where_it_belongs(site, end, state, code):
    site.send(site.report(1, "ended", progress=progress(0), end=end))

    assert site.state()["job"] == (state, 0, code)


def test_the_numbers_of_many_attempts_do_not_mix(site):
    second = a_running_job(site.tenant, site.site)
    batch = [
        a_report(lease, seq, progress=progress(seq * 10))
        for seq, lease in itertools.product((1, 2), (site.lease, second))
    ]

    assert all(accepted for _, accepted, _ in receipts(site.send(*batch)))
    assert Report.objects.count() == 4
    assert set(Lease.objects.values_list("samples", flat=True)) == {20}
