"""Objections and decisions: one contract's money, and nobody else's."""

from __future__ import annotations

import itertools

import pytest

from federation.errors import BadInput, Refused
from federation.models import Account, Contract, EntryGroup, Event, Job, User
from federation.selectors.contracts import job_differences
from federation.selectors.disputes import contracts_visible, disputes_visible, party_of
from federation.selectors.replay import replay
from federation.services import ledger
from federation.services.contracts import (
    contracts_finalise,
    contracts_measure,
    contracts_settle,
)
from federation.services.disputes import dispute_decide, dispute_withdraw, evidence_add
from federation.services.funds import withdraw
from federation.services.leases import Ending
from federation.services.reports import reports_accept
from tests.federation.contract_scene import (
    HOUR,
    SOLD,
    WINDOW,
    a_scene,
    decide,
    delivered,
    holds,
    object_to,
    purse,
    settled,
)
from tests.support.world import a_member, a_site, a_tenant, a_venue, later, pay

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene():
    return a_scene()


def test_an_objection_is_decided_and_only_the_difference_moves(scene):
    contract = settled(scene)
    tenant, member = scene.job.tenant, scene.agent.site.member
    before = purse("tenant_cash", tenant), purse("member_earnings", member)
    dispute = object_to(contract, claimed=2_384_640)
    contract.refresh_from_db()
    assert contract.state == "disputed"
    evidence_add(
        dispute=dispute, actor="user:tenant", text="My log.", body={"lines": 3}, now=later(4100)
    )
    decide(dispute, 2_384_640)
    contract.refresh_from_db()
    assert (contract.paid_micro, contract.refunded_micro, contract.penalty_micro) == (
        *(61_632_640, 5_359_360),
        1_004_880,
    )
    moved = 5_359_360 + 1_004_880
    assert purse("tenant_cash", tenant) - before[0] == moved
    assert purse("member_earnings", member) - before[1] == -moved
    scene.job.refresh_from_db()
    assert scene.job.spent_micro == 61_632_640
    assert contract.postings == 2
    dispute.refresh_from_db()
    assert (dispute.state, dispute.accepted, dispute.cause) == ("decided", 2_384_640, "site")
    assert EntryGroup.objects.get(key=f"settle:{contract.pk}:2").reverses.key == (
        f"settle:{contract.pk}"
    )
    holds(contract)


def test_a_decision_that_no_purse_can_bear_is_refused_and_can_be_made_otherwise(scene):
    """The tenant has spent the refund that the decision would take back."""
    contract = settled(scene, 2_000_000)
    cash = Account.objects.get(kind="tenant_cash", tenant=scene.job.tenant)
    issuance = Account.objects.get(kind="issuance")
    ledger.post(
        key="spent",
        kind="withdrawal",
        currency="cash",
        entries=[(cash, -cash.balance_micro), (issuance, cash.balance_micro)],
        now=later(3800),
    )
    dispute = object_to(contract, by="site", claimed=SOLD)
    with pytest.raises(Refused) as refusal:
        decide(dispute, SOLD)
    assert refusal.value.code == "insufficient_funds"
    dispute.refresh_from_db()
    contract.refresh_from_db()
    assert (dispute.state, contract.state, contract.postings) == ("open", "disputed", 1)
    holds(contract)
    decide(dispute, 2_000_000, cause="site")
    contract.refresh_from_db()
    assert (contract.state, contract.postings) == ("settled", 1)  # nothing had to move


def test_a_refund_under_dispute_cannot_be_spent_and_the_decision_finds_it():
    tenant = a_tenant(credits=134)
    scene = a_scene(tenant=tenant)
    contract = settled(scene, SOLD // 2)
    cash, escrow = purse("tenant_cash", tenant), purse("tenant_escrow", tenant)
    stake = contract.refunded_micro + contract.penalty_micro
    dispute = object_to(contract, by="site", claimed=SOLD)
    assert purse("tenant_cash", tenant) == cash - stake == 16_000
    assert purse("tenant_escrow", tenant) == escrow + stake
    with pytest.raises(Refused) as refusal:
        a_scene(tenant=tenant, payment_micro=30_000_000)
    assert refusal.value.code == "insufficient_funds"
    spare = {"tenant": tenant, "venue": a_venue(), "actor": "op", "now": later(4100)}
    with pytest.raises(Refused):
        withdraw(amount_micro=16_001, key="w1", **spare)
    assert withdraw(amount_micro=16_000, key="w2", **spare)  # that is not at stake
    holds(contract)
    decide(dispute, 2_000_000, "site")
    contract.refresh_from_db()
    assert contract.paid_micro == 66_992_000 * 2_000_000 // SOLD
    assert purse("tenant_escrow", tenant) == escrow
    given = contract.refunded_micro + contract.penalty_micro
    assert purse("tenant_cash", tenant) == given
    assert replay().findings == []
    holds(contract)


def test_a_withdrawn_objection_gives_back_what_it_froze(scene):
    contract, tenant = settled(scene, 2_384_640), scene.job.tenant
    before = purse("tenant_cash", tenant), purse("tenant_escrow", tenant)
    dispute = object_to(contract)
    assert before[0] - purse("tenant_cash", tenant) == 5_359_360 + 1_004_880
    dispute_withdraw(dispute=dispute, why="My mistake.", actor="user:tenant", now=later(4500))
    assert (purse("tenant_cash", tenant), purse("tenant_escrow", tenant)) == before
    keys = EntryGroup.objects.filter(key__startswith="dispute:").order_by("key")
    assert [(g.key, g.kind) for g in keys] == [
        (f"dispute:{dispute.pk}", "earnest"),
        (f"dispute:{dispute.pk}:end", "release"),
    ]
    holds(contract)


def test_a_contract_that_is_not_paid_yet_has_nothing_more_to_freeze(scene):
    delivered(scene, SOLD)
    contracts_measure(now=later(3700))
    object_to(Contract.objects.get(pk=scene.contracts[0].pk))
    assert not EntryGroup.objects.filter(key__startswith="dispute:").exists()


@pytest.mark.parametrize("cause", ["site", "tenant", "market", "none"])
@pytest.mark.parametrize("accepted", [0, 1_296_000, SOLD, 10**15])
def test_whatever_is_decided_stays_within_escrow_and_bond(scene, cause, accepted):
    contract = settled(scene, 2_000_000)
    decide(object_to(contract), accepted, cause)
    contract.refresh_from_db()
    assert contract.paid_micro + contract.refunded_micro == contract.payment_micro
    assert 0 <= contract.penalty_micro <= contract.bond_micro
    assert (contract.penalty_micro == 0) or cause == "site"
    holds(contract)


def test_a_decision_may_say_that_the_site_made_the_program_end(scene):
    scene.say(1800, 1_000_000, gpu_seconds=4 * HOUR, ending=Ending("exited", 1))
    pay(later(1801))
    contract = scene.contract
    assert (contract.cause, contract.penalty_micro) == ("tenant", 0)
    decide(object_to(contract, code="bad_gpu"), 1_000_000, "site")
    contract.refresh_from_db()
    assert (contract.due, contract.penalty_micro) == (SOLD, contract.bond_micro)
    holds(contract)


def test_a_withdrawn_objection_leaves_what_stood_before(scene):
    contract = settled(scene, 2_384_640)
    dispute = object_to(contract)
    dispute_withdraw(dispute=dispute, why="My mistake.", actor="user:tenant", now=later(4500))
    contract.refresh_from_db()
    assert (contract.state, contract.postings, contract.paid_micro) == ("settled", 1, 61_632_640)
    decide(object_to(contract, by="site", at=4600), SOLD, "none", at=4700)
    contract.refresh_from_db()
    assert contract.paid_micro == 66_992_000
    with pytest.raises(Refused) as refusal:
        object_to(contract, at=4800)
    assert refusal.value.code == "heard_before"
    holds(contract)


def test_withdrawing_does_not_unsay_an_earlier_decision(scene):
    contract = settled(scene, 2_384_640)
    decide(object_to(contract, by="site"), SOLD, "none")
    dispute = object_to(contract, at=5100)
    dispute_withdraw(dispute=dispute, why="", actor="user:tenant", now=later(5200))
    contract.refresh_from_db()
    assert contract.paid_micro == 66_992_000
    holds(contract)


def test_a_measured_contract_can_be_disputed_before_it_is_paid(scene):
    delivered(scene, SOLD)
    contracts_measure(now=later(3700))
    contract = Contract.objects.get(pk=scene.contracts[0].pk)
    dispute = object_to(contract)
    scene.job.refresh_from_db()
    assert scene.job.held_micro == 2 * 66_992_000  # its escrow is frozen, and the next round's
    holds(contract)
    decide(dispute, 1_296_000, "market")
    contract.refresh_from_db()
    assert (contract.paid_micro, contract.postings) == (33_496_000, 1)
    assert contract.final_at == later(5000 + WINDOW)
    holds(contract)


def test_who_may_not_object_any_more(scene):
    def refused(contract, **said):
        with pytest.raises(Refused) as refusal:
            object_to(contract, **said)
        return refusal.value.code

    assert refused(scene.contract) == "not_measured"
    contract = settled(scene)
    assert refused(contract, at=3700 + WINDOW) == "window_over"
    dispute = object_to(contract)
    assert refused(contract, by="site") == "disputed_already"
    assert contracts_finalise(now=later(3700 + WINDOW)) == []  # the dispute is open
    decide(dispute, SOLD, "none")
    contracts_finalise(now=later(3700 + WINDOW))
    assert refused(contract, by="site") == "window_over"
    with pytest.raises(Refused) as refusal:
        decide(dispute, 1)
    assert refusal.value.code == "dispute_decided"
    with pytest.raises(Refused):
        evidence_add(dispute=dispute, actor="t", text="late", body=None, now=later(9000))


@pytest.mark.parametrize(
    ("accepted", "cause", "why"), [(-1, "site", "x"), (1, "nobody", "x"), (1, "site", " ")]
)
def test_a_decision_that_makes_no_sense_is_bad_input(scene, accepted, cause, why):
    dispute = object_to(settled(scene))
    with pytest.raises(BadInput):
        dispute_decide(
            dispute=dispute, accepted=accepted, cause=cause, why=why, actor="t", now=later(5000)
        )


def test_the_running_cost_of_a_decision_does_not_depend_on_the_order_of_reports():
    """The next contract's report overtakes the last one of the contract before it."""
    for turned in (False, True):
        scene = a_scene()
        late = scene.report(1000, gpu_seconds=3600.0)
        scene.next(HOUR / 2)
        end = Ending("driver_failed", None)
        last = scene.report(1, total=1001, gpu_seconds=7200.0, ending=end)
        for one in (last, late) if turned else (late, last):
            reports_accept(site=scene.agent.site, reports=[one], now=later(HOUR))
        contracts_measure(now=later(HOUR + 1))
        contracts_settle(now=later(HOUR + 1))
        contract = scene.contract
        dispute = object_to(contract, claimed=1)
        decide(dispute, 1, "tenant")
        contract.refresh_from_db()
        assert contract.paid_micro == 1_500_000, "one GPU-hour at its reserve"
        holds(contract)


def test_a_dispute_never_touches_another_contract_s_money():
    tenant, site = a_tenant(credits=100_000), a_site(gpus=8)
    scenes = [a_scene(tenant=tenant, site=site) for _ in range(4)]
    contracts = [
        settled(scene, samples)
        for scene, samples in zip(scenes, (SOLD, 2_384_640, 1_000_000, 0), strict=True)
    ]

    def others(own):
        rows = Contract.objects.exclude(pk=own.pk).order_by("pk")
        entries = EntryGroup.objects.exclude(contract=own).order_by("pk")
        jobs = Job.objects.exclude(pk=own.lease.job_id).order_by("pk")
        return (
            list(rows.values()),
            list(entries.values_list("pk", "entries__account", "entries__amount_micro")),
            list(jobs.values("spent_micro", "held_micro", "state")),
        )

    for contract, (accepted, cause) in zip(
        contracts, [(0, "site"), (SOLD, "none"), (SOLD, "site"), (9, "tenant")], strict=True
    ):
        before = others(contract)
        dispute = object_to(contract)
        assert others(contract) == before
        decide(dispute, accepted, cause)
        assert others(contract) == before
        holds(contract)


def test_money_of_a_probe_s_parent_follows_a_decision(scene):
    parent = scene.job
    probe = a_scene(tenant=parent.tenant)
    Job.objects.filter(pk=probe.job.pk).update(kind="probe", parent=parent)
    Job.objects.filter(pk=parent.pk).update(held_micro=2 * 66_992_000)
    contract = probe.contracts[0]
    probe.say(1800, 1_000_000, gpu_seconds=4 * HOUR, ending=Ending("exited", 1))
    pay(later(1801))
    decide(object_to(contract), 1_296_000, "none")
    parent.refresh_from_db()
    assert (parent.spent_micro, parent.held_micro) == (33_496_000, 66_992_000)
    assert job_differences(parent) == ()


def test_every_step_stands_in_the_story(scene):
    contract = settled(scene)
    dispute = object_to(contract)
    evidence_add(dispute=dispute, actor="user:site", text="Here.", body=None, now=later(4100))
    decide(dispute, SOLD, "none")
    story = Event.objects.filter(subject="dispute", subject_id=str(dispute.pk)).order_by("id")
    assert list(story.values_list("event", "actor")) == [
        ("open", "user:tenant"),
        ("evidence", "user:site"),
        ("decide", "user:operator"),
    ]
    moves = Event.objects.filter(subject="contract", subject_id=str(contract.pk)).order_by("id")
    assert list(moves.values_list("event", flat=True)) == [
        *("deliver", "measure", "settle"),
        *("dispute", "decide"),
    ]


# --- who sees what ---------------------------------------------------------------------------


def test_each_user_sees_the_contracts_that_concern_it(scene):
    contract = settled(scene)
    other = a_scene(
        tenant=a_tenant(member=a_member("clover")), site=a_site(member=a_member("dill"))
    )
    dispute = object_to(contract)
    names = itertools.count()

    def user(**fields):
        return User.objects.create(username=f"u{next(names)}", **fields)

    seen = {
        "operator": user(is_staff=True),
        "tenant": user(member=a_member("birch"), tenant=scene.job.tenant),
        "owner": user(member=a_member("birch")),
        "seller": user(member=a_member("alder")),
        "stranger": user(member=a_member("elder")),
        "nobody": user(),
        "gone": user(member=a_member("alder"), is_active=False),
    }
    shown = {name: set(contracts_visible(u)) for name, u in seen.items()}
    own = set(Contract.objects.filter(lease=scene.lease))
    assert shown["operator"] == own | {other.contract}
    assert shown["tenant"] == shown["owner"] == shown["seller"] == own
    assert shown["stranger"] == shown["nobody"] == shown["gone"] == set()
    assert [d.pk for d in disputes_visible(seen["seller"])] == [dispute.pk]
    assert not disputes_visible(seen["stranger"]).exists()
    parties = {name: party_of(u, contract) for name, u in seen.items()}
    assert parties == {
        **dict.fromkeys(("operator", "stranger", "nobody", "gone")),
        **{"tenant": "tenant", "owner": "tenant", "seller": "site"},
    }
