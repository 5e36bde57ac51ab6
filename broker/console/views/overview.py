"""Overview, the header's dot and the audit log."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from broker.console.access import operator_only
from broker.console.pages import page_of, show
from federation.models import (
    Contract,
    Job,
    JobClass,
    Lease,
    Member,
    Offer,
    Round,
    Site,
    Tenant,
    User,
    Venue,
)
from federation.selectors import console_overview as reads
from federation.selectors.console_ledger import events_found
from federation.selectors.console_sites import site_rows, sites_found

#: what a story is about -> its model, its page, and what names it there
PAGES: dict[str, tuple[type[Model], str, str]] = {
    "job": (Job, "console-job", "pk"),
    "lease": (Lease, "console-lease", "pk"),
    "round": (Round, "console-round", "pk"),
    "offer": (Offer, "console-offer", "pk"),
    "site": (Site, "console-site", "name"),
    "member": (Member, "console-member", "name"),
    "tenant": (Tenant, "console-tenant", "name"),
    "class": (JobClass, "console-class", "name"),
    "venue": (Venue, "admin:federation_venue_change", "pk"),
    "user": (User, "admin:federation_user_change", "pk"),
}
SUBJECTS = (
    "job",
    "lease",
    "contract",
    "round",
    "site",
    "offer",
    "tenant",
    "member",
    "class",
    "venue",
)


@operator_only
def overview(request: HttpRequest) -> HttpResponse:
    """Is the market healthy now?"""
    venues = list(Venue.objects.all())
    venue = next((v for v in venues if v.name == request.GET.get("venue")), None)
    venue = venue or (venues[0] if venues else None)
    steps = reads.first_steps()
    context: dict[str, Any] = {"venues": venues, "venue": venue, "now": timezone.now()}
    context["steps"] = steps if not all(step.done for step in steps) else []
    if venue is not None:
        context |= {
            "rounds": reads.current_rounds(venue),
            "trend": reads.trend(venue),
            "waiting": reads.jobs_waiting(venue),
            "sites": site_rows(sites_found().filter(venue=venue)),
            "voids": reads.void_rounds(venue),
            "silent": reads.sites_in_trouble(venue),
        }
    return show(
        request,
        "console/overview.html",
        "Overview",
        context,
        fragment="console/overview_now.html",
    )


@operator_only
def pulse(request: HttpRequest) -> HttpResponse:
    """The dot in the header: does the broker itself live?"""
    health = reads.health(now=timezone.now(), gap_s=settings.PULSE_GAP_S)
    fragment = "console/parts/dot.html"
    return show(request, fragment, "Pulse", {"health": health}, fragment=fragment)


@operator_only
def audit(request: HttpRequest) -> HttpResponse:
    """Who did what, when, and why."""
    asked = {key: request.GET.get(key, "").strip() for key in ("subject", "actor", "q")}
    page = page_of(request, events_found(**asked))
    return show(
        request,
        "console/audit.html",
        "Audit log",
        {"page": page, "asked": asked, "subjects": SUBJECTS},
    )


@operator_only
def find(request: HttpRequest, subject: str, subject_id: str) -> HttpResponse:
    """From a line of the audit log to the page of what it is about."""
    try:
        return HttpResponseRedirect(_address(subject, subject_id))
    except (KeyError, ValueError, ValidationError, ObjectDoesNotExist):
        raise Http404(f"There is no page for {subject} {subject_id}.") from None


def _address(subject: str, subject_id: str) -> str:
    if subject == "contract":
        contract = Contract.objects.get(pk=subject_id)
        return f"{reverse('console-lease', args=[contract.lease_id])}#contract-{contract.pk}"
    model, page, key = PAGES[subject]
    row = model._default_manager.get(pk=subject_id)
    return reverse(page, args=[getattr(row, key)])
