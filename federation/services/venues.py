"""Write side of venues: the policy that their rounds follow."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from federation.errors import BadInput, FieldProblem
from federation.models import Venue
from federation.policies import WORDS, policy_problems
from federation.services.story import tell


def venue_policy_set(
    *, venue: Venue, policy: str, parameters: Mapping[str, Any], actor: str, now: datetime
) -> Venue:
    """Choose a venue's policy, from the next book on. Raises BadInput with what is wrong."""
    if policy not in WORDS:
        raise BadInput(FieldProblem("policy", f"{policy} is none of {', '.join(WORDS)}"))
    problems = policy_problems(policy, parameters)
    if problems:
        raise BadInput(*problems)
    before = _told(venue)
    venue.policy, venue.policy_parameters = policy, dict(parameters)
    with transaction.atomic():
        venue.save(update_fields=["policy", "policy_parameters"])
        why = f"policy: {before} → {_told(venue)}"
        tell("venue", venue.pk, "change", now=now, actor=actor, why=why)
    return venue


def _told(venue: Venue) -> str:
    return f"{venue.policy} {venue.policy_parameters or ''}".strip()
