"""Parts of a round that is being decided, offered to other workers. Who waits takes what is left.

Neither side depends on the other: a part that no worker takes, or whose worker dies, is computed
by the one that waits. So one worker alone never waits for itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q

from federation.models import Round, Study
from federation.services.studies import Question, studies_request

ACTOR = "broker"


def file_put(*, round_id: UUID, name: str, body: bytes, now: datetime) -> None:
    """Put a file that parts share on record; its name is given by its content."""
    Study.objects.bulk_create(
        [
            Study(
                round_id=round_id,
                kind=Study.Kind.FILE,
                state=Study.State.DONE,
                digest=name,
                payload=body,
                requested_by=ACTOR,
                due_at=now,
                created_at=now,
            )
        ],
        ignore_conflicts=True,
    )


def file_read(*, round_id: UUID, name: str) -> bytes:
    """A file that parts share. Raises Study.DoesNotExist when its round is decided."""
    return bytes(
        Study.objects.get(round_id=round_id, kind=Study.Kind.FILE, digest=name).payload or b""
    )


def files_drop(*, round_id: UUID, names: Sequence[str]) -> None:
    """Forget the files of a round that is decided."""
    Study.objects.filter(round_id=round_id, kind=Study.Kind.FILE, digest__in=names).delete()


def parts_offer(
    *,
    round_id: UUID,
    name: str,
    bodies: Sequence[bytes],
    files: Sequence[str],
    now: datetime,
    of: UUID | None = None,
) -> list[UUID]:
    """Put parts on record; the bodies stay in the database, a message names the row.

    `files`: none, or for each part the file on record that it reads. `of`: the study that they
    are parts of, for those who look how far it is.
    """
    batch = uuid.uuid4().hex
    made = studies_request(
        round=Round.objects.get(pk=round_id),
        kind=Study.Kind.PART,
        questions=[
            Question(
                {
                    "name": name,
                    "batch": batch,
                    "position": position,
                    "of": "" if of is None else str(of),
                    "files": [files[position]] if files else [],
                },
                payload=body,
            )
            for position, body in enumerate(bodies)
        ],
        actor=ACTOR,
        now=now,
    )
    return [study.pk for study in made]


def part_take(*, parts: Sequence[UUID], token: UUID, limit_s: float, now: datetime) -> UUID | None:
    """A part that nobody computes now, in the order given; None while others have the rest."""
    lost = Q(state=Study.State.RUNNING, due_at__lt=now)
    free = Q(state__in=[Study.State.PENDING, Study.State.FAILED]) | lost
    waiting = set(Study.objects.filter(free, pk__in=parts).values_list("pk", flat=True))
    for part in parts:
        if part in waiting and Study.objects.filter(free, pk=part).update(
            state=Study.State.RUNNING, token=token, due_at=now + timedelta(seconds=limit_s)
        ):
            return part
    return None


def part_put(*, part: UUID, token: UUID, result: bytes, now: datetime) -> bool:
    """Keep the result of a part that was taken; False when another worker has it now."""
    return bool(
        Study.objects.filter(pk=part, token=token).update(
            state=Study.State.DONE, result=result, token=None, finished_at=now
        )
    )


def parts_results(*, parts: Sequence[UUID]) -> list[bytes] | None:
    """The results in the order given, or None while some are missing."""
    rows = Study.objects.filter(pk__in=parts, state=Study.State.DONE)
    if rows.count() < len(parts):
        return None
    found = dict(rows.values_list("pk", "result"))
    return [bytes(found[part] or b"") for part in parts]


def parts_drop(*, parts: Sequence[UUID]) -> None:
    """Forget parts whose results are in, or not wanted any more."""
    Study.objects.filter(pk__in=parts).delete()
