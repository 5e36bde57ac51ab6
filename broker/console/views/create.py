"""Registering what is new: one small form each, one service behind each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from broker.console.access import actor_of, operator_only
from broker.console.forms import ClassForm, MemberForm, SiteForm, TenantForm
from broker.console.pages import back, save, show
from federation.services import members


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be created here."""

    form: type[forms.Form]
    service: Callable[..., Any]
    title: str
    say: str  #: what the thing is, above the form
    page: str  #: where its own page is
    parent: tuple[str, str]


MEMBERS = ("console-members", "Members and tenants")
KINDS = {
    "member": Kind(
        MemberForm,
        members.member_create,
        "New member",
        "An organisation that takes part: it owns sites, tenants, or both.",
        "console-member",
        MEMBERS,
    ),
    "tenant": Kind(
        TenantForm,
        members.tenant_create,
        "New tenant",
        "Who submits jobs and pays for them. Deposit funds and issue an API token next.",
        "console-tenant",
        MEMBERS,
    ),
    "site": Kind(
        SiteForm,
        members.site_create,
        "New site",
        "One datacenter with an agent. Issue its join token next.",
        "console-site",
        ("console-sites", "Sites"),
    ),
    "class": Kind(
        ClassForm,
        members.class_create,
        "New job class",
        "What runs, as far as speed goes. Offers state how fast each site runs a class.",
        "console-class",
        MEMBERS,
    ),
}


@operator_only
def create(request: HttpRequest, kind: str) -> HttpResponse:
    """Show the form, or register what it says."""
    what = KINDS[kind]
    form = what.form(request.POST or None)
    if request.method == "POST" and form.is_valid():
        row = save(
            form,
            lambda: what.service(**form.cleaned_data, actor=actor_of(request), now=timezone.now()),
        )
        if row is not None:
            messages.success(request, f"{row.name} is registered.")
            return back(what.page, row.name)
    name, words = what.parent
    return show(
        request,
        "console/create.html",
        what.title,
        {"form": form, "say": what.say, "cancel": reverse(name)},
        trail=((reverse(name), words),),
    )
