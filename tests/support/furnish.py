"""Furnish a real federation from outside: `python -m tests.support.furnish JSON` prints tokens.

Input: {"venue": {...}, "sites": {site: member}, "tenants": {tenant: member}, "classes": [...]}.
"""

from __future__ import annotations

import json
import sys

import django

if __name__ == "__main__":
    django.setup()
    from django.utils import timezone

    from federation.services.access import join_token_issue, tenant_token_issue
    from federation.services.ledger import deposit
    from federation.services.members import (
        class_create,
        member_create,
        site_create,
        tenant_create,
        venue_ensure,
    )

    wish = json.loads(sys.argv[1])
    now = timezone.now()
    venue = venue_ensure(now=now, **wish["venue"])
    names = sorted({*wish["sites"].values(), *wish["tenants"].values()})
    members = {name: member_create(name=name, actor="test", now=now) for name in names}
    for name in wish["classes"]:
        class_create(name=name, actor="test", now=now)
    answer: dict[str, dict[str, str]] = {"join": {}, "api": {}}
    for name, owner in wish["sites"].items():
        site = site_create(name=name, member=members[owner], venue=venue, actor="test", now=now)
        answer["join"][name] = join_token_issue(site=site, actor="test", ttl_s=600, now=now)
    for name, owner in wish["tenants"].items():
        tenant = tenant_create(name=name, member=members[owner], actor="test", now=now)
        deposit(tenant=tenant, venue=venue, amount_micro=10**11, key="first", actor="test", now=now)
        answer["api"][name] = tenant_token_issue(tenant=tenant, actor="test", days=1, now=now)
    sys.stdout.write(json.dumps(answer) + "\n")
