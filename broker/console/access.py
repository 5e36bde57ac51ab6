"""Who may see the console: operators, that is, staff. Everybody else is told so."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.views.decorators.cache import never_cache
from django_htmx.http import HttpResponseClientRedirect

View = Callable[..., HttpResponse]
LOGIN = "admin:login"


def operator_only(view: View) -> View:
    """Anonymous callers go to the login, others than staff get 403. Nothing here is cached."""

    @wraps(view)
    @never_cache
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            if request.htmx:  # type: ignore[attr-defined]
                return HttpResponseClientRedirect(resolve_url(LOGIN))
            return redirect_to_login(request.get_full_path(), resolve_url(LOGIN))
        if not (request.user.is_active and request.user.is_staff):
            raise PermissionDenied("The console is for operators.")
        return view(request, *args, **kwargs)

    return guarded


def actor_of(request: HttpRequest) -> str:
    """How the caller is named in stories."""
    return f"user:{request.user.get_username()}"
