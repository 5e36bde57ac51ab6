"""Reads of contracts and disputes: those that a user may see, and for whom it may object."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from federation.models import Contract, Dispute, Member, Tenant, User


def contracts_visible(user: User) -> QuerySet[Contract]:
    """Contracts that concern a user: all to an operator, to a tenant those of its jobs, to a
    member those of its tenants and of its sites."""
    rows = Contract.objects.select_related("lease__job__tenant", "lease__site__member", "rules")
    return rows.filter(_concerns(user, "lease__"))


def disputes_visible(user: User) -> QuerySet[Dispute]:
    """Disputes of the contracts that concern a user."""
    rows = Dispute.objects.select_related("contract__lease__job", "contract__lease__site")
    return rows.filter(_concerns(user, "contract__lease__"))


def party_of(user: User, contract: Contract) -> str | None:
    """For whom a user may object to a contract: its tenant, else its site; None for neither."""
    tenant, member = _acts_for(user)
    lease = contract.lease
    if tenant is not None:
        return Dispute.By.TENANT if lease.job.tenant_id == tenant.pk else None
    if member is None:
        return None
    if lease.job.tenant.member_id == member.pk:
        return Dispute.By.TENANT
    return Dispute.By.SITE if lease.site.member_id == member.pk else None


def _concerns(user: User, lease: str) -> Q:
    if user.is_staff:
        return Q()
    tenant, member = _acts_for(user)
    if tenant is not None:
        return Q(**{f"{lease}job__tenant": tenant})
    if member is None:
        return Q(pk__in=[])
    return Q(**{f"{lease}job__tenant__member": member}) | Q(**{f"{lease}site__member": member})


def _acts_for(user: User) -> tuple[Tenant | None, Member | None]:
    """The tenant that a user speaks for alone, or the member that it speaks for whole."""
    if not user.is_active:
        return None, None
    return (user.tenant, None) if user.tenant is not None else (None, user.member)
