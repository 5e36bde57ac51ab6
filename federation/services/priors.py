"""Speeds of pairs that nobody measured, made again when what they are learnt from has changed.

Offline and in turns: one run makes the priors of some classes, in the order of their ids, and
remembers how far it came. Rounds read what is stored and never wait for it. Docs: "Speeds before
the first measurement".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from federation.affinity.coldstart.profile import BadProfile, read_profile
from federation.affinity.coldstart.tables import Row
from federation.affinity.coldstart.voices import Voices, listen
from federation.bulk import rows_insert
from federation.errors import BadInput, FieldProblem, NotAllowed
from federation.models import JobClass, Member, PriorAffinity, PriorStudy
from federation.selectors.prior_inputs import PriorInputs, prior_inputs
from federation.services.story import tell

CELLS_AT_ONCE = 20_000  #: priors of one run
NAMES_AT_ONCE = 400  #: gang sizes of classes that completion is asked about in one run
PRIOR = ("pool_id", "job_class_id", "gpus", "log_mean", "log_sd", "source", "n", "made_at")


@dataclass(frozen=True, slots=True)
class PriorsMade:
    """What one run did."""

    classes: int
    cells: int  #: priors stored
    left: int  #: classes that the next runs have to do


def profile_set(
    *, job_class: JobClass, profile: object, by: Member | None, actor: str, now: datetime
) -> JobClass:
    """Say what is known of a class before anybody runs it; all of it at once, {} = nothing.

    `by`: the member that asks, None = an operator. Raises NotAllowed for a class of another member
    or of the federation, BadInput with one problem for each field that does not fit.
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
            stored.profile = profile
            stored.save(update_fields=["profile"])
            said = ", ".join(sorted(stored.profile)) or "nothing"
            tell("class", stored.pk, "profile", now=now, actor=actor, why=f"it says {said}")
    return stored


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
    rows = _priors(inputs, block, table, now)
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
        rows_insert(PriorAffinity, PRIOR, rows)
    return PriorsMade(len(block), len(rows), left)


def _block(inputs: PriorInputs, reached: UUID | None, left: int) -> list[str]:
    """The next classes, as many as one run can do: after the one reached, round and round."""
    every = sorted(inputs.profiles)
    start = sum(name <= str(reached) for name in every) if reached else 0
    turn = (every[start:] + every[:start])[:left]
    families, found, cells, names = inputs.families, list[str](), 0, 0
    for name in turn:
        sizes = len(inputs.sizes.get(name, (1,)))
        cells += sizes * len(inputs.pools)
        names += sizes if inputs.family(name) in families else 0
        if found and (cells > CELLS_AT_ONCE or names > NAMES_AT_ONCE):
            break
        found.append(name)
    return found


def _priors(
    inputs: PriorInputs, block: Sequence[str], table: Sequence[Row], now: datetime
) -> list[tuple[object, ...]]:
    """Rows of the priors of some classes."""
    wanted = [one for name in block for one in inputs.wanted(name)]
    if not wanted:
        return []
    voices = _voices(inputs, block, table)
    priors = voices.priors([asked for _, asked in wanted])
    return [
        (*cell, said.log_mean, said.log_sd, said.source, said.n, now)
        for (cell, _), said in zip(wanted, priors, strict=True)
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
    return listen(inputs.profiles, inputs.learnt(block), asked=asked, table=table)
