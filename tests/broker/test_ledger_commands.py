"""Operators' commands that move money: in, out, credit, reversals."""

from __future__ import annotations

import pytest

from federation.models import EntryGroup, Event, Member
from federation.selectors.accounts import funds_micro
from federation.selectors.ledger import verify
from tests.broker.test_commands import done, refused
from tests.federation.ledger_scene import MICRO, balances, committed
from tests.support import world

pytestmark = pytest.mark.django_db


def test_a_member_and_a_tenant_are_paid_up_once_for_each_key():
    world.a_member("alder")
    tenant = world.a_tenant("ann", credits=0)
    for _ in range(2):
        said = done("ledger", "deposit", "99.50", "--member", "alder", "--key", "may")
    assert "posted before" in said
    done("ledger", "deposit", "5", "--tenant", "ann")
    assert balances()["member_earnings alder"] == 99_500_000
    assert funds_micro(tenant, world.a_venue()) == 5 * MICRO
    refused("deposit_conflict", "ledger", "deposit", "1", "--member", "alder", "--key", "may")
    refused("bad_parameter", "ledger", "deposit", "1")
    refused("bad_parameter", "ledger", "deposit", "1", "--member", "alder", "--tenant", "ann")
    refused("bad_amount", "ledger", "deposit", "0", "--member", "alder")
    refused("not_found", "ledger", "deposit", "1", "--member", "nobody")
    done("ledger", "withdraw", "99.5", "--member", "alder")
    assert "member_earnings alder" not in balances()


def test_the_credit_of_a_member_is_set_and_given_back():
    world.a_member("alder")
    assert "1000.000000 below zero" in done("ledger", "credit", "alder")
    assert "250.000000 below zero" in done("ledger", "credit", "alder", "250")
    assert "250.000000 below zero for its bonds (its own)" in done("ledger", "credit", "alder")
    assert Member.objects.get(name="alder").credit_micro == 250 * MICRO
    done("ledger", "credit", "alder", "0")
    assert Member.objects.get(name="alder").credit_micro == 0
    assert "(by the venue's rules)" in done("ledger", "credit", "alder", "default")
    assert Member.objects.get(name="alder").credit_micro is None
    assert Event.objects.filter(subject="member", event="credit").count() == 3
    refused("bad_amount", "ledger", "credit", "alder", "much")
    refused("bad_amount", "ledger", "credit", "alder", "--", "-1")
    refused("not_found", "ledger", "credit", "nobody", "1")


def test_a_deposit_is_taken_back_by_its_key_and_a_hold_is_not():
    tenant = world.a_tenant("ann", credits=5)
    key = EntryGroup.objects.get(kind="deposit").key
    assert "is taken back" in done("ledger", "reverse", key, "--why", "typed twice")
    assert "taken back before" in done("ledger", "reverse", key, "--why", "typed twice")
    assert funds_micro(tenant, world.a_venue()) == 0
    assert Event.objects.get(event="reverse").why == f"{key}: typed twice"
    refused("not_found", "ledger", "reverse", "nothing", "--why", "x")
    refused("no_reason", "ledger", "reverse", key, "--why", " ")
    reversal = EntryGroup.objects.get(kind="reversal").key
    refused("not_reversible", "ledger", "reverse", reversal, "--why", "x")
    committed()
    assert verify().findings == []
