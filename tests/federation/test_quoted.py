"""A line held against its quote, alone: every code, the order of the codes, exact integers."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.money import as_text
from federation.quoted import CODES, LONGEST, Line, Pin, Quoted, compared, quoted_read
from tests.support.world import NOW

QUOTED = Quoted(
    id="q",
    round=7,
    expires_at=NOW + timedelta(seconds=20),
    pool="north.gpu",
    gpus=2,
    price_micro=10_000_000,
    samples=20_000,
    samples_per_s=2000.0,
    payment_micro=55_556,
    offers=(Pin("north", 3, "o"), Pin("south", 1, "p")),
)
#: what the next round sells when nothing has changed, settled in full
LINE = Line(
    opened_at=NOW + timedelta(seconds=10),
    round=8,
    site="north",
    pool="north.gpu",
    offer_version=3,
    gpus=2,
    price_micro=10_000_000,
    contracted=20_000,
    payment_micro=55_556,
    samples_per_s=2000.0,
    steps=0,
    accepted=20_000,
    pay_micro=55_556,
    penalty_micro=0,
    decided=False,
)
DEARER = {"price_micro": 20_000_000, "payment_micro": 111_112, "pay_micro": 111_112}
LATE = {"opened_at": NOW + timedelta(seconds=20)}
#: code -> what of the line is otherwise; each also holds what the codes after it would say
CASES = {
    "as_quoted": {**LATE, "offer_version": 9, "pool": "east.gpu", "gpus": 4},
    "decision": {"accepted": 10_000, "pay_micro": 30_000, "decided": True},
    "running_cost": {"accepted": 10_000, "pay_micro": 30_000, "penalty_micro": 1},
    "penalty": {"accepted": 10_000, "pay_micro": 27_778, "penalty_micro": 5},
    "rounding": {**LATE, "steps": 1, "payment_micro": 55_557, "pay_micro": 55_557},
    "quote_expired": {**LATE, **DEARER, "offer_version": 4},
    "offer_changed": {**DEARER, "offer_version": 4, "pool": "north.big"},
    "other_pool": {**DEARER, "pool": "north.big", "gpus": 4},
    "other_size": {**DEARER, "gpus": 4},
    "price_moved": {**DEARER, "samples_per_s": 1000.0},
    "speed_corrected": {"samples_per_s": 1000.0, "contracted": 10_000, "accepted": 10_000},
    "other_amount": {"contracted": 10_000, "accepted": 10_000},
}


def test_there_is_a_case_for_every_code():
    assert list(CASES) == list(CODES)


def test_the_reference_lists_every_code_as_it_is_meant():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
    section = page.split("## A line and its quote")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == list(CODES.items())


@pytest.mark.parametrize("code", CASES)
def test_the_first_reason_on_record_is_named_with_both_figures(code):
    line = replace(LINE, **CASES[code])
    found = compared(QUOTED, line)
    assert found.code == code
    assert found.charged_micro == line.pay_micro - line.penalty_micro
    assert found.quoted_micro == 55_556 * line.accepted // 20_000
    assert as_text(found.quoted_micro) in found.why
    assert as_text(found.charged_micro) in found.why


def test_the_sentence_of_a_moved_price_names_both_prices():
    found = compared(QUOTED, replace(LINE, **DEARER))
    assert found.why == (
        "Round 8 posted 20.000000 credits per GPU-hour, the quote says 10.000000. For 20000 "
        "samples the quote gives 0.055556 credits, the line is 0.111112."
    )


def test_one_micro_credit_is_a_difference():
    assert compared(QUOTED, replace(LINE, pay_micro=55_557)).code == "running_cost"
    more = replace(LINE, payment_micro=55_557, pay_micro=55_557)
    assert compared(QUOTED, more).code == "other_amount"


@pytest.mark.parametrize("speed", [2000.0 * (1 + 1e-9), 4000.0, 1999.0])
def test_a_speed_is_the_reason_only_where_it_explains_the_rate(speed):
    """Half of the work for the same price: neither the same speed nor a higher one makes that."""
    line = replace(LINE, samples_per_s=speed, contracted=10_000, accepted=10_000)
    assert compared(QUOTED, line).code == "other_amount"


def test_what_is_not_on_record_is_no_reason():
    unknown = replace(LINE, **DEARER, offer_version=None, samples_per_s=None)
    assert compared(QUOTED, unknown).code == "price_moved"
    nothing = replace(LINE, contracted=0, accepted=0, payment_micro=0, pay_micro=0)
    assert compared(QUOTED, nothing).code == "as_quoted"


def test_a_quote_is_read_as_it_was_kept():
    assert quoted_read(QUOTED.document()) == QUOTED


def test_the_longest_sentence_fits_its_column():
    name = "n" * 63
    longest = replace(
        LINE,
        pool=f"{name}.{name}",
        payment_micro=10**17,
        pay_micro=10**17,
        accepted=10**15,
        contracted=10**15,
    )
    found = compared(replace(QUOTED, pool=f"{name}.x{name[1:]}", samples=1), longest)
    assert found.code == "other_pool"
    assert len(found.why) < LONGEST


amounts = st.integers(0, 10**12)


@given(
    payment=amounts,
    samples=st.integers(1, 10**9),
    contracted=st.integers(1, 10**9),
    share=st.floats(0, 1),
    pay=amounts,
    penalty=st.integers(0, 10**6),
    price=st.sampled_from([10_000_000, 10_000_001]),
    gpus=st.sampled_from([2, 4]),
    steps=st.integers(0, 3),
    seconds=st.sampled_from([10, 20]),
    decided=st.booleans(),
)
def test_as_quoted_exactly_where_the_integers_are_equal_else_one_known_code(
    payment, samples, contracted, share, pay, penalty, price, gpus, steps, seconds, decided
):
    quoted = replace(QUOTED, payment_micro=payment, samples=samples)
    accepted = int(contracted * share)
    line = replace(
        LINE,
        contracted=contracted,
        accepted=accepted,
        payment_micro=pay,
        pay_micro=pay * accepted // contracted,
        penalty_micro=penalty,
        price_micro=price,
        gpus=gpus,
        steps=steps,
        opened_at=NOW + timedelta(seconds=seconds),
        decided=decided,
    )
    found = compared(quoted, line)
    equal = line.pay_micro - penalty == payment * accepted // samples
    assert (found.code == "as_quoted") == equal
    assert found.code in CODES
    assert found.why
