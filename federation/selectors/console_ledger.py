"""Reads for the console's pages of money, members and the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Prefetch, Q, QuerySet
from knox.models import get_token_model

from federation.models import Account, Entry, EntryGroup, Event, Job, JobClass, Member, Tenant


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A tenant's API token: its first letters, never the secret."""

    hint: str
    created_at: datetime
    expires_at: datetime | None


def accounts_all() -> QuerySet[Account]:
    return Account.objects.select_related("tenant__member", "member").order_by(
        "currency", "kind", "tenant__name", "member__name"
    )


def groups_found(kind: str = "", account: Account | None = None) -> QuerySet[EntryGroup]:
    """Entry groups newest first, with their entries and purses."""
    rows = EntryGroup.objects.select_related("contract__lease__job", "round").defer(
        "round__clearing"
    )
    if kind:
        rows = rows.filter(kind=kind)
    if account is not None:
        rows = rows.filter(entries__account=account)
    entries = Entry.objects.select_related("account__tenant", "account__member").order_by(
        "amount_micro"
    )
    return rows.prefetch_related(Prefetch("entries", queryset=entries)).order_by(
        "-created_at", "-id"
    )


def entries_of(account: Account) -> QuerySet[Entry]:
    return (
        Entry.objects.filter(account=account)
        .select_related("group__contract__lease__job", "group__round")
        .defer("group__round__clearing")
        .order_by("-group__created_at", "-id")
    )


def members_found() -> QuerySet[Member]:
    return Member.objects.annotate(
        tenant_count=Count("tenants", distinct=True), site_count=Count("sites", distinct=True)
    ).order_by("name")


def tenants_found() -> QuerySet[Tenant]:
    return Tenant.objects.select_related("member").prefetch_related("accounts").order_by("name")


def classes_found() -> QuerySet[JobClass]:
    return (
        JobClass.objects.select_related("owner").annotate(job_count=Count("jobs")).order_by("name")
    )


def tokens_of(tenant: Tenant) -> list[ApiToken]:
    rows = get_token_model().objects.filter(user__tenant=tenant).order_by("-created")
    return [ApiToken(row.token_key, row.created, row.expiry) for row in rows]


def jobs_by_state(**where: object) -> dict[str, int]:
    """How many jobs of a tenant or class are in each state."""
    rows = Job.objects.filter(**where).values_list("state").annotate(n=Count("id")).order_by()
    return dict(rows)


def events_found(*, subject: str = "", actor: str = "", q: str = "") -> QuerySet[Event]:
    """The audit log, newest first."""
    rows = Event.objects.all()
    if subject:
        rows = rows.filter(subject=subject)
    if actor:
        rows = rows.filter(actor__startswith=actor)
    if q:
        rows = rows.filter(Q(why__icontains=q) | Q(subject_id=q) | Q(event=q))
    return rows
