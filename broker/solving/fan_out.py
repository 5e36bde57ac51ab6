"""The crew of a round: parts on record for whoever is free, handed out as one Celery group."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from django.utils import timezone

from federation.services.parts import (
    file_put,
    files_drop,
    part_put,
    part_take,
    parts_drop,
    parts_offer,
    parts_results,
)


class FanOut:
    """Parts of one errand about a round, shared between this worker and all others.

    This worker never only waits: what nobody has taken yet it takes itself. So one worker alone
    computes everything, in order, and a part whose worker was killed comes back after `limit_s`.
    """

    def __init__(
        self,
        round_id: UUID,
        *,
        limit_s: float,
        hand_out: Callable[[list[UUID]], None],
        study_id: UUID | None = None,
    ) -> None:
        self._round_id = round_id
        self._study_id = study_id
        self._limit_s = limit_s
        self._hand_out = hand_out
        self._token = uuid.uuid4()
        self._parts: list[UUID] = []
        self._files: list[str] = []

    def open(self, name: str, bodies: list[bytes], files: Sequence[Path]) -> None:
        """Put the parts on record and hand them out; a file is put on record once."""
        now = timezone.now()
        for path in files:
            if path.name not in self._files:
                file_put(round_id=self._round_id, name=path.name, body=path.read_bytes(), now=now)
                self._files.append(path.name)
        self._parts = parts_offer(
            round_id=self._round_id,
            name=name,
            bodies=bodies,
            files=[path.name for path in files],
            now=now,
            of=self._study_id,
        )
        self._hand_out(self._parts)

    def take(self) -> int | None:
        """The last part that is free: other workers begin with the first."""
        part = part_take(
            parts=self._parts[::-1],
            token=self._token,
            limit_s=self._limit_s,
            now=timezone.now(),
        )
        return None if part is None else self._parts.index(part)

    def put(self, position: int, result: bytes) -> None:
        """Keep a result. Another worker that had the part by then has computed the same."""
        part_put(part=self._parts[position], token=self._token, result=result, now=timezone.now())

    def results(self) -> list[bytes] | None:
        """All results in order, or None while some are missing."""
        return parts_results(parts=self._parts)

    def close(self) -> None:
        """Forget the parts; their files may be wanted again by the same round."""
        parts_drop(parts=self._parts)
        self._parts = []

    def leave(self) -> None:
        """Forget everything: the round is decided."""
        self.close()
        files_drop(round_id=self._round_id, names=self._files)
