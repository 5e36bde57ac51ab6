"""From waiting jobs to rows of a book: one narrow read, loops over integers, then text.

No object and no dictionary is made for a job: at a hundred thousand of them that is what would
cost the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, QuerySet

from federation.bulk import IdText
from federation.machines.job import JobState
from federation.machines.lease import LeaseState
from federation.matching import last_laps_of
from federation.models import Job, Lease, Venue
from federation.money import as_credits, samples_paid, worth_micro
from federation.snapshot.documents import millionths, spell
from federation.snapshot.terms import Terms, row_template, terms_read
from federation.snapshot.view import View

_RUNS = (JobState.RESERVED, JobState.DISPATCHED, JobState.STARTING, JobState.RUNNING)


#: What a round needs of one job, as a plain tuple: a hundred thousand objects are not made of them.
#: id, tenant, group, state; value in micro-credits per million samples; samples wanted and done;
#: max_cost, spent and held in micro-credits; preemptible; earnest money in micro-credits
Bid = tuple[str, str, str, str, int, int, int, int, int, int, bool, int]
#: What a bid asks for: id, tenant, value, samples left, micro-credits at most, of these in escrow
#: since its submission, terms
Wish = tuple[str, str, int, int, int, int, Terms]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A job that the book does not hold, and why: `code` for a machine, `why` for its tenant."""

    job_id: str
    code: str
    why: str
    final: bool = False  #: no later round can serve it either


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a book's jobs, spelled and in the order of their ids."""

    jobs: list[str]
    left_out: list[LeftOut]
    classes: dict[UUID, str]  #: id -> name, of the jobs in the book
    sizes: dict[UUID, set[int]]  #: id -> the gang sizes that they ask for


def bids_read(venue: Venue) -> list[Bid]:
    """Jobs that wait, and running preemptible ones, which bid again in every round.

    One whose contract runs to its end (its last lap) does not: it keeps what it has. Nor does one
    that its tenant has asked to cancel while an earlier round held its bid.
    """
    jobs = Job.objects.filter(venue=venue, kind=Job.Kind.TRAINING)
    kept = Lease.objects.filter(
        job=OuterRef("pk"),
        state__in=[LeaseState.OFFERED, LeaseState.ACTIVE],
        revoke_asked_at__isnull=True,
        site__state="online",
    )
    rerun = jobs.filter(Exists(kept), ~last_laps_of("pk"), state__in=_RUNS, preemptible=True)
    waiting = jobs.filter(state=JobState.PENDING, cancel_asked_at__isnull=True)
    return [*_read(waiting), *_read(rerun)]


def _read(jobs: QuerySet[Job]) -> Iterable[Bid]:
    return jobs.order_by().values_list(
        IdText("id"),
        IdText("tenant_id"),
        *("group", "state", "value_micro", "samples", "samples_done"),
        *("max_cost_micro", "spent_micro", "held_micro", "preemptible", "earnest_micro"),
    )


def rows_make(bids: list[Bid], view: View) -> Rows:
    """The rows of all bids, or why a bid has none."""
    keys = view.keys(bids)
    wishes, left_out = _wishes(bids, keys, terms_read(bids, keys, view))
    kept, demands, budgets = [], [], []
    for wish, budget in zip(wishes, _budgets(wishes, view.funds), strict=True):
        job, _, value, remaining, most, _, _ = wish
        demand = min(remaining, samples_paid(budget, value))
        if demand < 1:
            left_out.append(LeftOut(job, *_unpaid(most)))
            continue
        kept.append(wish)
        demands.append(demand)
        budgets.append(budget)
    groups: set[Terms] = set(map(itemgetter(-1), kept))
    sizes: dict[UUID, set[int]] = defaultdict(set)
    for terms in groups:
        sizes[terms.job_class].update(terms.sizes)
    return Rows(
        jobs=_spelled(kept, demands, budgets, view),
        left_out=left_out,
        classes={terms.job_class: terms.row["class"] for terms in groups},
        sizes=dict(sizes),
    )


def _wishes(
    bids: list[Bid], keys: list[str], terms_of: dict[str, Terms]
) -> tuple[list[Wish], list[LeftOut]]:
    """What each bid asks of this round, whatever its tenant has; and bids that ask in vain."""
    wishes: list[Wish] = []
    left_out = []
    for bid, key in zip(bids, keys, strict=True):
        job, tenant, _, _, value, samples, done, *costs, preemptible, earnest = bid
        max_cost, spent, held = costs
        terms = terms_of[key]
        no = terms.refused or (spent and _spent_out(bid, terms)) or terms.crowded
        if no:
            left_out.append(LeftOut(job, *no))
            continue
        remaining = max(samples - done, samples // 100, 1)
        # the contract of a job that is not preemptible covers all its work at once
        output = min(remaining, terms.output) if preemptible else remaining
        worth, room = worth_micro(output, value), max_cost - spent - held
        most = max(0, min(worth, room))
        wishes.append((job, tenant, value, remaining, most, min(most, earnest), terms))
    return wishes, left_out


def _budgets(wishes: list[Wish], funds: dict[str, int]) -> list[int]:
    """Micro-credits each may spend: its own earnest money, the rest taken off its tenant's funds.

    No two jobs promise the same credit, so escrow can then not fail for lack of funds. Where they
    do not suffice the dearest bid is first, ties by id.
    """
    budgets = [most for *_, most, _, _ in wishes]
    asked: dict[str, int] = defaultdict(int)
    for _, tenant, _, _, most, own, _ in wishes:
        asked[tenant] += most - own
    short = {tenant: free for tenant in asked if (free := funds.get(tenant, 0)) < asked[tenant]}
    if short:
        places = [at for at, wish in enumerate(wishes) if wish[1] in short]
        for at in sorted(places, key=lambda at: (-wishes[at][2], wishes[at][0])):
            tenant, own = wishes[at][1], wishes[at][5]
            more = min(budgets[at] - own, short[tenant])
            budgets[at] = own + more
            short[tenant] -= more
    return budgets


def _spelled(wishes: list[Wish], demands: list[int], budgets: list[int], view: View) -> list[str]:
    """Rows of a book as canonical JSON: what a group shares was spelled once."""
    if not wishes:
        return []
    jobs, owners, values, _, _, _, terms = zip(*wishes, strict=True)
    names = {tenant: spell(name) for tenant, name in view.tenants.items()}
    templates = [
        row_template(of.row | _where_it_runs(job, value, of, view))
        if job in view.running
        else of.template
        for job, value, of in zip(jobs, values, terms, strict=True)
    ]
    # in the order of the keys, as the templates have them
    fields = zip(
        *(millionths(budgets), millionths(demands), jobs),
        *([names[tenant] for tenant in owners], millionths(values)),
        strict=True,
    )
    rows = map(str.__mod__, templates, fields)
    return [row for _, row in sorted(zip(jobs, rows, strict=True))]


def _spent_out(bid: Bid, terms: Terms) -> tuple[str, str, bool] | None:
    """Nothing is held any more and the rest of its max_cost is below every reserve."""
    *_, state, _, _, _, max_cost, spent, held, _, _ = bid
    room = max_cost - spent
    if held or state != JobState.PENDING or (room > 0 and room >= terms.least_micro):
        return None
    return (
        "max_cost",
        "What is left of its max_cost does not pay for one more round anywhere.",
        True,
    )


def _unpaid(most: int) -> tuple[str, str]:
    if not most:
        return "max_cost", "Its max_cost is spent or held in escrow."
    return "no_funds", "Its tenant has no free funds left for this round."


def _where_it_runs(job: str, value: int, terms: Terms, view: View) -> dict[str, Any]:
    """Its pool, and the credits lost by stopping there, at the job's own value of time."""
    lease = view.running[job]
    if lease.pool_id not in view.pools:
        return {}
    speed = view.speed(lease.pool_id, terms.job_class, lease.gpus) or 0.0
    cost = as_credits(value) * speed / 1e6 * view.venue.restart_s
    return {"running_on": view.pools[lease.pool_id].name, "move_cost": round(cost, 9)}
