"""Reads of epochs: what the market paid, what the dividend moves, and who has agreed."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from federation.models import Consent, Epoch, Venue
from federation.money import as_text


def epochs_of(venue: Venue) -> QuerySet[Epoch]:
    """A venue's epochs, newest first."""
    return Epoch.objects.filter(venue=venue).select_related("rules", "venue").order_by("-number")


def epoch_shown(epoch: Epoch) -> dict[str, Any]:
    """An epoch with a line for each member that it touches."""
    agreed = set(Consent.objects.filter(rules=epoch.rules).values_list("member__name", flat=True))
    moved = epoch.document["transfers_micro"]
    return {
        "number": epoch.number,
        "state": epoch.state.upper(),
        "starts_at": epoch.starts_at,
        "ends_at": epoch.ends_at,
        "rounds": epoch.rounds,
        "rules": epoch.rules.version,
        "alpha": epoch.rules.alpha_ppm / 1e6,
        "sha256": epoch.sha256,
        "why": epoch.why,
        "members": [
            {
                "member": row["site"],
                "market": as_text(round(row["market"] * 1e6)),
                "nucleolus": as_text(round(row["nucleolus"] * 1e6)),
                "dividend": as_text(int(moved.get(row["site"], 0))),
                "agreed": row["site"] in agreed,
            }
            for row in epoch.document["sites"]
        ],
        "document": epoch.document,
    }
