"""A market of one or more sites, quotes that a real solver answers, and rounds that follow them."""

from __future__ import annotations

import gzip
import tempfile
import uuid
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from broker.solving.errand import Errand
from broker.solving.works import quote
from federation.models import Contract, Dispute, EntryGroup, Job, Study, Tenant
from federation.selectors.contracts import recompute
from federation.selectors.frozen import frozen
from federation.selectors.replay import Replayed, replay
from federation.services import studies
from federation.services.contracts import contracts_measure
from federation.services.disputes import dispute_open
from federation.services.jobs import JobDraft, job_cancel, job_submit
from federation.services.leases import Ending
from federation.services.quotes import quotes_request
from federation.snapshot import pack
from tests.federation.contract_scene import the_ledger_holds
from tests.support.world import (
    SimAgent,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
    pay,
)

ROUND_S = 10.0
#: of one job that may be quoted and submitted
WISH: dict[str, Any] = {
    "name": "night",
    "job_class": "cnn",
    "command": "python train.py",
    "gpus": [2],
    "samples": 1_000_000,
    "value": Decimal("900"),
    "max_cost": Decimal("1000"),
}


class WiredAgent(SimAgent):
    """Its reports carry the body that the gateway stores: what a settlement is rebuilt from."""

    def make_report(self, lease: Any, **said: Any) -> Any:
        made = super().make_report(lease, **said)
        progress = {
            "samples": made.measured.samples,
            "contract_samples": made.measured.contract_samples,
            "gpu_seconds": made.measured.gpu_seconds,
        }
        return replace(made, body={"contract": str(made.contract_id), "progress": progress})


def a_market() -> tuple[Tenant, WiredAgent]:
    """North sells four GPUs at 10 credits; one round has been published, at second 20. Its only
    bid was too low, and is gone."""
    agent = WiredAgent(a_site("north", gpus=4, reserve="10", speeds={"cnn": 1000.0}))
    low = a_job(a_tenant("low"), name="low", value="0.01")
    a_round(later(20))
    job_cancel(job=low, actor="test", now=later(21))
    return a_tenant("ann", credits=10_000), agent


def ask(tenant: Tenant, at: float, **wish: Any) -> Study:
    """Ask for a quote; nobody answers it yet."""
    [study] = quotes_request(
        tenant=tenant,
        venue=a_venue(),
        drafts=[JobDraft(**{**WISH, **wish})],
        actor="test",
        now=later(at),
    )
    return study


def answer(study: Study, at: float) -> Study:
    """What a worker does: claim, compute in its own files, keep."""
    claim = studies.study_claim(study_id=study.pk, token=uuid.uuid4(), now=later(at))
    if claim is not None:
        documents = frozen(claim.round_id)
        with tempfile.TemporaryDirectory() as folder:
            inputs = {}
            for name, body in (("book", documents.book), ("clearing", documents.clearing)):
                inputs[name] = Path(folder) / f"{uuid.uuid4().hex}.gz"
                inputs[name].write_bytes(body or gzip.compress(b"{}"))
            errand = Errand(inputs, claim.parameters, _alone, Path(folder))
            studies.study_answer(claim=claim, result=pack(quote(errand)), now=later(at))
    study.refresh_from_db()
    return study


def _alone(name: str, bodies: Any, files: Any = ()) -> list[bytes]:
    raise AssertionError("a quote is not shared out")


def quoted(tenant: Tenant, at: float, **wish: Any) -> Study:
    """An answered quote."""
    return answer(ask(tenant, at, **wish), at)


def cite(tenant: Tenant, study: Any, at: float, *, key: str | None = None, **wish: Any) -> Job:
    """Submit the job of `WISH`, with changes, citing a quote or the id of one."""
    draft = JobDraft(**{**WISH, **wish, "quote": getattr(study, "pk", study)})
    return job_submit(
        tenant=tenant, venue=a_venue(), draft=draft, key=key, actor="test", now=later(at)
    ).job


def opened(job: Job, at: float, **close: Any) -> Contract:
    """The next round decides; the newest contract of the job."""
    a_round(later(at), **close)
    lease = live_lease(job)
    return Contract.objects.filter(lease=lease).latest("sequence")


def runs(agent: SimAgent, at: float, samples: int, job: Job, **said: Any) -> None:
    """The agent takes what is offered and reports so many samples of a job's attempt in all."""
    for _ in range(2):
        agent.sync(later(at))
    agent.report(live_lease(job), later(at + 1), samples=samples, speed=900.0, **said)
    agent.sync(later(at + 1))


def facts(contract: Contract) -> list[dict[str, Any]]:
    """What each settlement of a contract says of the quote, the oldest first."""
    groups = EntryGroup.objects.filter(contract=contract, kind=EntryGroup.Kind.SETTLE)
    return [group.facts["quote"] for group in groups.order_by("created_at", "key")]


def all_follows() -> Replayed:
    """Every figure, and every word about a quote, follows from the record."""
    the_ledger_holds()
    for contract in Contract.objects.all():
        assert recompute(contract).differences == ()
    found = replay()
    assert (found.findings, found.problems) == ([], 0)
    return found


def settled(contract: Contract, at: float) -> Contract:
    """A contract after whatever is due was paid."""
    pay(later(at))
    contract.refresh_from_db()
    return contract


def an_award(market: tuple[Tenant, WiredAgent], **wish: Any) -> tuple[Job, Contract, WiredAgent]:
    """A cited quote, and the contract that the next round made of the job."""
    ann, agent = market
    study = quoted(ann, 25, **wish)
    job = cite(ann, study, 26, **wish)
    return job, opened(job, 31), agent


def delivered(job: Job, agent: SimAgent, samples: int, at: float = 33) -> None:
    """The agent trains so much under the first contract; then the next round opens another."""
    runs(agent, at, samples, job)
    a_round(later(42))
    runs(agent, 43, samples + 1, job)


def a_short_delivery(market: tuple[Tenant, WiredAgent]) -> tuple[Job, Contract]:
    """A measured contract of which the site delivered less than half."""
    job, contract, agent = an_award(market)
    runs(agent, 33, 9_000, job, ending=Ending("driver_failed", 1))
    contracts_measure(now=later(45))
    return job, contract


def objection(contract: Contract, at: float = 50.0) -> Dispute:
    """The tenant objects."""
    return dispute_open(
        contract=contract,
        by="tenant",
        actor="user:t",
        code="less",
        why="less",
        claimed=1,
        now=later(at),
    )
