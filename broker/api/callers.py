"""Whom a token acts for: an operator, a member, a tenant. The services are told, and decide."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request

from federation.errors import NotAllowed, NotFound
from federation.models import Member, Round, User
from federation.services.members import MAIN_VENUE


def actor(request: Request) -> str:
    """How the caller stands in the audit log."""
    return f"user:{request.user.get_username()}"


def operator(request: Request) -> User:
    """The operator who calls. Raises NotAllowed."""
    user: Any = request.user
    if not (isinstance(user, User) and user.is_staff):
        raise NotAllowed("Only operators of the federation may do this.", code="not_an_operator")
    return user


def caller_member(request: Request) -> Member:
    """The member that the caller acts for itself, not through a tenant. Raises NotAllowed."""
    user: Any = request.user
    if isinstance(user, User) and user.member is not None and user.tenant is None:
        return user.member
    raise NotAllowed("This account acts for no member.", code="no_member")


def round_numbered(number: int) -> Round:
    """A round of the federation's venue. Raises NotFound."""
    rows = Round.objects.filter(venue__name=MAIN_VENUE, number=number).defer("clearing")
    round = rows.select_related("venue").first()
    if round is None:
        raise NotFound("There is no such round.")
    return round
