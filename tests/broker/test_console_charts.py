"""Figures and words as pure functions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.console import charts, words

BOOK = {
    "format": "hanse.book/1",
    "round_hours": 1.0,
    "pools": [
        {"id": "A.G", "site": "A", "gpu": "G", "gpus": 6, "reserve": 1.0},
        {"id": "B.G", "site": "B", "gpu": "G", "gpus": 4, "reserve": 0.8},
    ],
    "affinity": [
        {"pool": "A.G", "class": "unit", "samples_per_s": 1e6 / 3600},
        {"pool": "B.G", "class": "unit", "samples_per_s": 250.0},
    ],
    "jobs": [
        {"id": "a1", "site": "A", "class": "unit", "value": 4.0, "gang": 4},
        {"id": "b1", "site": "B", "class": "unit", "value": 3.5, "gang": 2},
        {"id": "c1", "site": "C", "class": "unit", "value": 5.0, "gang": 4},
        {"id": "c2", "site": "C", "class": "unit", "value": 3.0, "gang": [1, 2, 4]},
        {"id": "c3", "site": "C", "class": "unit", "value": 9.0, "gang": 1, "pools": ["B.G"]},
        {"id": "c4", "site": "C", "class": "other", "value": 9.0, "gang": 1},
    ],
}
CLEARING = {
    "prices": {"A.G": 3.3, "B.G": 2.9},
    "allocation": [
        {"job": "a1", "pool": "B.G", "gpu_hours": 4.0},
        {"job": "b1", "pool": "A.G", "gpu_hours": 2.0},
        {"job": "c1", "pool": "A.G", "gpu_hours": 4.0},
    ],
}


def test_bids_at_a_pool_are_the_values_of_one_gpu_hour_dearest_first() -> None:
    awarded = {"b1": 2.0, "c1": 4.0}
    bids = charts.bids_at(BOOK, "A.G", awarded, skip={"a1"})
    assert [(b.job, b.awarded) for b in bids] == [("c1", True), ("b1", True), ("c2", False)]
    assert [b.value for b in bids] == pytest.approx([5.0, 3.5, 3.0])
    assert [b.gpu_hours for b in bids] == [4.0, 2.0, 1.0]


def test_demand_caps_what_a_bid_is_worth() -> None:
    job = {"id": "j", "class": "unit", "value": 4.0, "gang": 2, "demand": 1.0}
    [bid] = charts.bids_at({**BOOK, "jobs": [job]}, "A.G", {}, skip=set())
    assert bid.value == pytest.approx(2.0)  # 1 of the 2 million samples that 2 GPU-hours make


def test_the_merit_order_has_units_a_finding_and_a_table() -> None:
    chart = charts.merit_order(BOOK, CLEARING, "A.G", {"c1": "llama"})
    assert chart is not None
    assert chart.finding == (
        "A.G sells 6 of 6 GPU-h to 2 of 3 bids at 3.3 credits per GPU-hour, "
        "2.3 above its reserve. 1 bids were served elsewhere."
    )
    axes = chart.figure["layout"]
    assert axes["xaxis"]["title"]["text"] == "GPU-hours in the round"
    assert axes["yaxis"]["title"]["text"] == "credits per GPU-hour"
    traces = {trace["name"]: trace for trace in chart.figure["data"]}
    assert list(traces["awarded here"]["width"]) == [4.0, 2.0]
    assert list(traces["not awarded"]["x"]) == [6.5]
    assert list(traces["price"]["y"]) == [3.3, 3.3]
    assert chart.rows[0] == ("llama", "5", "4", "yes")
    assert len(chart.rows) == 3


def test_a_book_without_a_clearing_still_has_a_merit_order() -> None:
    chart = charts.merit_order(BOOK, None, "A.G")
    assert chart is not None
    assert chart.finding == "4 bids want A.G; no price is on record."
    assert "price" not in {trace["name"] for trace in chart.figure["data"]}
    assert charts.merit_order(BOOK, None, "nowhere") is None


def test_a_pool_that_nobody_wants() -> None:
    chart = charts.merit_order({**BOOK, "jobs": []}, CLEARING, "B.G")
    assert chart is not None
    assert chart.finding.startswith("Nobody who was not served elsewhere bid for B.G.")


def test_a_small_line_breaks_where_there_was_nothing() -> None:
    assert charts.spark([]) == []
    assert charts.spark([None, None]) == []
    left, right = charts.spark([1.0, 3.0, None, 2.0])
    assert left == "2.0,25.0 40.7,3.0"
    assert right == "118.0,14.0 118.0,14.0"


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (66_992_000, "66.992"),
        (0, "0.00"),
        (-1_500_000, "−1.50"),
        (1_234_567_890_123, "1,234,567.890123"),
        (None, "–"),
    ],
)
def test_money(micro: int | None, text: str) -> None:
    assert words.money(micro) == text


def test_columns_of_money_line_up() -> None:
    assert words.price(2_812_457_455) == "2,812.4575"
    assert words.exact(-5) == "−0.000005"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12345.6, "12,346"), (0.000123456, "0.0001235"), (1e-9, "1e−09"), (None, "–")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.25, "3.25 s"), (95, "1 min 35 s"), (3600, "1 h"), (90061, "1 d 1 h"), (-20, "−20 s")],
)
def test_spans(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


def test_shares_and_counts() -> None:
    assert words.percent(0.0) == "0 %"
    assert words.percent(0.0001) == "<0.1 %"
    assert words.percent(0.987) == "98.7 %"
    assert words.count(3_800_000) == "3.8 M"
    assert words.count(950) == "950"


def test_moments_are_told_in_utc() -> None:
    at = datetime(2026, 11, 21, 12, 4, 10, tzinfo=UTC)
    assert words.moment(at, at) == "12:04:10"
    assert words.moment(at, at.replace(day=22)) == "21 Nov 12:04"
    assert words.moment(at, at.replace(year=2027)) == "2026-11-21"
    assert words.in_full(at) == "2026-11-21 12:04:10 UTC"
