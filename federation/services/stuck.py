"""Steps that one row alone must not hold up: what it raises is logged, told once, and passed by."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from federation.errors import FederationError
from federation.models import Event
from federation.services.story import tell

log = logging.getLogger(__name__)
STUCK = "stuck"  #: event of the story of a row that a step could not deal with


@contextmanager
def going_on(subject: str, pk: UUID, step: str, now: datetime) -> Iterator[None]:
    """Do one step for one row, which has a transaction of its own; the next rows come after it.

    A refusal, or figures that make no sense, stand in the row's story until a person has seen to
    them: the step is tried again each time, and told again only when it fails otherwise. Faults of
    the database are raised, as they concern every row.
    """
    try:
        yield
    except (FederationError, ValueError) as error:
        log.warning("%s %s: cannot %s: %s", subject, pk, step, error)
        _tell_once(subject, pk, step, error, now)


def _tell_once(subject: str, pk: UUID, step: str, error: Exception, now: datetime) -> None:
    code = getattr(error, "code", "invalid")
    why = f"It could not {step}: {error}"[:1000]
    told = Event.objects.filter(subject=subject, subject_id=str(pk), event=STUCK, why=why)
    if not told.exists():
        tell(subject, pk, STUCK, now=now, code=code, why=why)
