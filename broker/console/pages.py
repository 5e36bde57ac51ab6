"""What the views share: a page in the shell or its fragment, pages of a list, refusals as words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.dateparse import parse_date

from broker.console.access import actor_of
from federation.errors import BadInput, FederationError, InvalidTransition

ROWS = 50  #: rows on one page of a list
Refusals = (FederationError, InvalidTransition)


def show(
    request: HttpRequest,
    template: str,
    title: str,
    context: dict[str, Any],
    *,
    fragment: str | None = None,
    trail: tuple[tuple[str, str], ...] = (),
) -> HttpResponse:
    """A page inside the shell; its `fragment` alone when htmx asks for news of it."""
    if fragment and request.htmx:  # type: ignore[attr-defined]
        response: HttpResponse = TemplateResponse(request, fragment, context)
    else:
        shell = admin.site.each_context(request)
        page = {**shell, "title": title, "trail": trail, "fragment": fragment, **context}
        response = TemplateResponse(request, template, page)
    patch_vary_headers(response, ["HX-Request"])
    return response


def page_of(
    request: HttpRequest, rows: QuerySet[Any] | list[Any], *, key: str = "page"
) -> Page[Any]:
    """The page of `rows` that the query string asks for; the nearest one when there is no such."""
    page = Paginator(rows, ROWS).get_page(request.GET.get(key))
    page.key = key  # type: ignore[attr-defined]
    return page


def act(request: HttpRequest, done: str, call: Callable[[str, datetime], Any]) -> bool:
    """Run one service as this operator; its refusal becomes a message on the next page."""
    try:
        call(actor_of(request), timezone.now())
    except Refusals as refusal:
        messages.error(request, str(refusal))
        return False
    messages.success(request, done)
    return True


def save(form: Form, call: Callable[[], Any]) -> Any:
    """Run one service for a form; what it refuses stands beside the field it is about."""
    try:
        return call()
    except BadInput as refusal:
        for problem in refusal.problems:
            form.add_error(problem.path if problem.path in form.fields else None, problem.why)
    except Refusals as refusal:
        form.add_error(None, str(refusal))
    return None


def back(name: str, *args: Any) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse(name, args=args))


def day(request: HttpRequest, name: str) -> datetime | None:
    """A date of the query string as the moment it begins, in UTC; None when it is none."""
    try:
        date = parse_date(request.GET.get(name, ""))
    except ValueError:  # well formed, but no such day
        return None
    if date is None:
        return None
    return datetime(date.year, date.month, date.day, tzinfo=timezone.get_default_timezone())


def day_after(request: HttpRequest, name: str) -> datetime | None:
    """The end of a day named in the query string, exclusive."""
    begin = day(request, name)
    return begin + timedelta(days=1) if begin is not None else None
