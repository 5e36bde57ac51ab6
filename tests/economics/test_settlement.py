"""Money is whole micro-credits and never made or lost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from economics.settlement import (
    PPM,
    Cause,
    Delivery,
    Outcome,
    Paid,
    Terms,
    settle,
    settle_contract,
    split,
)

amounts = st.integers(0, 10**18)


@given(amounts, amounts, amounts)
def test_pay_and_refund_are_the_payment(payment, contracted, delivered):
    paid = settle(payment_micro=payment, contracted=contracted, delivered=delivered)
    assert paid.pay_micro + paid.refund_micro == payment
    assert 0 <= paid.pay_micro <= payment


@given(amounts, st.integers(1, 10**18), amounts)
def test_over_delivery_pays_what_delivery_pays(payment, contracted, more):
    exact = settle(payment_micro=payment, contracted=contracted, delivered=contracted)
    over = settle(payment_micro=payment, contracted=contracted, delivered=contracted + more)
    assert exact == over == Paid(payment, 0)


def test_the_worked_settlement():
    """92 % of 'C lm on A.H': 61.6326 of 66.9920 credits are due."""
    paid = settle(payment_micro=66_992_000, contracted=2_592_000, delivered=2_384_640)
    assert paid == Paid(61_632_640, 5_359_360)


def test_nothing_contracted_is_all_refunded():
    assert settle(payment_micro=5, contracted=0, delivered=9) == Paid(0, 5)


@pytest.mark.parametrize("name", ["payment_micro", "contracted", "delivered"])
def test_negative_amounts_are_refused(name):
    with pytest.raises(ValueError, match=name):
        settle(**{"payment_micro": 1, "contracted": 1, "delivered": 1, name: -1})


@given(st.integers(-(10**15), 10**15), st.lists(st.integers(0, 10**9), min_size=1, max_size=12))
def test_parts_sum_to_the_whole(total, weights):
    if sum(weights) == 0:
        weights[0] = 1
    parts = split(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)


def test_ties_go_to_the_earlier_part():
    assert split(2, (1, 1, 1)) == (1, 1, 0)
    assert split(-2, (1, 1, 1)) == (-1, -1, 0)
    assert split(10, (1, 0, 3)) == (3, 0, 7)


def test_nothing_to_split_by():
    assert split(0, (0, 0)) == (0, 0)
    assert split(0, ()) == ()
    with pytest.raises(ValueError, match="sum to zero"):
        split(1, (0, 0))
    with pytest.raises(ValueError, match="negative"):
        split(1, (2, -1))


WORKED = Terms(
    payment_micro=66_992_000,
    contracted=2_592_000,
    bond_micro=13_398_400,
    price_micro=8_374_000,
    reserve_micro=1_500_000,
)
SHORT = Delivery(delivered=2_384_640, counted=2_384_640, gpu_ms=28_800_000, cause=Cause.SITE)
prices = st.integers(0, 10**9)


@st.composite
def contracts(draw):
    return Terms(
        payment_micro=draw(amounts),
        contracted=draw(st.integers(0, 10**12)),
        bond_micro=draw(amounts),
        price_micro=draw(prices),
        reserve_micro=draw(prices),
        kappa_ppm=draw(st.integers(0, 3 * PPM)),
        dead_band_ppm=draw(st.integers(0, PPM)),
        tolerance_ppm=draw(st.integers(0, PPM)),
    )


@st.composite
def deliveries(draw, contracted):
    """What two counters may say of a contract, near what was due as often as far from it."""
    samples = st.integers(0, 2 * contracted + 1) | st.integers(0, 10**13)
    return Delivery(
        delivered=draw(samples),
        counted=draw(st.none() | samples),
        gpu_ms=draw(st.integers(0, 10**12)),
        due=draw(st.none() | st.integers(0, contracted)),
        cause=draw(st.sampled_from(Cause)),
        started=draw(st.booleans()),
    )


@given(st.data(), contracts())
def test_escrow_and_bond_are_divided_exactly(data, terms):
    """I27: nothing is made or lost, and no penalty passes the bond."""
    outcome = settle_contract(terms, data.draw(deliveries(terms.contracted)))
    assert outcome.pay_micro + outcome.refund_micro == terms.payment_micro
    assert outcome.penalty_micro + outcome.bond_back_micro == terms.bond_micro
    assert min(outcome.pay_micro, outcome.refund_micro) >= 0
    assert min(outcome.penalty_micro, outcome.bond_back_micro) >= 0


@given(st.data(), contracts())
def test_only_samples_of_the_contract_are_paid(data, terms):
    """I27: unless the tenant is at fault, pay is within a micro-credit of the rate per sample."""
    delivery = replace(data.draw(deliveries(terms.contracted)), cause=Cause.SITE)
    outcome = settle_contract(terms, delivery)
    paid = min(outcome.accepted, terms.contracted)
    off = terms.payment_micro * paid - outcome.pay_micro * terms.contracted
    assert 0 <= off <= max(terms.contracted - 1, 0)


@given(st.data(), contracts(), st.integers(0, 10**12))
def test_more_than_contracted_settles_as_exact_delivery_does(data, terms, more):
    """I33, by either counter or both, whoever is at fault."""
    delivery = data.draw(deliveries(terms.contracted))
    exact = replace(delivery, delivered=terms.contracted, counted=terms.contracted)
    over = replace(exact, delivered=terms.contracted + more, counted=terms.contracted + more)
    settled = settle_contract(terms, over)
    assert replace(settled, accepted=terms.contracted) == settle_contract(terms, exact)
    ahead = settle_contract(terms, replace(over, counted=terms.contracted))
    assert replace(ahead, disputed=False) == settle_contract(terms, exact)


@given(st.data(), contracts())
def test_more_samples_never_cost_the_seller(data, terms):
    delivery = data.draw(deliveries(terms.contracted))
    more = data.draw(st.integers(0, 10**12))
    before = settle_contract(terms, replace(delivery, counted=None))
    after = settle_contract(
        terms, replace(delivery, counted=None, delivered=delivery.delivered + more)
    )
    assert after.pay_micro >= before.pay_micro
    assert after.penalty_micro <= before.penalty_micro


def test_the_worked_contract():
    """92 %: the 3 % beyond the dead-band cost half their rate."""
    assert settle_contract(WORKED, SHORT) == Outcome(
        accepted=2_384_640,
        pay_micro=61_632_640,
        refund_micro=5_359_360,
        penalty_micro=1_004_880,
        bond_back_micro=12_393_520,
        shortfall=77_760,
        disputed=False,
    )


@pytest.mark.parametrize("cause", [Cause.MARKET, Cause.NONE, Cause.TENANT])
def test_only_the_site_pays_a_penalty(cause):
    outcome = settle_contract(WORKED, replace(SHORT, cause=cause, started=False))
    assert (outcome.penalty_micro, outcome.shortfall) == (0, 0)
    assert outcome.pay_micro == 61_632_640


def test_within_the_dead_band_there_is_no_penalty():
    just = replace(SHORT, delivered=2_462_400, counted=2_462_400)
    assert settle_contract(WORKED, just).penalty_micro == 0
    missing = replace(just, counted=2_462_399)
    assert settle_contract(WORKED, missing).shortfall == 1
    assert settle_contract(WORKED, missing).penalty_micro == 13  # 12.92 for one sample, rounded up


def test_the_penalty_stops_at_the_bond():
    nothing = replace(SHORT, delivered=0, counted=0)
    assert settle_contract(WORKED, nothing).penalty_micro == WORKED.bond_micro
    rich = replace(WORKED, bond_micro=10**9)
    assert settle_contract(rich, nothing).penalty_micro == 31_821_200  # half the rate of 95 %


def test_a_site_that_did_not_start_loses_its_bond():
    delivery = replace(SHORT, delivered=0, counted=None, gpu_ms=0, started=False)
    outcome = settle_contract(replace(WORKED, bond_micro=10**9), delivery)
    assert (outcome.penalty_micro, outcome.bond_back_micro) == (10**9, 0)
    assert (outcome.pay_micro, outcome.refund_micro) == (0, 66_992_000)


def test_a_contract_that_ended_early_owes_what_was_due_by_then():
    half = replace(SHORT, delivered=1_231_200, counted=1_231_200)  # 95 % of the first half
    assert settle_contract(WORKED, replace(half, due=1_296_000)).penalty_micro == 0
    assert settle_contract(WORKED, half).penalty_micro > 0
    beyond = settle_contract(WORKED, replace(half, due=10**9))
    assert beyond == settle_contract(WORKED, half)  # never more than was contracted


@pytest.mark.parametrize(
    ("gpu_ms", "pay"),
    [
        (3_600_000, 1_500_000),  # one GPU-hour at the reserve
        (28_800_000, 12_000_000),  # all eight
        (10**12, 12_000_000),  # never more than was contracted
        (1, 0),  # a fraction of a micro-credit stays with the tenant
    ],
)
def test_a_tenant_that_starves_its_job_pays_the_running_cost(gpu_ms, pay):
    starved = Delivery(delivered=0, counted=0, gpu_ms=gpu_ms, cause=Cause.TENANT)
    outcome = settle_contract(WORKED, starved)
    assert (outcome.pay_micro, outcome.penalty_micro) == (pay, 0)


def test_a_tenant_at_fault_pays_for_samples_where_those_are_dearer():
    outcome = settle_contract(WORKED, replace(SHORT, cause=Cause.TENANT))
    assert outcome.pay_micro == 61_632_640


def test_counters_too_far_apart_are_a_dispute():
    far = replace(SHORT, delivered=2_592_000, counted=2_540_159)  # 1 sample more than 2 % apart
    near = replace(far, counted=2_540_160)
    assert settle_contract(WORKED, far).disputed
    assert not settle_contract(WORKED, near).disputed
    assert settle_contract(WORKED, far).accepted == 2_540_159
    assert settle_contract(WORKED, replace(far, counted=0)).disputed
    assert not settle_contract(WORKED, replace(far, delivered=0, counted=0)).disputed
    assert not settle_contract(WORKED, replace(far, counted=None)).disputed


@pytest.mark.parametrize("name", ["payment_micro", "bond_micro", "reserve_micro", "kappa_ppm"])
def test_negative_terms_are_refused(name):
    with pytest.raises(ValueError, match=name):
        replace(WORKED, **{name: -1})


@pytest.mark.parametrize("name", ["dead_band_ppm", "tolerance_ppm"])
def test_a_share_above_one_is_refused(name):
    with pytest.raises(ValueError, match=name):
        replace(WORKED, **{name: PPM + 1})


@pytest.mark.parametrize("name", ["delivered", "counted", "gpu_ms", "due"])
def test_negative_measurements_are_refused(name):
    with pytest.raises(ValueError, match=name):
        replace(SHORT, **{name: -1})


def test_nothing_contracted_settles_to_a_refund():
    outcome = settle_contract(replace(WORKED, contracted=0), SHORT)
    assert (outcome.pay_micro, outcome.penalty_micro) == (0, 0)
    assert outcome.refund_micro == WORKED.payment_micro
