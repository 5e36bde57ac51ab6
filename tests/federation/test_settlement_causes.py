"""Whose doing a shortfall is and what was due, as a table and as properties."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from economics.settlement import Cause
from federation.causes import ASKED_BACK_BY, ENDED_BY, End, ended_by, verdict
from federation.services.leases import ENDINGS
from tests.support.world import NOW, later

ALLOWANCE = timedelta(seconds=60)
SOLD = 3600  # samples: one for each second of the planned hour


def an_end(**said):
    plain = End(
        opened_at=NOW,
        ends_at=later(3600),
        contracted=SOLD,
        first=True,
        to_end=False,
        started=True,
    )
    return replace(plain, **said)


def test_every_ending_that_an_agent_can_tell_has_somebody_whose_doing_it_was():
    assert set(ENDED_BY) == set(ENDINGS)
    assert Cause.NONE not in {*ENDED_BY.values(), *ASKED_BACK_BY.values()}


@pytest.mark.parametrize(
    ("said", "accepted", "due", "cause"),
    [
        # the next contract took its place: in proportion, less the start
        ({"superseded_at": later(3660)}, 3600, 3600, "none"),
        ({"superseded_at": later(3660)}, 3312, 3600, "site"),
        ({"superseded_at": later(1860)}, 1800, 1800, "market"),
        ({"superseded_at": later(1860)}, 1799, 1800, "site"),
        ({"superseded_at": later(1860), "first": False}, 1800, 1860, "site"),
        ({"superseded_at": later(30)}, 0, 0, "market"),
        ({"superseded_at": later(9999)}, 0, 3600, "site"),
        # asked back: until then
        ({"asked_back_at": later(1860), "asked_back_code": "outbid"}, 1800, 1800, "market"),
        ({"asked_back_at": later(1860), "asked_back_code": "moved"}, 900, 1800, "site"),
        ({"asked_back_at": later(1860), "asked_back_code": "cancelled"}, 900, 1800, "tenant"),
        ({"asked_back_at": later(1860), "asked_back_code": "work_done"}, 900, 1800, "tenant"),
        # the site ended it: all that was sold
        ({"ended_at": later(600), "end_reason": "driver_failed"}, 540, 3600, "site"),
        ({"ended_at": later(600), "end_reason": "lost"}, 540, 3600, "site"),
        ({"ended_at": later(600), "end_reason": "fenced"}, 540, 3600, "site"),
        ({"ended_at": later(2), "end_reason": "declined", "started": False}, 0, 3600, "site"),
        # the tenant's program ended
        ({"ended_at": later(660), "end_reason": "exited"}, 300, 600, "tenant"),
        ({"ended_at": later(660), "end_reason": "runtime_limit"}, 300, 600, "tenant"),
        ({"ended_at": later(660), "end_reason": "exited"}, 3600, 600, "none"),
        # sold to the job's end: no pace was promised, only the work
        ({"superseded_at": later(1860), "to_end": True}, 7, 7, "market"),
        ({"ended_at": later(60), "end_reason": "exited", "to_end": True}, 7, 7, "tenant"),
        ({"ended_at": later(60), "end_reason": "lost", "to_end": True}, 7, 3600, "site"),
        # asked back, and lost before it stopped: what was due until then
        (
            {
                "asked_back_at": later(660),
                "asked_back_code": "outbid",
                "ended_at": later(900),
                "end_reason": "lost",
            },
            *(600, 600, "market"),
        ),
    ],
)
def test_the_table_of_causes_and_dues(said, accepted, due, cause):
    judged = verdict(an_end(**said), accepted, ALLOWANCE)
    assert (judged.due, judged.cause.value) == (due, cause)


def test_only_a_lease_that_its_site_never_started_is_a_non_start():
    for reason, by in ENDED_BY.items():
        end = an_end(ended_at=later(9), end_reason=reason, started=False)
        assert verdict(end, 0, ALLOWANCE).started is (by is not Cause.SITE)


@given(
    second=st.integers(0, 8000),
    accepted=st.integers(0, 2 * SOLD),
    first=st.booleans(),
    to_end=st.booleans(),
    how=st.sampled_from(["superseded", *ENDED_BY, *ASKED_BACK_BY, "outbid"]),
)
def test_a_due_is_never_more_than_was_sold_and_grows_with_time(
    second, accepted, first, to_end, how
):
    def judged(at):
        end = an_end(first=first, to_end=to_end)
        if how == "superseded":
            end = replace(end, superseded_at=later(at))
        elif how in ENDED_BY:
            end = replace(end, ended_at=later(at), end_reason=how)
        else:
            end = replace(end, asked_back_at=later(at), asked_back_code=how)
        return end, verdict(end, accepted, ALLOWANCE)

    end, now = judged(second)
    _, after = judged(second + 100)
    assert 0 <= now.due <= after.due <= SOLD
    assert (now.cause is Cause.NONE) == (accepted >= SOLD)
    if now.cause is Cause.MARKET:
        assert accepted >= now.due  # the market bears only what was not yet due
    if ended_by(end) is Cause.TENANT:
        assert now.cause in (Cause.TENANT, Cause.NONE)
