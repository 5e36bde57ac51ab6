"""Members, tenants and job classes."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from broker.console.access import actor_of, operator_only
from broker.console.forms import DepositForm, TokenForm
from broker.console.pages import back, save, show
from federation.models import JobClass, MeasuredAffinity, Member, Site, Tenant
from federation.money import to_micro
from federation.selectors import console_ledger as reads
from federation.selectors.console_jobs import story_of
from federation.services.access import tenant_token_issue
from federation.services.ledger import deposit


@operator_only
def members(request: HttpRequest) -> HttpResponse:
    """Who takes part."""
    context = {
        "members": reads.members_found(),
        "tenants": reads.tenants_found(),
        "classes": reads.classes_found(),
    }
    return show(request, "console/members.html", "Members and tenants", context)


def _trail() -> tuple[str, str]:
    return reverse("console-members"), "Members and tenants"


@operator_only
def member_page(request: HttpRequest, name: str) -> HttpResponse:
    member = get_object_or_404(Member, name=name)
    context = {
        "member": member,
        "sites": Site.objects.filter(member=member).select_related("venue"),
        "tenants": reads.tenants_found().filter(member=member),
        "accounts": reads.accounts_all().filter(member=member),
        "users": member.users.order_by("username"),
        "story": story_of("member", member.pk),
    }
    return show(request, "console/member.html", member.name, context, trail=(_trail(),))


@operator_only
def class_page(request: HttpRequest, name: str) -> HttpResponse:
    job_class = get_object_or_404(JobClass.objects.select_related("owner"), name=name)
    measured = MeasuredAffinity.objects.filter(job_class=job_class).select_related("pool__site")
    context = {
        "job_class": job_class,
        "measured": measured.order_by("pool__site__name", "pool__name", "gpus"),
        "profile": [
            (key, f"{len(value)} rows" if isinstance(value, list) else value)
            for key, value in sorted(job_class.profile.items())
        ],
        "states": reads.jobs_by_state(job_class=job_class),
        "story": story_of("class", job_class.pk),
    }
    return show(request, "console/class.html", job_class.name, context, trail=(_trail(),))


@operator_only
def tenant_page(request: HttpRequest, name: str) -> HttpResponse:
    return _tenant_page(request, _tenant(name))


def _tenant(name: str) -> Tenant:
    return get_object_or_404(Tenant.objects.select_related("member"), name=name)


def _tenant_page(request: HttpRequest, tenant: Tenant, **more: Any) -> HttpResponse:
    context = {
        "tenant": tenant,
        "accounts": reads.accounts_all().filter(tenant=tenant),
        "tokens": reads.tokens_of(tenant),
        "states": reads.jobs_by_state(tenant=tenant),
        "story": story_of("tenant", tenant.pk),
        "deposit_form": DepositForm.fresh(),
        "token_form": TokenForm(),
        **more,
    }
    response = show(request, "console/tenant.html", tenant.name, context, trail=(_trail(),))
    if "secret" in more:
        response["Cache-Control"] = "no-store"
    return response


@operator_only
@require_POST
def tenant_deposit(request: HttpRequest, name: str) -> HttpResponse:
    """Give a tenant funds. The form's key makes a second press of the button harmless."""
    tenant, form = _tenant(name), DepositForm(request.POST)
    if not form.is_valid():
        return _tenant_page(request, tenant, deposit_form=form)
    asked = form.cleaned_data
    posted = save(
        form,
        lambda: deposit(
            tenant=tenant,
            venue=asked["venue"],
            amount_micro=to_micro(asked["amount"]),
            key=str(asked["key"]),
            actor=actor_of(request),
            now=timezone.now(),
        ),
    )
    if form.errors:
        return _tenant_page(request, tenant, deposit_form=form)
    if posted:
        messages.success(
            request, f"{asked['amount']:,} credits are on the account of {tenant.name}."
        )
    else:
        messages.info(request, "This deposit was posted already; nothing was added.")
    return back("console-tenant", tenant.name)


@operator_only
@require_POST
def tenant_token(request: HttpRequest, name: str) -> HttpResponse:
    """An API token for a tenant, shown on this answer and nowhere else."""
    tenant, form = _tenant(name), TokenForm(request.POST)
    if not form.is_valid():
        return _tenant_page(request, tenant, token_form=form)
    secret = save(
        form,
        lambda: tenant_token_issue(
            tenant=tenant,
            actor=actor_of(request),
            days=form.cleaned_data["days"],
            now=timezone.now(),
        ),
    )
    if secret is None:
        return _tenant_page(request, tenant, token_form=form)
    url = request.build_absolute_uri("/").rstrip("/")
    return _tenant_page(request, tenant, secret=secret, broker_url=url)
