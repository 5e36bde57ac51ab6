"""Overview, the header's dot and the audit log."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from broker.console.access import operator_only
from broker.console.pages import page_of, show
from federation.models import Venue
from federation.selectors import console_overview as reads
from federation.selectors.console_ledger import events_found
from federation.selectors.console_sites import site_rows, sites_found

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
