"""Write side of refusals: a lease that a site declined by its own rules, judged and remembered."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from federation.admission import LESSONS, Published, Scope, Wish, announced, published
from federation.causes import VETOED, VETOED_UNANNOUNCED
from federation.models import Job, Lease, Offer, OfferPool, SiteRefusal
from federation.services.endings import Ending
from federation.services.story import tell


def refusal_judge(*, lease: Lease, ending: Ending, now: datetime) -> Ending:
    """What the end of a lease is called when its site declined it by a rule of its own.

    It is free where the site had said so before the lease was made, and costs what a lease costs
    that never started where it had not. Either way the market remembers it, and it is no failure.
    Any other ending is returned as it came. Runs inside the caller's transaction.
    """
    if ending.reason != "declined" or ending.code not in LESSONS:
        return ending
    job = Job.objects.select_related("tenant", "job_class").get(pk=lease.job_id)
    offer = _offer_then(lease)
    said = announced(
        code=ending.code,
        rules=published(offer.rules) if offer else Published(),
        offered=_offered(offer, lease),
        wish=Wish(job.tenant.name, job.job_class.name, job.max_runtime_s, lease.gpus),
    )
    _remember(lease, job, ending, said, now)
    return replace(ending, reason=VETOED if said else VETOED_UNANNOUNCED)


def _offer_then(lease: Lease) -> Offer | None:
    """The site's newest offer at the moment when the lease was made."""
    rows = Offer.objects.filter(site=lease.site_id, created_at__lte=lease.created_at)
    return rows.order_by("-version").first()


def _offered(offer: Offer | None, lease: Lease) -> int:
    """GPUs of the lease's pool that the offer held; without any offer nothing was announced."""
    if offer is None:
        return lease.gpus
    line = OfferPool.objects.filter(offer=offer, pool=lease.pool_id).first()
    return lease.gpus if line is None else line.gpus


def _remember(lease: Lease, job: Job, ending: Ending, said: bool, now: datetime) -> None:
    """Whom the site is not offered to for a while; a probe speaks for the job that needs it."""
    lesson = LESSONS[ending.code]
    about: dict[Scope, dict[str, Any]] = {
        Scope.TENANT: {"tenant": job.tenant},
        Scope.CLASS: {"job_class": job.job_class},
        Scope.JOB: {"job_id": job.parent_id or job.pk},
    }
    current = Offer.objects.filter(site=lease.site_id).order_by("-version").first()
    made = SiteRefusal.objects.create(
        site_id=lease.site_id,
        lease=lease,
        code=ending.code,
        why=ending.message[:1000],
        announced=said,
        mark=mark_of(current, passing=lesson.passing),
        until=now + lesson.holds,
        created_at=now,
        **about[lesson.scope],
    )
    tell(
        "site",
        lease.site_id,
        "refusal",
        now=now,
        actor=f"agent:{lease.site.name}",
        code=ending.code,
        why=f"{made.why} Lease {lease.pk}; {'announced' if said else 'not announced'}.",
    )


def mark_of(offer: Offer | None, *, passing: bool) -> str:
    """Names the rules that a refusal follows from: those of the site, or its offer of the moment.

    An offer whose site says nothing of its rules stands for them.
    """
    if offer is None:
        return ""
    digest = published(offer.rules).digest
    return f"v{offer.version}" if passing or not digest else digest
