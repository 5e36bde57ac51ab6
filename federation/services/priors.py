"""Speeds of pairs that nobody measured, made again when what they are learnt from has changed.

Offline and in turns: one run makes the priors of some classes, in the order of their ids (those
that list operators by their owner), and remembers how far it came. Rounds read what is stored and
never wait for it. A class that nothing can be made of is left out, with why, and the next ones have
their turn. Docs: "Speeds before the first measurement".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from federation.affinity.coldstart.blend import Prior
from federation.affinity.coldstart.profile import BadProfile, read_profile
from federation.affinity.coldstart.tables import Row
from federation.affinity.coldstart.voices import Asked, Voices, listen
from federation.bulk import rows_insert
from federation.errors import BadInput, FieldProblem, NotAllowed
from federation.models import JobClass, Member, PriorAffinity, PriorStudy
from federation.selectors.prior_inputs import NETWORKS, Cell, PriorInputs, prior_inputs
from federation.services.story import tell

CELLS_AT_ONCE = 20_000  #: priors of one run
NAMES_AT_ONCE = 400  #: gang sizes of classes that completion is asked about in one run
TIMES_AT_ONCE = 9_000  #: timings of operators that one run learns from, of all teachers
PRIOR = ("pool_id", "job_class_id", "gpus", "log_mean", "log_sd", "source", "n", "made_at")


@dataclass(frozen=True, slots=True)
class PriorsMade:
    """What one run did."""

    classes: int
    cells: int  #: priors stored
    left: int  #: classes that the next runs have to do
    #: classes that get none, and voices that are silent, each with why: for operators
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Made:
    """What was made of a block of classes."""

    rows: list[tuple[object, ...]]
    left_out: list[tuple[str, str]]


def profile_set(
    *, job_class: JobClass, profile: object, by: Member | None, actor: str, now: datetime
) -> JobClass:
    """Say what is known of a class before anybody runs it; all of it at once, {} = nothing.

    `by`: the member that asks, None = an operator. Raises NotAllowed for a class of another member
    or of the federation, BadInput with one problem for each field that does not fit, and for one
    list of operators more than a member's classes may hold.
    """
    if by is not None and job_class.owner_id != by.pk:
        raise NotAllowed(
            f"The profile of {job_class} is set by its owner and by operators.", code="not_owner"
        )
    try:
        read_profile(profile)
    except BadProfile as refused:
        raise BadInput(*(FieldProblem(p.path, p.why) for p in refused.problems[:50])) from None
    with transaction.atomic():
        stored = JobClass.objects.select_for_update(of=("self",)).get(pk=job_class.pk)
        if stored.profile != profile:
            _check_lists(stored, profile)
            stored.profile = profile
            stored.save(update_fields=["profile"])
            said = ", ".join(sorted(stored.profile)) or "nothing"
            tell("class", stored.pk, "profile", now=now, actor=actor, why=f"it says {said}")
    return stored


def _check_lists(job_class: JobClass, profile: object) -> None:
    """A member's lists of operators are as many as are learnt from: each costs every run."""
    if job_class.owner_id is None or not (isinstance(profile, dict) and "operators" in profile):
        return
    Member.objects.select_for_update().get(pk=job_class.owner_id)  # one list after another
    others = JobClass.objects.filter(owner=job_class.owner_id, profile__has_key="operators")
    if others.exclude(pk=job_class.pk).count() >= NETWORKS:
        why = f"{NETWORKS} of its owner's classes list theirs, which is the most: clear one first"
        raise BadInput(FieldProblem("operators", why))


def priors_refit(*, now: datetime, table: Sequence[Row] = ()) -> PriorsMade | None:
    """Make the priors of the next classes anew; None when nothing has changed since the last.

    A prior is made for each pool on offer and each gang size that waiting jobs or offers name,
    unless the cell is claimed or has leases enough. `table`: speeds that were measured elsewhere;
    it is part of what may have changed.
    """
    study, _ = PriorStudy.objects.get_or_create(pk=1)
    inputs = prior_inputs(table)
    left = study.left if inputs.digest == study.digest else len(inputs.profiles)
    block = _block(inputs, study.reached, left)
    if not block:
        return None
    made = _priors(inputs, block, table, now)
    left -= len(block)
    with transaction.atomic():
        kept = PriorStudy.objects.filter(pk=study.pk, version=study.version).update(
            digest=inputs.digest,
            reached=UUID(block[-1]),
            left=left,
            version=study.version + 1,
            made_at=now,
        )
        if not kept:
            return None  # another worker was first
        PriorAffinity.objects.filter(job_class__in=map(UUID, block)).delete()
        rows_insert(PriorAffinity, PRIOR, made.rows)
    return PriorsMade(len(block), len(made.rows), left, tuple(made.left_out))


def _block(inputs: PriorInputs, reached: UUID | None, left: int) -> list[str]:
    """The next classes, as many as one run can do: after the one reached, round and round."""
    every = sorted((_with_whom(inputs, name), name) for name in inputs.profiles)
    last = (_with_whom(inputs, str(reached)), str(reached))
    start = sum(place <= last for place in every) if reached else 0
    turn = [name for _, name in every[start:] + every[:start]][:left]
    families, found, cells, names = inputs.families, list[str](), 0, 0
    taught, times = set[tuple[str, ...]](), 0
    for name in turn:
        sizes = len(inputs.sizes.get(name, (1,)))
        cells += sizes * len(inputs.pools)
        names += sizes if inputs.family(name) in families else 0
        teachers = inputs.teachers(name)
        if teachers not in taught:
            taught.add(teachers)
            times += sum(inputs.profiles[one].times for one in teachers)
        full = cells > CELLS_AT_ONCE or names > NAMES_AT_ONCE or times > TIMES_AT_ONCE
        if found and full:
            break
        found.append(name)
    return found


def _with_whom(inputs: PriorInputs, name: str) -> str:
    """Whose classes it has its turn with: its operators are learnt once for those of one owner."""
    profile = inputs.profiles.get(name)
    return inputs.owners.get(name, "") if profile is not None and profile.operators else ""


def _priors(
    inputs: PriorInputs, block: Sequence[str], table: Sequence[Row], now: datetime
) -> _Made:
    """Rows of the priors of some classes, and what is left out of them."""
    made = _Made([], [(name, inputs.refused[name]) for name in block if name in inputs.refused])
    wanted = {name: cells for name in block if (cells := inputs.wanted(name))}
    if not wanted:
        return made
    try:
        voices = _voices(inputs, block, table)
    except Exception as error:  # noqa: BLE001 - the next classes have their turn whatever it was
        made.left_out.extend((name, repr(error)) for name in wanted)
        return made
    made.left_out.extend(("", why) for why in voices.silent)
    try:
        made.rows.extend(_rows(voices, (one for cells in wanted.values() for one in cells), now))
    except Exception:  # noqa: BLE001 - found by trying each class by itself
        _add_each(made, voices, wanted, now)
    return made


def _add_each(
    made: _Made, voices: Voices, wanted: dict[str, list[tuple[Cell, Asked]]], now: datetime
) -> None:
    """Rows class by class; one that they cannot be made of is left out, with why."""
    for name, cells in wanted.items():
        try:
            made.rows.extend(_rows(voices, cells, now))
        except Exception as error:  # noqa: BLE001 - told to operators
            made.left_out.append((name, repr(error)))


def _rows(
    voices: Voices, wanted: Iterable[tuple[Cell, Asked]], now: datetime
) -> list[tuple[object, ...]]:
    cells = list(wanted)
    priors: Sequence[Prior | None] = voices.priors([asked for _, asked in cells])
    return [
        (*cell, said.log_mean, said.log_sd, said.source, said.n, now)
        for (cell, _), said in zip(cells, priors, strict=True)
        if said is not None
    ]


def _voices(inputs: PriorInputs, block: Sequence[str], table: Sequence[Row]) -> Voices:
    families = inputs.families
    asked = [
        (name, gpus)
        for name in block
        if inputs.family(name) in families
        for gpus in inputs.sizes.get(name, (1,))
    ]
    teachers = {name: own for name in block if (own := inputs.teachers(name))}
    return listen(
        inputs.profiles, inputs.learnt(block), asked=asked, table=table, teachers=teachers
    )
