"""The sidebar, and the few files that every page of the shell loads."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

PAGES = (
    ("Market", (("Overview", "monitoring", "console-overview"),
                ("Rounds", "gavel", "console-rounds"),
                ("Jobs", "stacks", "console-jobs"),
                ("Sites", "dns", "console-sites"))),
    ("Money", (("Ledger", "account_balance", "console-ledger"),)),
    ("Federation", (("Members and tenants", "groups", "console-members"),
                    ("Audit log", "history", "console-audit"))),
)  # fmt: skip

RULES = (
    ("Venues and rules", "tune", "admin:federation_venue_changelist"),
    ("People", "person", "admin:federation_user_changelist"),
    ("All records", "database", "admin:index"),
)


def sections(request: HttpRequest) -> list[dict[str, Any]]:
    """Unfold's navigation: our pages first, then the stock admin for what is rare."""
    here = request.path
    groups = [_group(title, pages, here) for title, pages in PAGES]
    if request.user.is_superuser:
        groups.append(_group("Settings", RULES, here))
    return groups


def _group(title: str, pages: tuple[tuple[str, str, str], ...], here: str) -> dict[str, Any]:
    return {"title": title, "items": [_item(*page, here=here) for page in pages]}


def _item(title: str, icon: str, name: str, *, here: str) -> dict[str, Any]:
    link = reverse(name)
    exact = name in ("console-overview", "admin:index")
    return {
        "title": title,
        "icon": icon,
        "link": link,
        "active": here == link if exact else here.startswith(link),
    }


def favicon(request: HttpRequest) -> str:
    return static("console/favicon.svg")


def stylesheet(request: HttpRequest) -> str:
    return static("console/console.css")


def script(request: HttpRequest) -> str:
    return static("console/console.js")
