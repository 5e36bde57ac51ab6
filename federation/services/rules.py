"""Write side of a venue's rules: versions that succeed each other, previews, consents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.db import transaction

from federation.errors import BadInput, FieldProblem, Refused
from federation.models import Consent, Event, Member, Rules, Venue
from federation.money import MAX_MICRO
from federation.selectors.rules import (
    FIELDS,
    Preview,
    bond_micro,
    bond_rates,
    digest,
    rules_compared,
    rules_newest,
    rules_values,
)
from federation.services.story import BROKER, tell

__all__ = [
    "bond_micro",
    "bond_rates",
    "consent_give",
    "rules_of",
    "rules_preview",
    "rules_set",
]

PREVIEW_FRESH = timedelta(minutes=30)  #: how long a preview may be acted on
MAX_SECONDS = 366 * 86400.0
_SECONDS = ("window_s", "start_allowance_s")


def rules_of(venue: Venue, now: datetime) -> Rules:
    """The rules that stand in a venue; its first version, of defaults, when it has none."""
    newest = rules_newest(venue)
    if newest is not None:
        return newest
    why = "The first version: the defaults."
    with transaction.atomic():
        first, made = Rules.objects.get_or_create(
            venue=venue,
            version=1,
            defaults={"actor": BROKER, "why": why, "created_at": now},
        )
        if made:  # by this worker, not by another at the same moment
            tell("venue", venue.pk, "rules_first", now=now, why=why)
    return rules_newest(venue) or first


def rules_preview(
    *, venue: Venue, changes: Mapping[str, Any], now: datetime, actor: str = BROKER
) -> Preview:
    """What the last settled contracts would have paid under changed rules.

    That it was shown stands in the venue's story; only then may `rules_set` make the change.
    Raises BadInput for a change that makes no sense.
    """
    standing = rules_of(venue, now)
    changed = _changed(standing, changes, now)
    preview = rules_compared(venue, standing, changed, now)
    tell(
        "venue",
        venue.pk,
        "rules_preview",
        now=now,
        actor=actor,
        code=preview.sha256,
        why=_question(standing, changed),
    )
    return preview


def rules_set(
    *,
    venue: Venue,
    changes: Mapping[str, Any],
    preview_sha256: str,
    why: str,
    actor: str,
    now: datetime,
) -> Rules:
    """Make the next version of a venue's rules; contracts keep the version they were made under.

    Raises BadInput for a change that makes no sense, Refused("preview_needed") unless a preview
    of exactly this change to the rules that stand, with this digest, was shown lately.
    """
    if not 1 <= len(why.strip()) <= 300:
        raise BadInput(FieldProblem("why", "a reason of at most 300 characters"))
    with transaction.atomic():
        Venue.objects.select_for_update().get(pk=venue.pk)
        standing = rules_of(venue, now)
        changed = _changed(standing, changes, now)
        shown = Event.objects.filter(
            subject="venue",
            subject_id=str(venue.pk),
            event="rules_preview",
            code=preview_sha256,
            why=_question(standing, changed),
            at__gt=now - PREVIEW_FRESH,
        )
        if not preview_sha256 or not shown.exists():
            raise Refused(
                "See a preview of this change first, and name its digest; it holds for "
                f"{PREVIEW_FRESH // timedelta(minutes=1)} minutes.",
                code="preview_needed",
            )
        changed.actor, changed.why, changed.preview_sha256 = actor[:100], why, preview_sha256
        changed.save(force_insert=True)
        tell(
            "venue",
            venue.pk,
            "rules_set",
            now=now,
            actor=actor,
            code=preview_sha256,
            why=(f"Version {changed.version}: {_told(standing, changed)}. {why}"),
        )
    return changed


def consent_give(*, rules: Rules, member: Member, actor: str, now: datetime) -> Consent:
    """A member agrees to the rules that stand. A repeat changes nothing."""
    newest = rules_newest(rules.venue)
    if newest is not None and newest.pk != rules.pk:
        raise Refused(
            f"Version {newest.version} stands by now; agree to that.", code="superseded_rules"
        )
    with transaction.atomic():
        consent, made = Consent.objects.get_or_create(
            rules=rules, member=member, defaults={"actor": actor[:100], "created_at": now}
        )
        if made:
            why = f"{member.name} agrees to version {rules.version} of the rules."
            tell("venue", rules.venue_id, "consent", now=now, actor=actor, why=why)
    return consent


def _changed(standing: Rules, changes: Mapping[str, Any], now: datetime) -> Rules:
    """The version after `standing`, not saved. Raises BadInput with all that is wrong."""
    problems = [p for name, value in changes.items() if (p := _problem(name, value)) is not None]
    if problems:
        raise BadInput(*problems)
    values = {**rules_values(standing), **changes}
    changed = Rules(
        **{**values, **{name: float(values[name]) for name in _SECONDS}},
        venue=standing.venue,
        version=standing.version + 1,
        actor=BROKER,
        why="a preview",
        created_at=now,
    )
    if rules_values(changed) == rules_values(standing):
        raise BadInput(FieldProblem("changes", "nothing changes"))
    try:
        changed.full_clean(exclude=["venue"], validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        raise BadInput(
            *(FieldProblem(name, " ".join(words)) for name, words in error.message_dict.items())
        ) from None
    return changed


def _problem(name: str, value: Any) -> FieldProblem | None:
    """What is wrong with a value before its range is looked at."""
    if name not in FIELDS:
        return FieldProblem(name, "is no rule", "unknown_field")
    if name == "time_zone":
        return None if _is_zone(value) else FieldProblem(name, "a time zone, as Europe/Berlin")
    if name == "price_caps":
        return None if _are_caps(value) else FieldProblem(name, "GPU kind: micro-credits, whole")
    if isinstance(value, bool):
        return FieldProblem(name, "a number is expected")
    if name in _SECONDS:  # NaN is not within any range
        fits = isinstance(value, int | float) and 0 <= value <= MAX_SECONDS
        return None if fits else FieldProblem(name, "seconds, at most a year")
    return None if isinstance(value, int) else FieldProblem(name, "a whole number is expected")


def _is_zone(name: Any) -> bool:
    if not isinstance(name, str) or not name:
        return False
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # not found, or no name at all
        return False
    return True


def _are_caps(caps: Any) -> bool:
    return isinstance(caps, dict) and all(
        isinstance(kind, str)
        and 1 <= len(kind) <= 63
        and isinstance(cap, int)
        and not isinstance(cap, bool)
        and 0 < cap <= MAX_MICRO
        for kind, cap in caps.items()
    )


def _question(standing: Rules, changed: Rules) -> str:
    """One text for one change to one version: what a preview's digest is held against."""
    asked = digest({"version": standing.version, "values": rules_values(changed)})
    return f"Of version {standing.version}: {_told(standing, changed)}"[:900] + f" ({asked})"


def _told(standing: Rules, changed: Rules) -> str:
    return ", ".join(
        f"{name} {getattr(standing, name)} → {getattr(changed, name)}"
        for name in FIELDS
        if getattr(standing, name) != getattr(changed, name)
    )
