"""A contract on a lease that an agent runs, opened by the services, and what its agent says."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Sum

from federation.models import Account, Contract, Count, Dispute, Entry, Job, Lease
from federation.selectors.accounts import trial_balance
from federation.selectors.contracts import job_differences, recompute
from federation.services.contracts import contract_open
from federation.services.counts import count_add
from federation.services.disputes import dispute_decide, dispute_open
from federation.services.leases import Ending, lease_offer, revoke_ask
from federation.services.reports import Measured, ReportIn, reports_accept
from tests.support.world import SimAgent, a_job, a_site, a_tenant, a_venue, later, pay

HOUR = 3600.0
SOLD = 2_592_000  #: samples of the example
WINDOW = 3 * 86400  #: seconds for objections, by the default rules
#: the settlement example of the three sites: 8 GPU-hours, 2.592 million samples
EXAMPLE = {
    "payment_micro": 66_992_000,
    "contracted": SOLD,
    "price_micro": 8_374_000,
    "reserve_micro": 1_500_000,
}


@dataclass
class Scene:
    """One lease and its contracts."""

    job: Job
    lease: Lease
    agent: SimAgent
    contracts: list[Contract]
    seq: int = 0
    said: list[ReportIn] = field(default_factory=list)

    @property
    def contract(self) -> Contract:
        """The newest contract, as it is stored."""
        return Contract.objects.select_related("lease", "rules").get(pk=self.contracts[-1].pk)

    def next(self, at: float, **terms: Any) -> Contract:
        """The next round's contract on the same lease."""
        lease = Lease.objects.get(pk=self.lease.pk)
        wanted = {**EXAMPLE, **terms}
        ends_at = wanted.pop("ends_at", later(at + HOUR))
        opened = contract_open(lease=lease, round=None, ends_at=ends_at, now=later(at), **wanted)
        self.contracts.append(opened)
        return opened

    def report(
        self,
        samples: int,
        *,
        total: int | None = None,
        gpu_seconds: float = 0.0,
        ending: Ending | None = None,
        contract: Contract | None = None,
    ) -> ReportIn:
        """A report of `samples` under a contract, as the gateway reads it; not sent."""
        self.seq += 1
        total = samples if total is None else total
        contract = contract or self.contracts[-1]
        kind = "ended" if ending else "progress"
        progress = {
            "samples": total,
            "contract_samples": samples,
            "gpu_seconds": gpu_seconds,
            "lines": 0,
        }
        body = {"attempt": str(self.lease.pk), "seq": self.seq, "kind": kind}
        body |= {"contract": str(contract.pk), "progress": progress}
        made = ReportIn(
            lease_id=self.lease.pk,
            seq=self.seq,
            kind=kind,
            contract_id=contract.pk,
            measured=Measured(total, samples, gpu_seconds, None, 0, None),
            log=None,
            ending=ending,
            body=body,
        )
        self.said.append(made)
        return made

    def say(self, at: float, samples: int, **said: Any) -> None:
        """Send one report."""
        report = self.report(samples, **said)
        reports_accept(site=self.agent.site, reports=[report], now=later(at))

    def ask_back(self, at: float, code: str) -> None:
        lease = Lease.objects.get(pk=self.lease.pk)
        revoke_ask(lease=lease, code=code, why=code, now=later(at))


def a_scene(
    *, tenant: Any = None, site: Any = None, taken: bool = True, gpus: int = 8, **terms: Any
) -> Scene:
    """A contract of the settlement example, opened at second 0 for one hour; its agent has it."""
    a_venue(round_s=HOUR)
    tenant = tenant or a_tenant()
    site = site or a_site(gpus=gpus)
    wanted = {**EXAMPLE, "ends_at": later(HOUR), **terms}
    job = a_job(tenant, samples=10**9, gpus=[gpus], max_cost="100000")
    lease = lease_offer(
        job=job,
        pool=site.pools.get(),
        gpus=gpus,
        round=None,
        fence_s=60.0,
        predicted_samples_per_s=720.0,
        now=later(0),
    )
    assert lease is not None
    contract = contract_open(lease=lease, round=None, now=later(0), **wanted)
    agent = SimAgent(site)
    scene = Scene(job, lease, agent, [contract])
    if taken:
        agent.sync(later(1))
        agent.sync(later(1))
    return scene


def money() -> dict[str, int]:
    """Balance of every kind of purse together."""
    rows = Account.objects.order_by().values_list("kind")
    return dict(rows.annotate(sum=Sum("balance_micro")))


def purse(kind: str, owner: Any) -> int:
    owned = {"member" if kind.startswith("member") else "tenant": owner}
    row = Account.objects.filter(kind=kind, **owned).first()
    return row.balance_micro if row else 0


def the_ledger_holds() -> None:
    """I26, I27, I32, I35: groups balance, contracts add up, no purse was ever below zero."""
    assert trial_balance().holds
    running: dict[Any, int] = defaultdict(int)
    kinds = dict(Account.objects.values_list("pk", "kind"))
    moves: dict[Any, list[tuple[Any, int]]] = defaultdict(list)
    entries = Entry.objects.order_by("pk")  # the order in which purses were moved
    for group, account, amount in entries.values_list("group", "account", "amount_micro"):
        moves[group].append((account, amount))
    for moved in moves.values():
        assert sum(amount for _, amount in moved) == 0
        for account, amount in moved:
            running[account] += amount
            if kinds[account] in ("tenant_cash", "tenant_escrow", "member_bond"):
                assert running[account] >= 0
            assert kinds[account] != "rounding" or running[account] == 0
    for contract in Contract.objects.filter(postings__gt=0):
        assert contract.paid_micro + contract.refunded_micro == contract.payment_micro
        assert 0 <= contract.penalty_micro <= contract.bond_micro
        assert contract.paid_micro >= 0
        assert contract.accepted <= contract.contracted


def object_to(
    contract: Contract,
    *,
    by: str = "tenant",
    claimed: int | None = None,
    at: float = 4000,
    code: str = "too_few",
) -> Dispute:
    """One party objects."""
    return dispute_open(
        contract=contract,
        by=by,
        actor=f"user:{by}",
        code=code,
        why="It was less.",
        claimed=claimed,
        now=later(at),
    )


def decide(dispute: Dispute, accepted: int, cause: str = "site", at: float = 5000) -> Contract:
    """An operator decides."""
    return dispute_decide(
        dispute=dispute,
        accepted=accepted,
        cause=cause,
        why="The log says so.",
        actor="user:operator",
        now=later(at),
    )


def count(
    scene: Scene,
    samples: int,
    *,
    seq: int = 1,
    last: bool = True,
    at: float = 3600,
    contract: Contract | None = None,
) -> Count:
    """The trainer counts under the first contract, or another."""
    return count_add(
        contract=contract or scene.contracts[0],
        seq=seq,
        samples=samples,
        last=last,
        actor="user:trainer",
        now=later(at),
    )


def delivered(scene: Scene, samples: int, at: float = 3600) -> None:
    """`samples` under the first contract, which the next one follows."""
    scene.say(at, samples, gpu_seconds=8 * HOUR)
    scene.next(3660)
    scene.say(3661, 1, total=samples + 1)


def settled(scene: Scene, samples: int = SOLD) -> Contract:
    """The first contract, delivered and paid."""
    delivered(scene, samples)
    pay(later(3700))
    return Contract.objects.get(pk=scene.contracts[0].pk)


def holds(contract: Contract) -> None:
    """The contract, its job and the whole ledger follow from the record."""
    assert recompute(contract).differences == ()
    assert job_differences(contract.lease.job) == ()
    the_ledger_holds()
