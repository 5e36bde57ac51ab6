"""Each figure of the example of bid tiers is what the search, the rule and the round compute."""

import numpy as np
import pytest

from economics.certificate import verify
from economics.clearing import allocation, paths, ties
from economics.clearing.tiers import allocation as tiered
from economics.clearing.tiers import coalitions, gangs, master, search
from tests.docs.reading import DOCS, tables
from tests.docs.tiers_example import DOCUMENT, book, cleared, demand, intervals, steps

PAGE = DOCS / "explanation" / "how-a-round-is-cleared.md"
BY_HEADER = {tuple(rows[0]): rows for rows in tables(PAGE) if rows}
GROUPS = {"vision": ("a-4", "a-3", "a-2", "a-1"), "text": ("b-4", "b-3", "b-2", "b-1")}


def table(*header):
    return BY_HEADER[header]


def signed(number, digits):
    return f"{round(number, digits) + 0.0:.{digits}f}".replace("-", "−")


def job(place):
    return DOCUMENT["jobs"][int(demand().order[place])]["id"]


def pool(group, line):
    return DOCUMENT["pools"][int(demand().lines.pool[group, line])]["id"]


def group_of(name):
    """The number of a group, by the class of its jobs."""
    [found] = {
        int(demand().group_of(np.array([place]))[0])
        for place in range(8)
        if DOCUMENT["jobs"][int(demand().order[place])]["class"] == name
    }
    return found


def test_pools_and_speeds_in_samples_of_an_hour():
    rows = table("Pool", "GPU-hours", "Reserve per GPU-hour", "vision", "text")
    speed = {(row["pool"], row["class"]): row["samples_per_s"] for row in DOCUMENT["affinity"]}
    for row, given in zip(rows, DOCUMENT["pools"], strict=True):
        assert (row["Pool"], float(row["GPU-hours"])) == (given["id"], given["gpus"])
        assert float(row["Reserve per GPU-hour"]) == given["reserve"]
        for name in GROUPS:
            assert float(row[name]) == pytest.approx(speed[given["id"], name] * 3600 / 1e6)


def test_groups_are_sorted_by_bid_and_numbered_like_the_code():
    rows = table("Group", "Jobs, from the lowest bid", "Bids")
    for row, (name, jobs) in zip(rows, GROUPS.items(), strict=True):
        assert row["Group"].startswith(name)
        group = group_of(name)
        places = range(int(demand().start[group]), int(demand().start[group + 1]))
        assert row["Jobs, from the lowest bid"] == ", ".join(jobs) == ", ".join(map(job, places))
        assert row["Bids"] == ", ".join(f"{demand().bid[place]:.2f}" for place in places)
    assert set(demand().weight) == {2.0}


def run_number(run):
    """The page's number of a run: vision first, then text."""
    first, _ = steps()
    group, place = first.runs.group[run], first.runs.cut[run]
    before = 0 if group == group_of("vision") else 2
    return before + int((place - demand().start[group]) // 2) + 1


def test_first_runs_and_their_gains():
    first, _ = steps()
    rows = {
        int(row["Run"]): row
        for row in table(
            "Run", "Jobs in it", "GPU-hours wanted", "Mean bid", "Gain at A.H", "Gain at B.V"
        )
    }
    assert len(rows) == first.runs.count
    for run in range(first.runs.count):
        row = rows[run_number(run)]
        places = range(int(first.runs.cut[run]), int(first.runs.cut[run + 1]))
        assert row["Jobs in it"] == ", ".join(map(job, places))
        assert float(row["GPU-hours wanted"]) == first.runs.weight[run]
        assert row["Mean bid"] == signed(first.runs.bid[run], 3)
        for line in range(2):
            name = pool(first.runs.group[run], line)
            assert row[f"Gain at {name}"] == signed(first.gain[run, line], 3)


def test_what_the_first_runs_get():
    first, _ = steps()
    got = [
        (
            pool(first.runs.group[run], line),
            run_number(run),
            signed(share * first.runs.weight[run], 0),
        )
        for run, line, share in zip(
            first.served.run, first.served.line, first.served.share, strict=True
        )
    ]
    rows = table("Served run", "In pool", "Hours it gets")
    assert [(r["In pool"], int(r["Served run"]), r["Hours it gets"]) for r in rows] == sorted(got)


def test_what_every_job_says_to_the_first_rents():
    first, _ = steps()
    rows = {
        row["Asked job"]: row
        for row in table(
            "Asked job", "Keeps at A.H", "Keeps at B.V", "Best choice", "On 2 GPU-hours"
        )
    }
    cost, total = demand().lines.cost(first.served.rent), 0.0
    for place in range(8):
        group, row = int(demand().group_of(np.array([place]))[0]), rows.pop(job(place))
        keeps = {
            pool(group, line): demand().lines.worth[group, line] * demand().bid[place]
            - cost[group, line]
            for line in range(2)
        }
        for name, amount in keeps.items():
            assert row[f"Keeps at {name}"] == signed(amount, 2)
        best = max(keeps, key=lambda name: keeps[name])
        kept = max(keeps[best], 0.0)
        assert row["Best choice"] == (best if kept > 0 else "nothing")
        assert row["On 2 GPU-hours"] == signed(2 * kept, 2)
        total += 2 * kept
    assert rows == {}
    assert first.bound == pytest.approx(book().market.capacity @ first.served.rent + total)


def bends():
    """(group, bid, pool) wherever the best choice of a group changes, by rising bid."""
    first, _ = steps()
    cost = np.pad(demand().lines.cost(first.served.rent), ((0, 0), (0, 1)))
    worth = np.pad(demand().lines.worth, ((0, 0), (0, 1)))
    chosen = first.chosen
    for at in range(1, chosen.begin.size):
        group, low, high = chosen.group[at], chosen.line[at - 1], chosen.line[at]
        if chosen.group[at - 1] == group:
            bid = (cost[group, high] - cost[group, low]) / (worth[group, high] - worth[group, low])
            yield int(group), signed(bid, 4), pool(group, high)


def test_where_the_envelopes_bend():
    rows = table("Group of", "Bid where it bends", "From there on best")
    on_page = [
        (group_of(r["Group of"]), r["Bid where it bends"], r["From there on best"]) for r in rows
    ]
    assert sorted(on_page) == sorted(bends())


def test_the_cuts_make_seven_runs_and_the_second_step_is_a_proof():
    first, second = steps()
    assert second.runs.count == 7
    whole = [
        run_number(run)
        for run in range(first.runs.count)
        if not np.isin(first.runs.cut[run] + 1, second.runs.cut)
    ]
    assert whole == [2]
    assert second.served.value == pytest.approx(second.bound, rel=1e-9)
    assert second.cut.size == second.runs.cut.size, "nothing is left to cut"


@pytest.mark.parametrize("path", ["reference", "tiers"])
def test_award_and_prices_are_the_same_on_both_paths(path):
    clearing = cleared(path)
    assert [
        tuple(row.values())
        for row in table("Awarded job", "Awarded pool", "Awarded GPU-hours", "Pays")
    ] == [
        (
            line["job"],
            line["pool"],
            signed(line["gpu_hours"], 4),
            signed(line["payment_micro"] / 1e6, 4),
        )
        for line in clearing["allocation"]
    ]
    rows = table("Priced pool", "Lowest supporting", "Highest supporting", "Published")
    assert {r["Priced pool"]: r["Published"] for r in rows} == {
        name: signed(price, 3) for name, price in clearing["prices"].items()
    }
    assert all(check.holds for check in verify(DOCUMENT, clearing))
    assert f"path_{path}" in {row["check"] for row in clearing["certificate"]}


def test_the_interval_of_each_price_and_the_point_that_the_rule_takes():
    rows = table("Priced pool", "Lowest supporting", "Highest supporting", "Published")
    for row in rows:
        found = intervals()[row["Priced pool"]]
        low, high = found["lowest"], found["highest"]
        assert (row["Lowest supporting"], row["Highest supporting"]) == (
            signed(low, 3),
            signed(high, 3),
        )
        share = book().rules.seller_share
        assert row["Published"] == signed((1 - share) * low + share * high, 3)


def sentences():
    (first, second), clearing = steps(), cleared("tiers")
    rent = {row["id"]: clearing["prices"][row["id"]] - row["reserve"] for row in DOCUMENT["pools"]}
    earned = 6 * rent["A.H"] + 5 * rent["B.V"]
    value, bound, rents = first.served.value, first.bound, first.served.rent
    capacity = float(book().market.capacity @ rents)
    high, low = 7.2 * 0.8 - 1.0, 5.4 * 0.8 - 0.5
    return {
        "value": f"worth {value:.2f} credits. A job can always",
        "run 2": f"9.0 × 0.90 − 1.00 = {9.0 * 0.9 - 1.0:.2f}",
        "rent V": f"the rent of B.V is its whole gain, {rents[1]:.2f}",
        "rent H": f"that rent is {rents[0]:.2f}",
        "alike": f"{high:.2f} less the rent of A.H is {low:.2f} − {rents[1]:.2f}",
        "low": f"Below {intervals()['A.H']['lowest']:.2f} b-1",
        "high": f"Above {intervals()['A.H']['highest']:.2f} a-3",
        "a-3 there": f"An hour at A.H is worth {9.0 * 0.5:.2f} to it",
        "costs": f"costs {1 + rents[0]:.2f} at A.H and {0.5 + rents[1]:.2f} at B.V",
        "capacity": f"6 × {rents[0]:.2f} + 5 × {rents[1]:.2f} = {capacity:.2f}",
        "kept": f"what the jobs keep {first.chosen.gain.sum():.2f}",
        "bound": f"worth more than the sum, {bound:.2f}:",
        "gap": f"at most {100 * (bound - value) / bound:.4f} % short",
        "second": f"the programme is worth {second.served.value:.2f} credits",
        "zero": f"The gap is {100 * (second.bound - second.served.value) / second.bound:.2f}:",
        "b-3": f"5.4 × 0.40 = {5.4 * 0.4:.2f}",
        "b-1 there": f"7.2 × 0.90 = {7.2 * 0.9:.2f}",
        "b-1 here": f"4.86 − 2.16 = {5.4 * 0.9 - clearing['prices']['B.V']:.2f}",
        "a-3": f"2.25 − 2.16 = {4.5 * 0.5 - clearing['prices']['B.V']:.2f}",
        "epsilon": f"`epsilon`, {book().rules.epsilon} of the surplus by default",
        "rents": f"the rents are {rent['A.H']:.3f} and {rent['B.V']:.2f}",
        "earned": f"6 × {rent['A.H']:.3f} + 5 × {rent['B.V']:.2f} = {earned:.2f}",
        "keep": f"the jobs keep {clearing['welfare'] - earned:.2f} at their best choices",
        "sum": f"the sum is {clearing['welfare']:.2f}, which is the surplus",
    }


NAMES = ("value", "run 2", "rent V", "rent H", "alike", "costs", "capacity", "kept", "bound",
         "gap", "second", "zero", "b-3", "low", "b-1 there", "b-1 here", "high", "a-3 there", "a-3",
         "epsilon", "rents", "earned", "keep", "sum")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_figures_in_the_text(name):
    assert sentences()[name] in PAGE.read_text()


def test_every_sentence_is_tested():
    assert set(NAMES) == set(sentences())


def test_the_jobs_keep_at_the_published_prices_what_the_page_says():
    clearing = cleared("tiers")
    kept = 0.0
    speed = {(row["pool"], row["class"]): row["samples_per_s"] for row in DOCUMENT["affinity"]}
    for row in DOCUMENT["jobs"]:
        best = max(
            row["value"] * speed[name, row["class"]] * 0.0036 - price
            for name, price in clearing["prices"].items()
        )
        kept += 2 * max(best, 0.0)
    assert f"the jobs keep {kept:.2f} at their best choices" in PAGE.read_text()


def test_limits_of_the_search_that_the_page_names():
    text = PAGE.read_text()
    spoken = {4: "four", 6: "six", 8: "eight", 30: "thirty"}
    assert f"starts with {spoken[search.FIRST_PARTS]} runs of each group" in text
    assert f"more than {search.FEW_RUNS // search.FIRST_PARTS} groups" in text
    assert f"lumped, {spoken[master.LUMPS]} to a pool" in text
    assert f"up to {thousands(paths.FEW_COLUMNS)} columns" in text
    assert f"up to {thousands(tiered.EXACT_COLUMNS)} columns" in text
    assert f"more than {spoken[coalitions.ALL_UP_TO]} sites" in text
    assert f"the pairs up to {spoken[coalitions.PAIRS_UP_TO]} sites" in text
    assert f"For each pool, {spoken[gangs.FRINGE]} of the gangs" in text
    assert gangs.WAYS == 3
    assert f"up to {thousands(gangs.FULL)} gangs" in text
    assert f"more than {thousands(gangs.MOST_BINARIES)} variables" in text
    assert (gangs.EXACT, allocation.COARSE, allocation.EXACT) == (1e-4, 1e-4, 1e-9)
    assert f"up to {thousands(allocation.SMALL)} variables" in text
    assert f"up to {ties.MOST_TIED} tied columns" in text


def thousands(number):
    return f"{number:,}".replace(",", " ")
