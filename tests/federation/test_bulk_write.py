"""Rows written in bulk are the rows that the ORM would have written."""

from __future__ import annotations

import gc
import uuid
from datetime import UTC, datetime

import pytest
from django.db import IntegrityError
from django.forms.models import model_to_dict

from federation import bulk
from federation.bulk import rows_among, rows_insert, rows_update, uncollected
from federation.models import Event, Job, Member, PoolPrice, Site
from tests.support.world import NOW, a_job, a_site, a_tenant, later

pytestmark = pytest.mark.django_db

AWKWARD = [
    "plain",
    "",
    "a tab\tand a line\nand a return\rhere",
    "a backslash \\ and \\N and \\t as letters",
    "quotes ' and \" and %s and {x}",
    "Zürich – 東京 – 🚀",
]


def events():
    return list(Event.objects.filter(subject="test").order_by("id"))


@pytest.mark.parametrize("text", AWKWARD)
def test_text_comes_back_as_it_went_in(text):
    rows_insert(Event, ("at", "subject", "subject_id", "why"), [(NOW, "test", "1", text)])
    [event] = events()
    assert (event.why, event.at, event.code) == (text, NOW, "")
    rows_update(Event, ("why", "code"), [(event.pk, text[::-1], "seen")])
    [event] = events()
    assert (event.why, event.code) == (text[::-1], "seen")


def test_a_row_of_every_kind_of_field_is_the_orms_row():
    """Null, truth, JSON, numbers, times, ids and defaults, against a row that the ORM made."""
    made = a_job(a_tenant("ann"), deadline=later(9.25), preemptible=False, gpu_kinds=["A", "B"])
    names = [f.attname for f in Job._meta.concrete_fields if f.attname != "id"]
    twin = uuid.uuid4()
    rows_insert(Job, ("id", *names), [(twin, *(getattr(made, name) for name in names))])
    found = Job.objects.get(pk=twin)
    assert model_to_dict(found) == model_to_dict(made)
    assert (found.created_at, found.deadline) == (made.created_at, later(9.25))


def test_fields_that_are_not_named_take_their_defaults():
    venue = a_site("north").venue
    owner = Member.objects.create(name="clover", created_at=NOW)
    names = ("member_id", "venue_id", "name", "created_at")
    rows_insert(Site, names, [(owner.pk, venue.pk, f"s{at}", NOW) for at in range(3)])
    sites = list(Site.objects.filter(member=owner).order_by("name"))
    assert [site.name for site in sites] == ["s0", "s1", "s2"]
    assert len({site.pk for site in sites}) == 3
    assert {(s.state, s.orders_version, tuple(s.past_journals)) for s in sites} == {
        ("enrolled", 0, ())
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("ledger_may_be_flushed")
def test_a_row_that_breaks_a_constraint_keeps_all_of_them_out():
    rows = [(uuid.uuid4(), name, NOW) for name in ("one", "two", "one")]
    with pytest.raises(IntegrityError):
        rows_insert(Member, ("id", "name", "created_at"), rows)
    assert not Member.objects.exists()


def test_only_rows_that_meet_the_condition_are_changed():
    tenant = a_tenant("ann")
    jobs = [a_job(tenant) for _ in range(3)]
    Job.objects.filter(pk=jobs[0].pk).update(attempts=5)
    changed = rows_update(
        Job,
        ("attempts", "reason"),
        [(job.pk, 3, f"told {at}") for at, job in enumerate(jobs)],
        only="attempts < {attempts}",
    )
    assert changed == 2
    rows = Job.objects.in_bulk([job.pk for job in jobs])
    assert [rows[job.pk].attempts for job in jobs] == [5, 3, 3]
    assert [rows[job.pk].reason for job in jobs][1:] == ["told 1", "told 2"]


def test_no_rows_and_unknown_rows_change_nothing():
    assert rows_update(Job, ("reason",), []) == 0
    assert rows_update(Job, ("reason",), [(uuid.uuid4(), "nobody")]) == 0
    rows_insert(PoolPrice, ("round_id", "pool_id"), [])


def test_long_lists_are_asked_for_in_parts(monkeypatch):
    monkeypatch.setattr(bulk, "AT_ONCE", 2)
    tenant = a_tenant("ann")
    ids = sorted(a_job(tenant).pk for _ in range(5))
    found = rows_among(Job.objects.order_by("pk"), "pk", [*ids, uuid.uuid4()])
    assert [job.pk for job in found] == ids


def test_the_search_for_garbage_goes_on_after_an_error():
    seen = []

    @uncollected()
    def broken():
        seen.append(gc.isenabled())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert (seen, gc.isenabled()) == ([False], True)


def test_times_keep_their_microseconds():
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    rows_insert(Event, ("at", "subject", "subject_id"), [(at, "test", "1")])
    assert events()[0].at == at
