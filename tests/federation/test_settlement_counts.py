"""The second counter: what a tenant's trainer counted, in whatever order it is heard."""

from __future__ import annotations

import pytest

from federation.errors import BadInput, Refused
from federation.models import Contract, Count, Dispute
from federation.services.disputes import dispute_withdraw
from tests.federation.contract_scene import (
    SOLD,
    WINDOW,
    a_scene,
    count,
    decide,
    holds,
    object_to,
    settled,
)
from tests.support.world import later

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene():
    return a_scene()


def test_a_repeated_count_is_one_and_a_contradiction_is_refused(scene):
    first = count(scene, 100, last=False)
    assert count(scene, 100, last=False).pk == first.pk
    for samples, last in ((101, False), (100, True)):
        with pytest.raises(Refused) as refusal:
            count(scene, samples, last=last)
        assert refusal.value.code == "count_conflict"
    assert Count.objects.count() == 1


def test_a_counter_goes_up_in_whatever_order_it_is_heard(scene):
    count(scene, 100, seq=2, last=False)
    count(scene, 100, seq=1, last=False)
    count(scene, 300, seq=5, last=False)
    for samples, seq in ((99, 3), (301, 4)):
        with pytest.raises(Refused) as refusal:
            count(scene, samples, seq=seq, last=False)
        assert refusal.value.code == "count_not_monotone"
    with pytest.raises(Refused) as refusal:
        count(scene, 300, seq=4, last=True)
    assert refusal.value.code == "count_after_last"
    count(scene, 300, seq=6, last=True)
    with pytest.raises(Refused) as refusal:
        count(scene, 300, seq=7, last=False)
    assert refusal.value.code == "count_after_last"
    assert scene.contract.counted == 300


@pytest.mark.parametrize(("seq", "samples"), [(0, 1), (1, -1), (2**31, 1), (1, 10**15 + 1)])
def test_absurd_counts_are_bad_input(scene, seq, samples):
    with pytest.raises(BadInput):
        count(scene, samples, seq=seq)


def test_nobody_counts_for_a_probe_or_after_the_window(scene):
    contract = settled(scene)
    with pytest.raises(Refused) as refusal:
        count(scene, SOLD, at=3700 + WINDOW)
    assert refusal.value.code == "window_over"
    Contract.objects.filter(pk=contract.pk).update(basis="gpu_ms")
    with pytest.raises(Refused) as refusal:
        count(scene, SOLD)
    assert refusal.value.code == "not_counted"


@pytest.mark.parametrize("when", ["before", "after"])
def test_within_the_tolerance_the_lower_count_is_paid_whenever_it_is_heard(scene, when):
    lower = SOLD * 985 // 1000
    if when == "before":
        count(scene, lower)
        contract = settled(scene)
    else:
        settled(scene)
        count(scene, lower, at=3800)
        contract = Contract.objects.get(pk=scene.contracts[0].pk)
    assert (contract.state, contract.accepted) == ("settled", lower)
    assert contract.paid_micro == 66_992_000 * lower // SOLD
    assert contract.final_at == later(3700 + WINDOW)
    assert contract.postings == (1 if when == "before" else 2)
    holds(contract)


@pytest.mark.parametrize("when", ["before", "after"])
def test_beyond_the_tolerance_the_two_counters_are_a_dispute(scene, when):
    lower = SOLD * 97 // 100
    if when == "before":
        count(scene, lower)
        contract = settled(scene)
        assert contract.postings == 0  # its money waits
    else:
        settled(scene)
        count(scene, lower, at=3800)
        contract = Contract.objects.get(pk=scene.contracts[0].pk)
    assert contract.state == "disputed"
    [dispute] = Dispute.objects.all()
    assert (dispute.by, dispute.code, dispute.claimed) == ("broker", "counters_differ", lower)
    with pytest.raises(Refused) as refusal:
        dispute_withdraw(dispute=dispute, why="", actor="user:x", now=later(4000))
    assert refusal.value.code == "not_yours"
    decide(dispute, lower)
    contract.refresh_from_db()
    assert (contract.state, contract.paid_micro) == ("settled", 66_992_000 * 97 // 100)
    holds(contract)


def test_a_late_count_does_not_unsay_a_decision(scene):
    contract = settled(scene)
    decide(object_to(contract), 2_000_000)
    count(scene, 1_990_000, at=6000)
    contract.refresh_from_db()
    assert (contract.state, contract.accepted, contract.counted) == (
        *("settled", 2_000_000),
        1_990_000,
    )
    holds(contract)
