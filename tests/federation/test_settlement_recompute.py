"""Every figure of a contract follows from the record, and one that was forged is found."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from federation.models import Contract, Job, Lease
from federation.selectors.contracts import job_differences, recompute
from federation.services.contracts import contracts_hold_over
from federation.services.leases import Ending
from tests.federation.contract_scene import HOUR, a_scene, the_ledger_holds
from tests.support.world import SimAgent, a_job, a_round, a_site, a_tenant, later, pay

pytestmark = pytest.mark.django_db


class WiredAgent(SimAgent):
    """Its reports carry the body that the gateway stores: what a settlement is rebuilt from."""

    def make_report(self, lease, **said):
        made = super().make_report(lease, **said)
        progress = {
            "samples": made.measured.samples,
            "contract_samples": made.measured.contract_samples,
            "gpu_seconds": made.measured.gpu_seconds,
        }
        return replace(made, body={"contract": str(made.contract_id), "progress": progress})


def more_jobs(tenant, draw):
    for _ in range(3):
        a_job(
            tenant,
            samples=draw.choice([5_000, 40_000, 10**8]),
            value=str(draw.randint(100, 900)),
            preemptible=draw.random() < 0.7,
        )


def an_ending(lease, draw):
    if lease.revoke_asked_at is not None:
        return Ending("revoked")
    if draw.random() < 0.25:
        return Ending(draw.choice(["exited", "driver_failed", "lost"]), 1)
    return None


def works(agent, draw, now):
    """A round's time at one site: what runs trains something, and some of it ends."""
    for _ in range(2):
        agent.sync(later(now + 1))
    for lease in Lease.objects.filter(site=agent.site, state="active").order_by("created_at", "pk"):
        if agent.running.get(lease.pk, "ended") == "ended":
            continue
        total = agent.samples.get(lease.pk, 0) + draw.randint(0, 12_000)
        end = an_ending(lease, draw)
        agent.report(lease, later(now + 9), samples=total, speed=900.0, ending=end)
    agent.sync(later(now + 9))


def all_follows_from_the_record():
    for contract in Contract.objects.all():
        found = recompute(contract)
        assert found.differences == ()
        assert found.unchecked == ()
    the_ledger_holds()


@pytest.mark.parametrize("seed", range(2))
def test_every_contract_of_a_market_is_rebuilt_from_its_frozen_round(seed):
    """Rounds with jobs that stay, move, are outbid, end, are held over or run to their end."""
    draw = random.Random(seed)
    agents = [
        WiredAgent(a_site(name, gpus=gpus, reserve="1", speeds={"cnn": speed}))
        for name, gpus, speed in (("north", 3, 1000.0), ("south", 2, 800.0))
    ]
    tenant = a_tenant("ann", credits=10**6)
    for number in range(6):
        now = 20 + 11 * number
        more_jobs(tenant, draw)
        if number != 3:  # that round never comes: contracts are held over
            a_round(later(now))
        for agent in agents:
            works(agent, draw, now)
        contracts_hold_over(now=later(now + 10))
        pay(later(now + 10))
        all_follows_from_the_record()
    contracts = Contract.objects.all()
    assert contracts.filter(state="settled").count() > 5
    assert contracts.filter(extensions__gt=0).exists()
    assert contracts.filter(penalty_micro__gt=0).exists()
    for job in Job.objects.all():
        assert job_differences(job) == ()


def test_figures_that_were_forged_are_found():
    scene = a_scene()
    scene.say(3600, 2_384_640, gpu_seconds=8 * HOUR)
    scene.next(3660)
    scene.say(3661, 10, total=2_384_650)
    pay(later(3662))
    first = scene.contracts[0]
    assert recompute(first).holds
    genuine = Contract.objects.filter(pk=first.pk).values(
        *("delivered", "paid_micro", "refunded_micro", "penalty_micro", "bond_micro"),
        *("payment_micro", "due", "cause", "accepted"),
    )[0]
    for name, value in genuine.items():
        forged = "market" if name == "cause" else value + 1
        Contract.objects.filter(pk=first.pk).update(**{name: forged})
        found = recompute(first)
        assert not found.holds, name
        assert name in {d.figure for d in found.differences} or name in ("bond_micro", "due")
        Contract.objects.filter(pk=first.pk).update(**{name: value})
    assert recompute(first).holds
    assert job_differences(scene.job) == ()
    Job.objects.filter(pk=scene.job.pk).update(spent_micro=1)
    assert [d.figure for d in job_differences(scene.job)] == ["spent_micro"]
