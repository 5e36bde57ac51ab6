"""A submission whose GPUs the planner chooses, or whose own choice it holds against the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from federation.errors import BadInput, FieldProblem, Refused
from federation.grouping import Traits, group_of
from federation.models import Job, JobClass, Tenant, Venue
from federation.money import as_credits
from federation.selectors.plans import NO_PLAN, Planned, plan_choice
from federation.selectors.plans_pools import Stock, stock_read

if TYPE_CHECKING:
    from federation.services.jobs import JobDraft


@dataclass(frozen=True, slots=True)
class Fitted:
    """A draft with gang sizes and pools that all hold its model."""

    draft: JobDraft
    planned: Planned | None = None  #: None: it describes no model

    def group(self, tenant: Tenant, job_class: JobClass) -> str:
        """What the market takes it for, see `federation.grouping`."""
        traits = Traits(
            home=tenant.member_id,
            job_class=job_class.pk,
            kind=Job.Kind.TRAINING,
            gpus=self.draft.gpus,
            gpu_kinds=self.draft.gpu_kinds,
            sites_allow=self.draft.sites_allow,
            sites_deny=self.draft.sites_deny,
            pools=self.draft.pools,
        )
        return group_of(traits)

    @property
    def said(self) -> str:
        """For the story of the job; empty without a model."""
        if self.planned is None:
            return ""
        sizes = ", ".join(map(str, self.planned.gpus))
        chosen = f"Planned for {sizes} GPUs at {', '.join(self.planned.pools)}."
        return " ".join((chosen, *self.planned.notes))


def plan_asked(*, draft: JobDraft, venue: Venue, now: datetime) -> Planned:
    """What `draft_fitted` would choose for a draft that nobody submits.

    Raises BadInput for a draft without a model, of an unknown class or with a deadline in the past.
    """
    job_class = JobClass.objects.filter(name=draft.job_class).first()
    problems = []
    if draft.model is None:
        problems.append(FieldProblem("model", "describes what is trained; it is missing"))
    if draft.deadline is not None and draft.deadline <= now:
        problems.append(FieldProblem("deadline", "lies in the past"))
    if job_class is None:
        why = f"{draft.job_class} is not a registered job class"
        problems.append(FieldProblem("job_class", why, "unknown_class"))
    if problems or job_class is None or draft.model is None:
        raise BadInput(*problems)
    return _planned(draft, draft.model, job_class, stock_read(venue, now), now)


def draft_fitted(
    *,
    draft: JobDraft,
    job_class: JobClass,
    venue: Venue,
    now: datetime,
    chosen: Planned | None = None,
    stock: Stock | None = None,
) -> Fitted:
    """Choose sizes and pools for a draft with a model; any other stays as it is.

    Nothing is stored. The sizes and pools that the tenant names are kept to; `chosen` is what was
    chosen before, by the quote that the draft cites; `stock` what is on offer, where it was read
    for another draft already. Raises as `plan_choice`: BadInput for the model, Refused("no_plan")
    when it fits nowhere permitted.
    """
    if draft.model is None:
        return Fitted(draft)
    planned = chosen or _planned(
        draft, draft.model, job_class, stock or stock_read(venue, now), now
    )
    return Fitted(replace(draft, gpus=planned.gpus, pools=planned.pools), planned)


def _planned(
    draft: JobDraft, model: Mapping[str, Any], job_class: JobClass, stock: Stock, now: datetime
) -> Planned:
    return plan_choice(
        model=model,
        samples=draft.samples,
        deadline_s=None if draft.deadline is None else (draft.deadline - now).total_seconds(),
        budget=float(draft.max_cost),
        wish=draft,
        job_class=job_class,
        stock=stock,
    )


@dataclass(frozen=True, slots=True)
class _Wished:
    """What a tenant asked for before anything was chosen for it."""

    gpus: Sequence[int]
    gpu_kinds: Sequence[str]
    sites_allow: Sequence[str]
    sites_deny: Sequence[str]
    pools: Sequence[str]


def wished_of(draft: JobDraft) -> dict[str, Any]:
    """The sizes and pools of a draft as its tenant named them, for `Job.wished`."""
    return {"gpus": list(draft.gpus), "pools": list(draft.pools)}


def planned_again(*, job: Job, now: datetime) -> Planned:
    """Sizes and pools for the work that a submitted job with a model has left.

    Chosen from what its tenant wished for, whatever was chosen before, of what is on offer now; a
    job from before wishes were kept has what was chosen. Raises Refused("no_plan") when no
    permitted pool holds it, or when its model can no longer be read.
    """
    wished = job.wished or {"gpus": job.gpus, "pools": job.pools}
    left_micro = job.max_cost_micro - job.spent_micro - job.held_micro
    try:
        return plan_choice(
            model=job.model or {},
            samples=max(1, job.samples - job.samples_done),
            deadline_s=max(1.0, (job.deadline - now).total_seconds()) if job.deadline else None,
            budget=as_credits(left_micro) if left_micro > 0 else None,
            wish=_Wished(
                gpus=wished["gpus"],
                gpu_kinds=job.gpu_kinds,
                sites_allow=job.sites_allow,
                sites_deny=job.sites_deny,
                pools=wished["pools"],
            ),
            job_class=job.job_class,
            stock=stock_read(job.venue, now),
        )
    except BadInput as refused:  # it was read at submission: by an older version, then
        raise Refused(f"Its model cannot be read: {refused.why}.", code=NO_PLAN) from None
