"""Which GPUs of a pool are free for a start, and which jobs hold some. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agents.attempt import Attempt
from agents.config import Pool


def free_slots(attempts: Iterable[Attempt], pool: Pool, *, room: int) -> tuple[int, ...]:
    """Numbers of the pool's GPUs that nobody holds: no more than leave `room` held in all."""
    held: set[int] = set()
    for attempt in attempts:
        if attempt.holds_gpus and attempt.order is not None and attempt.order.pool == pool.name:
            held.update(attempt.slots)
    rest = tuple(slot for slot in range(pool.gpus) if slot not in held)
    return rest[: max(0, room - len(held))]


def job_runs(attempts: Iterable[Attempt], job: str) -> bool:
    """Attempts of one job share a folder: the earlier must be gone before the next starts."""
    return any(
        other.holds_gpus and other.order is not None and other.order.spec.job == job
        for other in attempts
    )
