"""What an operator does once for a fresh federation, here in one go, through the same services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.utils import timezone

from broker.demo.sites import KNOWN, UNKNOWN, DemoSite
from federation.services.access import join_token_issue, tenant_token_issue
from federation.services.ledger import deposit
from federation.services.members import (
    class_create,
    member_create,
    site_create,
    tenant_create,
    venue_ensure,
)

ACTOR = "user:demo"
TITLES = {
    "mlp-wide": "wide perceptron, large matrix products",
    "mlp-deep": "deep narrow perceptron, many small steps",
    "conv-small": "small convolutional net",
    "embed-rec": "recommendation by embeddings",
    "attn-tiny": "one-head attention classifier",
}


def furnish(
    *, sites: Sequence[DemoSite], venue: dict[str, Any], funds: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns (site -> join token, tenant -> API token)."""
    now = timezone.now()
    market = venue_ensure(now=now, **venue)
    for name in (*KNOWN, UNKNOWN):
        class_create(name=name, title=TITLES[name], actor=ACTOR, now=now)
    join_tokens, api_tokens = {}, {}
    for site in sites:
        member = member_create(name=site.member, actor=ACTOR, now=now)
        row = site_create(name=site.name, member=member, venue=market, actor=ACTOR, now=now)
        join_tokens[site.name] = join_token_issue(
            site=row, actor=ACTOR, ttl_s=settings.JOIN_TOKEN_TTL_S, now=now
        )
        tenant = tenant_create(name=f"{site.member}-lab", member=member, actor=ACTOR, now=now)
        deposit(
            tenant=tenant,
            venue=market,
            amount_micro=funds * 1_000_000,
            key="demo",
            actor=ACTOR,
            now=now,
        )
        api_tokens[tenant.name] = tenant_token_issue(tenant=tenant, actor=ACTOR, days=1, now=now)
    return join_tokens, api_tokens
