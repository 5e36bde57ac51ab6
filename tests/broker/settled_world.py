"""One contract from award to payment, and callers that act for its parties."""

from __future__ import annotations

from datetime import datetime

from django.core.cache import cache

from federation.models import Contract, User
from federation.services.access import member_token_issue, operator_token_issue
from federation.services.leases import Ending
from tests.broker.api_world import Caller, a_running_job, a_site_now
from tests.support import world


def an_operator(now: datetime) -> Caller:
    cache.clear()
    olga = User.objects.create(username="olga", is_staff=True)
    return Caller(operator_token_issue(user=olga, actor="test", days=1, now=now))


def member_caller(name: str, now: datetime) -> Caller:
    member = world.a_member(name)
    return Caller(member_token_issue(member=member, actor="test", days=1, now=now))


def a_settled_contract(now: datetime) -> Contract:
    """Of birch's tenant ann at alder's site north; delivered and paid in full."""
    site = a_site_now("north", gpus=4)
    lease = a_running_job(world.a_tenant("ann"), site)
    agent = world.SimAgent(site)
    agent.sync(now)
    made = lease.contracts.get()
    agent.report(lease, now, samples=made.contracted, ending=Ending("exited", exit_code=0))
    world.pay(now)
    made.refresh_from_db()
    assert made.state == "settled"
    return made
