"""Every change of state goes through here: the conditional update and its line in the story."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Model

from federation.machines import contract, job, lease, offer, round, site
from federation.machines.base import Machine
from federation.models import Event

MACHINES: dict[str, Machine[Any]] = {
    m.name: m
    for m in (
        contract.MACHINE,
        job.MACHINE,
        lease.MACHINE,
        offer.MACHINE,
        round.MACHINE,
        site.MACHINE,
    )
}
BROKER = "broker"


def move(
    row: Model,
    event: str,
    *,
    now: datetime,
    actor: str = BROKER,
    code: str = "",
    why: str = "",
    **fields: Any,
) -> bool:
    """Advance `row` by `event` and set `fields`, unless another worker was first.

    Returns False, with nothing written, when the row is no longer in the state it was read in.
    Raises InvalidTransition when the machine has no such move from that state.
    """
    name = type(row).__name__.lower()
    before = row.state  # type: ignore[attr-defined]
    machine = MACHINES[name]
    after = machine.advance(machine.states(before), event)
    won = (
        type(row)
        ._default_manager.filter(pk=row.pk, state=before)
        .update(state=after.value, **fields)
    )
    if not won:
        return False
    row.state = after.value  # type: ignore[attr-defined]
    for key, value in fields.items():
        setattr(row, key, value)
    if before != after.value or code:
        tell(
            name,
            row.pk,
            event,
            now=now,
            actor=actor,
            from_state=before,
            to_state=after.value,
            code=code,
            why=why,
        )
    return True


def allows(row: Model, event: str) -> bool:
    """True when the row's state, as read, knows `event`."""
    machine = MACHINES[type(row).__name__.lower()]
    return (machine.states(row.state), event) in machine.transitions  # type: ignore[attr-defined]


def tell(
    subject: str,
    subject_id: object,
    event: str,
    *,
    now: datetime,
    actor: str = BROKER,
    from_state: str = "",
    to_state: str = "",
    code: str = "",
    why: str = "",
) -> None:
    """Write one line of an object's story."""
    Event.objects.create(
        at=now,
        subject=subject,
        subject_id=str(subject_id),
        actor=actor[:100],
        event=event,
        from_state=from_state,
        to_state=to_state,
        code=code[:64],
        why=why[:1000],
    )
