"""What a fresh federation needs: venues, members, tenants, sites, job classes."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from federation.errors import BadInput, FieldProblem, Refused
from federation.models import JobClass, Member, Site, Tenant, Venue
from federation.models.base import Identified, name_validator
from federation.money import MAX_MICRO, as_text
from federation.services.story import tell

MAIN_VENUE = "main"
MOST_CLASSES = 200  #: of one member: speeds are learnt and told for each of them
Row = TypeVar("Row", bound=Identified)


def venue_ensure(*, now: datetime, name: str = MAIN_VENUE, **settings: object) -> Venue:
    """The venue of this name, made with `settings` when it is missing."""
    venue, _ = Venue.objects.get_or_create(name=name, defaults={"created_at": now, **settings})
    return venue


def member_create(*, name: str, title: str = "", actor: str, now: datetime) -> Member:
    return _create(Member(name=name, title=title, created_at=now), "member", actor, now)


def tenant_create(*, name: str, member: Member, actor: str, now: datetime) -> Tenant:
    return _create(Tenant(name=name, member=member, created_at=now), "tenant", actor, now)


def site_create(*, name: str, member: Member, venue: Venue, actor: str, now: datetime) -> Site:
    return _create(Site(name=name, member=member, venue=venue, created_at=now), "site", actor, now)


def class_create(
    *, name: str, title: str = "", owner: Member | None = None, actor: str, now: datetime
) -> JobClass:
    """Register a class of a member, None = of the federation. Raises Refused("too_many_classes")
    for one more than a member may have."""
    with transaction.atomic():
        if owner is not None:
            Member.objects.select_for_update().get(pk=owner.pk)  # one class after another
            if JobClass.objects.filter(owner=owner).count() >= MOST_CLASSES:
                why = f"{owner} has {MOST_CLASSES} classes, which is the most a member may have."
                raise Refused(f"{why} Use one of them.", code="too_many_classes")
        made = JobClass(name=name, title=title, owner=owner, created_at=now)
        return _create(made, "class", actor, now)


def member_credit_set(
    *, member: Member, credit_micro: int | None, actor: str, now: datetime
) -> Member:
    """How far a member's earnings may go below zero for its bonds; None: as the rules say. Audited.

    It is for the bonds to come: those that are held already stay. Raises Refused("bad_amount").
    """
    if credit_micro is not None and not 0 <= credit_micro <= MAX_MICRO:
        raise Refused(
            "A member's credit is not negative, and at most a milliard credits.", code="bad_amount"
        )
    with transaction.atomic():
        stored = Member.objects.select_for_update().get(pk=member.pk)
        before, stored.credit_micro = stored.credit_micro, credit_micro
        stored.save(update_fields=["credit_micro"])
        why = f"{_limit(before)} -> {_limit(credit_micro)}"
        tell("member", stored.pk, "credit", now=now, actor=actor, why=why)
    return stored


def _limit(credit_micro: int | None) -> str:
    return "as the rules say" if credit_micro is None else as_text(credit_micro)


def _create(row: Row, subject: str, actor: str, now: datetime) -> Row:
    try:
        name_validator(row.name)  # type: ignore[attr-defined]
    except ValidationError as error:
        raise BadInput(FieldProblem("name", error.messages[0])) from None
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            tell(subject, row.pk, "create", now=now, actor=actor)
    except IntegrityError:
        raise Refused(
            f"There is already a {subject} called {row.name}.",  # type: ignore[attr-defined]
            code="name_taken",
        ) from None
    return row
