"""Groups taken back by their opposite: which ones, once, and what is left as it was."""

from __future__ import annotations

import pytest

from federation.errors import Refused
from federation.models import EntryGroup, Event, Member, Venue
from federation.selectors.ledger import verify
from federation.selectors.replay import replay
from federation.services import contracts, credits, ledger
from federation.services.members import member_credit_set
from tests.federation.contract_scene import a_scene, holds, settled
from tests.federation.ledger_scene import (
    MICRO,
    a_contract,
    a_seller,
    balances,
    committed,
    some_history,
)
from tests.support.world import NOW, a_member, a_tenant, a_venue, later

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _holds_at_the_end():
    yield
    committed()
    assert verify().findings == []


def take_back(group, key="r", memo="wrong", at=10):
    return ledger.reverse(group=group, key=key, memo=memo, actor="user:op", now=later(at))


def refusal(action, *args, **named):
    with pytest.raises(Refused) as refused:
        action(*args, **named)
    return refused.value.code


def test_what_a_contract_or_a_job_reckons_with_is_not_reversed():
    contract = settled(a_scene())
    groups = [
        *EntryGroup.objects.filter(contract=contract, kind__in=["hold", "settle"]),
        *(posted(kind) for kind in ("earnest", "release")),
    ]
    before = balances()
    for group in groups:
        with pytest.raises(Refused, match="use a dispute") as refused:
            take_back(group)
        assert refused.value.code == "not_reversible"
    assert {group.kind for group in groups} == {"hold", "settle", "earnest", "release"}
    assert balances() == before
    contracts.contracts_finalise(now=later(10**7))
    contract.refresh_from_db()
    assert contract.state == "final"
    holds(contract)


def posted(kind):
    """A group of this kind that moves a micro-credit from one member to another."""
    one, other = (
        ledger.account("member_earnings", "cash", now=NOW, member=a_member(name))
        for name in ("one", "other")
    )
    entries = [(one, -1), (other, 1)]
    ledger.post(key=kind, kind=kind, currency="cash", entries=entries, now=NOW)
    return EntryGroup.objects.get(key=kind)


@pytest.mark.parametrize("kind", ["deposit", "issue", "withdrawal", "stability", "dividend"])
def test_what_nothing_else_reckons_with_is_taken_back_once(kind):
    group = posted(kind)
    assert balances() == {"member_earnings one": -1, "member_earnings other": 1}
    assert take_back(group)
    assert not take_back(group)
    assert balances() == {}
    reversal = EntryGroup.objects.get(kind="reversal")
    assert (reversal.reverses, reversal.memo) == (group, "wrong")
    story = Event.objects.get(subject="ledger", event="reverse")
    assert (story.actor, story.why) == ("user:op", f"{kind}: wrong")


def test_a_group_is_reversed_once_and_a_reversal_never():
    some_history()
    reversal = EntryGroup.objects.get(kind="reversal")
    deposit = EntryGroup.objects.get(kind="deposit")
    assert refusal(take_back, reversal) == "not_reversible"
    assert refusal(take_back, reversal.reverses) == "already_reversed"
    assert refusal(take_back, deposit, key=reversal.key) == "reversal_conflict"
    for memo in ("", "  ", "x" * 301):
        assert refusal(take_back, deposit, memo=memo) == "no_reason"


def test_what_is_spent_is_not_taken_back():
    tenant = a_tenant("ann", credits=1)
    contract = a_contract(tenant, a_seller())
    ledger.escrow_hold(contract=contract, amount_micro=1, key="h", now=NOW)
    group = EntryGroup.objects.get(kind="deposit")
    assert refusal(take_back, group) == "insufficient_funds"


def test_credits_of_a_contract_are_taken_back_and_its_settlement_stays():
    contract = settled(a_scene())
    Venue.objects.update(currency="credits")
    rules = contract.rules
    ppm = {"version": rules.version + 1, "issue_per_gpu_hour_micro": 3 * MICRO}
    type(rules).objects.create(
        venue=rules.venue, actor="t", why="t", created_at=NOW, decay_ppm=0, **ppm
    )
    contracts.contracts_finalise(now=later(10**7))
    type(contract).objects.filter(pk=contract.pk).update(rules=None)
    assert credits.contributions_issue(venue=a_venue(), now=later(10**7)) == 1
    group = EntryGroup.objects.get(key=f"issue:contract:{contract.pk}")
    assert take_back(group, at=10**7)
    assert balances("credits") == {}
    assert credits.contributions_issue(venue=a_venue(), now=later(10**7)) == 0
    type(contract).objects.filter(pk=contract.pk).update(rules=rules)
    contract.refresh_from_db()
    holds(contract)


def test_a_replay_holds_with_a_reversed_deposit():
    a_tenant("ann", credits=5)
    assert take_back(EntryGroup.objects.get(kind="deposit"))
    assert replay().findings == []


def test_the_credit_of_a_member_is_set_and_given_back_with_a_line_in_the_audit_log():
    member, venue = a_member("alder"), a_venue()
    named = {"member": member, "actor": "user:op", "now": NOW}
    changed = member_credit_set(credit_micro=7 * MICRO, **named)
    assert ledger.credit_limit(changed, venue) == 7 * MICRO
    assert ledger.credit_limit(member_credit_set(credit_micro=0, **named), venue) == 0
    member_credit_set(credit_micro=None, **named)
    assert ledger.credit_limit(Member.objects.get(pk=member.pk), venue) == 1000 * MICRO
    story = Event.objects.filter(subject="member", event="credit", actor="user:op")
    assert [line.why for line in story.order_by("id")] == [
        "as the rules say -> 7.000000",
        "7.000000 -> 0.000000",
        "0.000000 -> as the rules say",
    ]
    for amount in (-1, 10**15 + 1):
        assert refusal(member_credit_set, credit_micro=amount, **named) == "bad_amount"
    assert Member.objects.get(pk=member.pk).credit_micro is None
