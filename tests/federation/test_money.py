"""Amounts where integers meet the mathematics' floating-point numbers."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from federation.money import MAX_MICRO, samples_paid, worth_micro

VALUES = st.integers(1, 10**12)  # micro-credits per million samples
SAMPLES = st.integers(1, 10**12)


def as_the_mathematics_has_it(samples: int, value_micro: int) -> float:
    return (value_micro / 10**6) * (samples / 10**6)


@given(samples=SAMPLES, value=VALUES)
@example(samples=12_347, value=900_000_000)
def test_a_budget_of_its_worth_pays_for_the_work(samples: int, value: int) -> None:
    worth = worth_micro(samples, value)
    exact = -(-samples * value // 10**6)
    assert exact <= worth <= exact + 1
    if worth <= MAX_MICRO:
        assert as_the_mathematics_has_it(samples, value) <= worth / 10**6


@given(budget=st.integers(0, MAX_MICRO), value=VALUES)
@example(budget=11_112_300, value=900_000_000)
def test_what_a_budget_pays_for_is_within_it_and_at_most_one_sample_less(
    budget: int, value: int
) -> None:
    samples = samples_paid(budget, value)
    exact = budget * 10**6 // value
    assert exact - 1 <= samples <= exact
    if 0 < samples <= 10**15:
        assert as_the_mathematics_has_it(samples, value) <= budget / 10**6
