"""AlloX: place jobs so that their mean completion time is least, among the tenants served least.

Jobs are matched to places in the order of service on machines (`matching.py`), at the cost

    k p_ij + d_ij

for job j as the k-th from last on machine i. Machines are the slots of the pools (`slots.py`), p_ij
is the work a job still demands over its speed there, and d_ij is when the slot comes free. What the
matching starts within this round is awarded; the rest is forgotten, and the next round matches
afresh. So a job may be left waiting for a pool where it is fast although one where it is slow has
GPUs. Nothing is preempted: a job that runs where it still has a column stays. Floors are kept.

Fairness: the ceil(alpha x tenants) tenants with the smallest score compete, and twice as many
whenever nothing of theirs starts (`fairness.py`). A tenant's score is the share of the pools its
jobs hold, counted as progress, over what the tenant may claim of the whole; service attained, over
the same, decides between equals.

Parameters: `alpha`, above 0 and at most 1; 1 unless given, so that only completion times count.
Values play no part beyond admitting a column.

Limits: the matching is exact for jobs of one width in a pool, and for at most 50 jobs at once, the
shortest of each pool in turn; the award goes on with the next ones while GPUs are left. A divisible
job is placed in one pool.

Source: Le, Sun, Chowdhury and Liu, "AlloX: compute allocation in hybrid clusters" (EuroSys 2020).
Shapes: P pools · J jobs · K columns · T tenants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index, Market, Mask
from economics.policies.fairness import ever_more
from economics.policies.matching import match, starts
from economics.policies.priority import remaining, serve_floors
from economics.policies.question import Question
from economics.policies.settings import positive
from economics.policies.slots import ROUNDING, Pools, Slots, Widths

NAME = "allox"
ALPHA = 1.0
MOST = 50  # jobs matched at once


def award(question: Question) -> Array:
    """Share of each column, (K,)."""
    alpha = positive(question.parameters, "alpha", ALPHA, most=1.0)
    promised = serve_floors(question.market, question.attained, nodes=question.nodes)
    round_ = _Round.of(question, remaining(question.market, promised))
    round_.keep_running()
    while round_.start_some(alpha):
        pass
    return promised + round_.share


@dataclass(slots=True)
class _Round:
    """What was awarded so far, beyond what was promised."""

    market: Market
    widths: Widths
    pools: Pools
    tenant: Index  # (J,)
    claim: Array  # (T,) share of the whole
    order: Index  # jobs with a column, the shortest of each pool in turn
    waiting: Mask  # (J,)
    share: Array  # (K,)
    score: Array  # (T,)
    had: Array  # (T,) GPU-seconds over claim
    sizes: Array  # (P,) GPU-hours, what is promised included

    @classmethod
    def of(cls, question: Question, market: Market) -> _Round:
        widths = Widths.of(market, question.hours)
        order = _shortest_in_turn(market, widths)
        waiting = np.zeros(market.jobs, dtype=bool)
        waiting[order] = True
        tenants = int(question.tenant.max(initial=-1)) + 1
        weight = np.where(waiting, question.weight, 0.0)
        summed = np.bincount(question.tenant, weights=weight, minlength=tenants)
        claim: Array = np.where(summed > 0, summed, 1.0).astype(np.float64)
        had = np.bincount(question.tenant, weights=question.attained, minlength=tenants)
        return cls(
            market=market,
            widths=widths,
            pools=Pools.of(market.capacity, question.hours),
            tenant=question.tenant,
            claim=claim,
            order=order,
            waiting=waiting,
            share=np.zeros(market.columns),
            score=np.zeros(tenants),
            had=had / claim,
            sizes=question.market.capacity,
        )

    def keep_running(self) -> None:
        """Jobs that run stay where they are, as far as there is room; the widest size that fits."""
        running = np.flatnonzero(self.market.stays & np.isfinite(self.widths.done))
        for column in running[np.lexsort((-self.widths.gpus[running], self.market.job[running]))]:
            self._start(int(column), 0.0)

    def start_some(self, alpha: float) -> bool:
        """Match those who have least, and award what starts now; False if nothing does."""
        queue = self.order[self.waiting[self.order]]
        tenant = self.tenant[queue]
        for chosen in ever_more(self.score, self.had, np.unique(tenant), alpha):
            jobs = queue[np.isin(tenant, chosen)][:MOST]
            if self._match(np.sort(jobs), one_each=alpha < 1):
                return True
        return False

    def _match(self, jobs: Index, *, one_each: bool) -> bool:
        """Start what a matching of these jobs starts in this round; False if that is nothing.

        One job of each tenant, if wanted: where a round begins with all GPUs free, those who
        have least would otherwise take them all before anybody is asked again.
        """
        slots = Slots.of(self.market, self.widths, self.pools, jobs)
        work = slots.work(self.widths)
        found = match(work)
        begins = starts(work, found)
        soon = np.flatnonzero(begins < self.pools.hours * (1 - ROUNDING))
        started: set[int] = set()  # tenants
        for at in soon[np.lexsort((jobs[soon], begins[soon]))]:
            column = int(slots.column[at, slots.kind[found.machine[at]]])
            tenant = int(self.tenant[jobs[at]])
            if not (one_each and tenant in started) and self._start(column, float(begins[at])):
                started.add(tenant)
        return bool(started)

    def _start(self, column: int, begin: float) -> bool:
        """Award a column from this hour on, as far as there is room; False if there is not."""
        job, pool = int(self.market.job[column]), int(self.market.pool[column])
        hours = self._hours(column, begin) if self.waiting[job] else 0.0
        if hours <= 0 or not self._worth_moving(column, hours):
            return False
        self.waiting[job] = False
        self.share[column] = hours / self.market.gpu_hours[column]
        until = begin + self.widths.work[column] / self.widths.gpus[column]
        self.pools.take(pool, hours, until)
        self.score[self.tenant[job]] += self._progress(column) / self.claim[self.tenant[job]]
        return True

    def _hours(self, column: int, begin: float) -> float:
        """GPU-hours of the round a column can have; all a gang holds, or none."""
        left = float(self.pools.left[self.market.pool[column]])
        whole = float(self.market.gpu_hours[column])
        if self.widths.gang[column]:
            return whole if whole <= left * (1 + ROUNDING) else 0.0
        gpus, work = float(self.widths.gpus[column]), float(self.widths.work[column])
        hours = min(whole, left, work, gpus * (self.pools.hours - begin))
        return hours if hours > ROUNDING * whole else 0.0

    def _worth_moving(self, column: int, hours: float) -> bool:
        """Whether what a divisible job gains pays for leaving the pool it runs on."""
        share = hours / float(self.market.gpu_hours[column])
        gain = float(self.market.gain[column]) * share
        charge = float(self.market.move_charge[self.market.job[column]])
        return bool(self.market.stays[column]) or gain > charge

    def _progress(self, column: int) -> float:
        """Share of its best pool a job would need for the speed it has on this column."""
        at = self.market.columns_of(int(self.market.job[column]))
        done = self.widths.done[at]
        best = at.start + int(done.argmin())
        size = float(self.sizes[self.market.pool[best]])
        share = float(self.widths.gpus[best]) * self.pools.hours / size
        return share * float(done.min() / self.widths.done[column])


def _shortest_in_turn(market: Market, widths: Widths) -> Index:
    """Jobs with a column that still does something: the shortest of each pool, the next, ..."""
    at = np.flatnonzero(np.isfinite(widths.done))
    at = at[np.lexsort((market.job[at], widths.done[at], market.pool[at]))]
    pool = market.pool[at]
    rank = np.arange(at.size) - np.searchsorted(pool, pool)  # in its pool
    jobs = market.job[at[np.lexsort((pool, rank))]]
    _, first = np.unique(jobs, return_index=True)
    order: Index = jobs[np.sort(first)]
    return order
