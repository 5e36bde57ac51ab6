"""Each figure of the page on clearing is what the code computes."""

import json
from collections import defaultdict

import pytest

from tests.docs.reading import DOCS, ROOT, tables
from tests.docs.worked_example import BOOK, cleared

PAGE = DOCS / "explanation" / "how-a-round-is-cleared.md"
BY_HEADER = {tuple(rows[0]): rows for rows in tables(PAGE)}


def table(*header):
    return BY_HEADER[header]


def four(number):
    return f"{number + 0.0:.4f}"


def test_the_book_is_the_golden_one():
    golden = ROOT / "tests" / "economics" / "data" / "book_three_sites.json"
    assert json.loads(golden.read_text()) == BOOK


def test_pools_and_speeds():
    speed = {(row["pool"], row["class"]): row["samples_per_s"] for row in BOOK["affinity"]}
    rows = table("Pool", "GPUs", "Reserve", "cnn", "lm", "rec")
    assert [(r["Pool"], float(r["GPUs"]), float(r["Reserve"])) for r in rows] == [
        (p["id"], p["gpus"], p["reserve"]) for p in BOOK["pools"]
    ]
    for row in rows:
        for name in ("cnn", "lm", "rec"):
            assert float(row[name]) == speed[row["Pool"], name]


def test_jobs():
    rows = table("Job", "Home", "Class", "Bid", "Wanted")
    assert [
        (r["Job"], r["Home"], r["Class"], float(r["Bid"]), float(r["Wanted"])) for r in rows
    ] == [(j["id"], j["site"], j["class"], j["value"], j["demand"]) for j in BOOK["jobs"]]
    assert {row["per_gpu_hour"] for row in BOOK["transfer"]} == {0.05}


def test_allocation():
    rows = table("Job", "Pool", "GPU-hours", "Million samples")
    assert [tuple(row.values()) for row in rows] == [
        (line["job"], line["pool"], four(line["gpu_hours"]), four(line["msamples"]))
        for line in cleared()["allocation"]
    ]


def test_prices():
    reserve = {pool["id"]: pool["reserve"] for pool in BOOK["pools"]}
    prices = cleared()["prices"]
    assert [tuple(row.values()) for row in table("Pool", "Price", "Above the reserve")] == [
        (pool, four(price), four(price - reserve[pool])) for pool, price in prices.items()
    ]


def test_payments_between_members():
    owner = {row["id"]: row["site"] for row in BOOK["pools"] + BOOK["jobs"]}
    owed = defaultdict(int)
    for line in cleared()["allocation"]:
        owed[owner[line["job"]], owner[line["pool"]]] += line["payment_micro"]
    assert [tuple(row.values()) for row in table("From", "To", "Credits")] == [
        (a, b, four(micro / 1e6)) for (a, b), micro in sorted(owed.items()) if a != b
    ]


def test_alone_and_together():
    rows = {r["Member"]: r for r in table("Member", "Alone", "In the federation")}
    together = cleared()["payoffs"]
    alone = {name: cleared(name)["welfare"] for name in "ABC"}
    for name in "ABC":
        assert (rows[name]["Alone"], rows[name]["In the federation"]) == (
            four(alone[name]),
            four(together[name]),
        )
    assert rows["sum"]["Alone"] == four(sum(alone.values()))
    assert rows["sum"]["In the federation"] == four(cleared()["welfare"])


def sentences():
    clearing = cleared()
    unplaced = {row["job"]: row for row in clearing["unplaced"]}
    served = sum(a["msamples"] for a in clearing["allocation"] if a["job"] == "c-lm")
    paid = sum(line["payment_micro"] for line in clearing["allocation"])
    return {
        "surplus": f"surplus of the round is {four(clearing['welfare'])} credits",
        "speed": f"90 × 3600 = {90 * 3600:,}".replace(",", " ") + " samples",
        "worth": f"26 × 0.324 = {26 * 0.324:.3f} credits",
        "price": f"the price of {clearing['prices']['A.H']:.3f}",
        "served": f"got {served:.3f}",
        "bid": f"would run at a bid of {four(unplaced['b-lm']['would_run_at']['value'])}",
        "paid": f"sum to {paid:,} micro-credits".replace(",", " "),
        "lines": f"{ ({8: 'Eight'}[len(clearing['allocation'])]) } lines",
        "AB": f"A and B would make {four(cleared('AB')['welfare'])}",
        "AC": f"A and C {four(cleared('AC')['welfare'])}",
        "BC": f"B and C {four(cleared('BC')['welfare'])}",
    }


@pytest.mark.parametrize("name", ["surplus", "speed", "worth", "price", "served", "bid", "paid",
                                  "lines", "AB", "AC", "BC"])  # fmt: skip
def test_figures_in_the_text(name):
    sentence = sentences()[name]
    assert sentence in PAGE.read_text()


def test_nobody_loses_and_no_two_do_better():
    payoffs = cleared()["payoffs"]
    for group in ("A", "B", "C", "AB", "AC", "BC"):
        assert sum(payoffs[name] for name in group) >= cleared(group)["welfare"] - 1e-6
