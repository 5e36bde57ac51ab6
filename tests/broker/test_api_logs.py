"""A job's log by byte offset: exactly the bytes that were written, and whether more will come."""

from __future__ import annotations

import pytest
from django.utils import timezone

from federation.models import Lease
from federation.services.leases import Ending
from tests.broker.api_world import a_caller, a_log, a_running_job, a_site_now, problem
from tests.support import world

pytestmark = pytest.mark.django_db
KIB = 1024


class Logs:
    """A job at a site whose agent is in touch, and a caller who reads its log."""

    def __init__(self) -> None:
        tenant = world.a_tenant("ann")
        self.api = a_caller(tenant)
        self.site = a_site_now("north")
        self.lease = a_running_job(tenant, self.site)
        self.agent = world.SimAgent(self.site)
        self.agent.sync(timezone.now())

    def read(self, **query: object):
        answer = self.api.get(f"/jobs/{self.lease.job_id}/logs", query)
        assert answer.status_code == 200, answer.content
        return answer

    def end(self, ending: Ending) -> None:
        self.agent.report(self.lease, timezone.now(), ending=ending)


@pytest.fixture
def logs() -> Logs:
    return Logs()


def test_bytes_come_back_as_they_were_written(logs):
    data = bytes(range(256)) * 4
    a_log(logs.lease, (0, data))

    answer = logs.read()

    assert answer.content == data
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert (answer["Hanse-Next-Offset"], answer["Hanse-Complete"]) == ("1024", "false")
    assert (answer["Hanse-Attempt"], answer["Hanse-Attempts"]) == ("1", "1")


@pytest.mark.parametrize("offset", [0, 1, 4, 5, 8, 9, 10, 11, 10**15])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_any_window_of_the_log_can_be_asked_for(logs, offset, limit):
    a_log(logs.lease, (0, b"abcd"), (4, b"efgh"), (8, b"ij"))

    answer = logs.read(offset=offset, limit=limit)

    assert answer.content == b"abcdefghij"[offset : offset + limit]
    assert int(answer["Hanse-Next-Offset"]) == offset + len(answer.content)


def test_reading_stops_before_a_gap_and_goes_on_when_it_is_filled(logs):
    a_log(logs.lease, (0, b"abcd"), (8, b"ijkl"))

    assert logs.read().content == b"abcd"
    assert logs.read(offset=4).content == b""
    a_log(logs.lease, (4, b"efgh"), of=12)
    assert logs.read(offset=4).content == b"efghijkl"


def test_pieces_that_overlap_are_told_once(logs):
    a_log(logs.lease, (0, b"abcd"), (2, b"cdef"), (3, b"de"))

    assert logs.read().content == b"abcdef"


def test_a_page_is_a_mebibyte_at_most(logs):
    piece = b"x" * (64 * KIB)
    a_log(logs.lease, *((n * len(piece), piece) for n in range(20)))

    first = logs.read(limit=10**9)
    second = logs.read(offset=first["Hanse-Next-Offset"])

    assert len(first.content) == KIB * KIB
    assert len(first.content) + len(second.content) == 20 * len(piece)


def test_the_log_is_complete_when_the_attempt_is_over_and_all_was_read(logs):
    a_log(logs.lease, (0, b"abcd"))
    logs.end(Ending("exited", 0))

    assert logs.read(limit=2)["Hanse-Complete"] == "false"
    assert logs.read(offset=2)["Hanse-Complete"] == "true"


def test_a_log_that_reached_its_cap_says_so(logs):
    a_log(logs.lease, (0, b"abcd"))
    Lease.objects.update(log_truncated=True)

    assert logs.read()["Hanse-Truncated"] == "true"


def test_every_attempt_has_a_log_of_its_own(logs):
    a_log(logs.lease, (0, b"first"))
    logs.end(Ending("lost", None))
    logs.agent.sync(timezone.now())
    world.a_round(timezone.now().replace(year=timezone.now().year + 1))
    second = world.live_lease(logs.lease.job)
    a_log(second, (0, b"second"))

    newest, named = logs.read(), logs.read(attempt=1)

    assert (newest.content, newest["Hanse-Attempt"]) == (b"second", "2")
    assert (named.content, named["Hanse-Attempt"]) == (b"first", "1")
    assert (named["Hanse-Attempts"], named["Hanse-Complete"]) == ("2", "true")


def test_an_attempt_that_is_not_there_yet_has_an_empty_log(logs):
    answer = logs.read(attempt=7)

    assert (answer.content, answer["Hanse-Attempt"], answer["Hanse-Attempts"]) == (b"", "0", "1")
    assert answer["Hanse-Complete"] == "false"


@pytest.mark.parametrize("name", ["offset", "limit", "attempt"])
@pytest.mark.parametrize("value", ["-1", "x", "1.0", "9" * 40, "٣", ""])
def test_a_number_that_is_none_is_refused(logs, name, value):
    problem(logs.api.get(f"/jobs/{logs.lease.job_id}/logs", {name: value}), 422, "bad_input", name)


def test_a_page_of_no_bytes_is_refused(logs):
    path = f"/jobs/{logs.lease.job_id}/logs"
    problem(logs.api.get(path, {"limit": 0}), 422, "bad_input", "limit")


def test_a_caller_who_accepts_text_only_gets_it(logs):
    a_log(logs.lease, (0, b"abcd"))
    path = f"/jobs/{logs.lease.job_id}/logs"

    assert logs.api.get(path, accept="text/plain").content == b"abcd"
    refused = logs.api.get(path, {"offset": "x"}, accept="text/plain")
    problem(refused, 422, "bad_input", "offset")
