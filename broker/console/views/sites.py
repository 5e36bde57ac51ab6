"""Sites, one site, its offers, and what an operator may do to it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from broker.console.access import actor_of, operator_only
from broker.console.forms import ReasonForm, RevokeForm
from broker.console.pages import act, back, show
from federation.machines.site import SiteState
from federation.models import AgentCredential, JoinToken, Offer, Site
from federation.selectors import console_sites as reads
from federation.selectors.admission import refusals_at
from federation.selectors.console_jobs import story_of
from federation.services.access import credentials_revoke, join_token_issue
from federation.services.story import allows, tell
from federation.services.syncs import site_drain

OFF_BY = (0.8, 1.25)  #: measured / declared outside of this is marked


@operator_only
def sites(request: HttpRequest) -> HttpResponse:
    """Are the sites alive and honest?"""
    context = {"rows": reads.site_rows(reads.sites_found()), "off_by": OFF_BY}
    return show(
        request, "console/sites.html", "Sites", context, fragment="console/sites_table.html"
    )


@operator_only
def site_page(request: HttpRequest, name: str) -> HttpResponse:
    return _site_page(request, _site(name))


def _site(name: str) -> Site:
    return get_object_or_404(Site.objects.select_related("member", "venue"), name=name)


def _site_page(request: HttpRequest, site: Site, **more: Any) -> HttpResponse:
    [row] = reads.site_rows([site])
    now = timezone.now()
    context = {
        "site": site,
        "row": row,
        "off_by": OFF_BY,
        "pools": reads.pools_of(row.offer),
        "speeds": reads.speeds_of(row.offer),
        "offers": reads.offers_of(site),
        "leases": reads.leases_at(site),
        "refusals": refusals_at(site.pk),
        "credentials": AgentCredential.objects.filter(site=site).order_by("-created_at")[:20],
        "tokens": JoinToken.objects.filter(site=site, used_at=None, expires_at__gt=now),
        "story": story_of("site", site.pk),
        "can_drain": allows(site, "drain"),
        "can_open": allows(site, "open"),
        "retired": site.state == SiteState.RETIRED,
        "reason_form": ReasonForm(auto_id="drain-%s"),
        "revoke_form": RevokeForm(site_name=site.name, auto_id="revoke-%s"),
        **more,
    }
    response = show(
        request,
        "console/site.html",
        site.name,
        context,
        trail=((reverse("console-sites"), "Sites"),),
    )
    if "secret" in more:
        response["Cache-Control"] = "no-store"
    return response


@operator_only
@require_POST
def site_state(request: HttpRequest, name: str) -> HttpResponse:
    """Drain a site, or open it again; the reason goes into its story."""
    site, form = _site(name), ReasonForm(request.POST, auto_id="drain-%s")
    if not form.is_valid():
        return _site_page(request, site, reason_form=form)
    drain = request.POST.get("to") == "drain"
    words = "takes nothing new from now on" if drain else "is open for new work"
    act(
        request,
        f"{site.name} {words}.",
        lambda actor, now: site_drain(
            site=site, actor=actor, why=form.cleaned_data["reason"], now=now, drain=drain
        ),
    )
    return back("console-site", site.name)


@operator_only
@require_POST
def site_join_token(request: HttpRequest, name: str) -> HttpResponse:
    """A new join token, shown on this answer and nowhere else."""
    site = _site(name)
    if site.state == SiteState.RETIRED:
        messages.error(request, f"{site.name} is retired; its agent cannot join.")
        return back("console-site", site.name)
    ttl_s = settings.JOIN_TOKEN_TTL_S
    secret = join_token_issue(site=site, actor=actor_of(request), ttl_s=ttl_s, now=timezone.now())
    return _site_page(
        request,
        site,
        secret=secret,
        ttl_s=ttl_s,
        broker_url=request.build_absolute_uri("/").rstrip("/"),
    )


@operator_only
@require_POST
def site_revoke(request: HttpRequest, name: str) -> HttpResponse:
    """Take all credentials of a site's agent back, after its name was typed."""
    site = _site(name)
    form = RevokeForm(request.POST, site_name=site.name, auto_id="revoke-%s")
    if not form.is_valid():
        return _site_page(request, site, revoke_form=form)
    actor, now = actor_of(request), timezone.now()
    with transaction.atomic():
        count = credentials_revoke(site=site, actor=actor, now=now)
        tell("site", site.pk, "reason", now=now, actor=actor, why=form.cleaned_data["reason"])
    words = "credential is" if count == 1 else "credentials are"
    messages.success(request, f"{count} {words} revoked; the agent of {site.name} is shut out.")
    return back("console-site", site.name)


@operator_only
def offer_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One version of a site's offer, as it was sent."""
    offer = get_object_or_404(Offer.objects.select_related("site__member"), pk=pk)
    context = {
        "offer": offer,
        "pools": offer.pools.select_related("pool__site").order_by("pool__name"),
        "affinities": offer.affinities.select_related("pool", "job_class").order_by(
            "pool__name", "job_class__name", "gpus"
        ),
        "story": story_of("offer", offer.pk),
    }
    trail = (
        (reverse("console-sites"), "Sites"),
        (reverse("console-site", args=[offer.site.name]), offer.site.name),
    )
    return show(request, "console/offer.html", f"Offer v{offer.version}", context, trail=trail)
