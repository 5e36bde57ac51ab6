"""Reads of what is known of a class before anybody runs it."""

from __future__ import annotations

from typing import Any

from federation.errors import NotAllowed
from federation.models import JobClass, Member


def profile_seen(job_class: JobClass, by: Member | None) -> dict[str, Any]:
    """The profile of a class, as it was said.

    `by`: the member that asks, None = an operator. What a member says of its own class may show
    how its model is made: NotAllowed to other members.
    """
    owner = job_class.owner_id
    if by is not None and owner is not None and owner != by.pk:
        raise NotAllowed(
            f"The profile of {job_class} is seen by its owner and by operators.", code="not_owner"
        )
    profile: dict[str, Any] = job_class.profile
    return profile
