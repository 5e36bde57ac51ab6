"""What each job is told: its pools, what bound it, and what would have changed the answer."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from economics import accounts
from economics.__main__ import main
from economics.curves import read_cleared
from economics.errors import BadBook
from economics.explanations import explain, explanations
from economics.explanations.reclear import MOST_JOBS, tried
from tests.economics.books import DATA, PER_HOUR, a_book, a_job, a_pool, books, clear, example
from tests.economics.posted import posted, rich_books, rich_rounds

STATUSES = {"served", "partly_served", "not_served", "nothing_asked"}
BINDS = {
    *("demand", "width", "budget", "floor", "gang", "capacity", "priced_out"),
    *("rejected_at_price", "no_feasible_pool", "nothing_asked"),
}
ROUND = settings(deadline=None, max_examples=40)


def explained(document):
    """Every job's row by id, of a book that is cleared."""
    cleared = read_cleared(document, clear(document))
    return {row["id"]: row for row in explanations(cleared)["jobs"]}


def one(job, **more):
    """The row of a job that is alone in its book."""
    return explained(a_book(job, **more))[job["id"]]


def binds(row):
    return [bound["what"] for bound in row["binding"]]


def changed(row):
    return {change["kind"]: change for change in row["changes"]}


def check_against_accounts(cleared):
    """Gains, bundles and regret are those of the accounts, for every job."""
    market, rent = cleared.book.market, cleared.price - cleared.book.market.reserve
    gained = accounts.job_gain(market, cleared.share)
    gained -= accounts.job_rent(market, cleared.share, rent)
    best = accounts.best_gain(market, rent)
    found = explanations(cleared)["jobs"]
    assert [row["id"] for row in found] == [row.id for row in cleared.book.jobs]
    for job, row in enumerate(found):
        size = 1e-7 * max(1.0, cleared.unit * float(market.capacity.sum()))
        assert row["gain"] == pytest.approx(gained[job], abs=size)
        if np.isfinite(best[job]):
            assert row["best_gain"] == pytest.approx(best[job], abs=size)
            assert row["regret"] == pytest.approx(best[job] - gained[job], abs=2 * size)
        columns = market.columns_of(job)
        assert len(row["pools"]) == columns.stop - columns.start
        told = {offer["pool"] for offer in row["pools"]} | {bar["pool"] for bar in row["barred"]}
        assert told == {pool.id for pool in cleared.book.pools}
        assert len(row["barred"]) == len({bar["pool"] for bar in row["barred"]})


@ROUND
@given(rich_rounds())
def test_at_any_prices_gains_are_those_of_the_accounts(cleared):
    check_against_accounts(cleared)


@ROUND
@given(rich_books(floors=False))
def test_of_a_cleared_round_gains_are_those_of_the_accounts(document):
    cleared = read_cleared(document, clear(document))
    check_against_accounts(cleared)
    for row in explanations(cleared)["jobs"]:
        assert row["status"] in STATUSES
        assert row["binding"]
        assert set(binds(row)) <= BINDS
        assert all(bound["why"] for bound in row["binding"])
        assert all(change["why"] for change in row["changes"])
        assert all(bar["why"] for bar in row["barred"])
        sold = sum(offer["sold"] for offer in row["pools"])
        assert sold == pytest.approx(row["gpu_hours"], abs=1e-8)
        assert (sold > 0) == (row["payment_micro"] > 0 or row["gpu_hours"] > 0)
    json.dumps(explanations(cleared), allow_nan=False)


@ROUND
@given(books())
def test_an_unserved_divisible_job_gains_nowhere_at_its_bid(document):
    """At equilibrium prices: the offers of a job left out lose, and its threshold is not lower."""
    cleared = read_cleared(document, clear(document))
    for row in explanations(cleared)["jobs"]:
        if row["status"] != "not_served":
            continue
        near = 1e-5 * cleared.unit
        assert all(offer["gain_per_gpu_hour"] <= near for offer in row["pools"])
        if row["gains_from"] is not None:
            assert row["gains_from"]["value"] >= row["value"] * (1 - 1e-5) - 1e-9
            assert "bid" in changed(row)


@settings(deadline=None, max_examples=12)
@given(
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 40),
    st.integers(0, 5),
    st.sampled_from(({"gang": 2}, {"gang": [1, 4]}, {"demand": 3.0}, {"max_gpus": 2})),
)
def test_alone_a_job_runs_just_above_its_threshold_and_not_just_below(
    value, speed, reserve, fee, kind
):
    """Nobody else bids, so the price is the reserve until the job itself pays more."""
    document = a_book(
        a_job(site="B", value=value / 10, **kind),
        pools=[a_pool(reserve=float(reserve) / 4)],
        affinity=[{"pool": "A.G", "class": "unit", "samples_per_s": PER_HOUR * speed / 4}],
        transfer=[{"from": "B", "to": "A", "per_gpu_hour": fee / 10}],
    )
    cheap = {**document, "jobs": [{**document["jobs"][0], "value": 1e-9}]}
    [row] = explanations(read_cleared(cheap, clear(cheap)))["jobs"]
    threshold = row["gains_from"]["value"]
    assert threshold == pytest.approx((reserve / 4 + fee / 10) / (speed / 4))
    trial = tried(document, row)
    assert trial["above"]["gpu_hours"] > 0
    assert trial["below"]["gpu_hours"] == 0
    assert trial["runs_from"] == pytest.approx(threshold, rel=1e-4)


def test_three_sites():
    rows = explained(example("book_three_sites"))
    assert {name: row["status"] for name, row in rows.items()} == {
        "a-cnn": "partly_served",
        "a-rec": "served",
        "b-cnn": "served",
        "b-lm": "not_served",
        "c-lm": "partly_served",
        "c-rec": "served",
    }
    left_out = rows["b-lm"]
    assert binds(left_out) == ["priced_out"]
    assert left_out["gains_from"] == {
        "pool": "B.H",
        "gpus": None,
        "value": pytest.approx(25.8611, abs=1e-3),
    }
    assert changed(left_out)["bid"]["value"] == left_out["gains_from"]["value"]
    gains = {row["pool"]: row["gain_per_gpu_hour"] for row in left_out["pools"]}
    assert gains == pytest.approx(
        {"A.H": -1.296, "A.V": -0.659, "B.H": -1.39, "B.V": -0.8636, "C.V": -0.324}, abs=1e-4
    )
    margin = rows["c-lm"]
    assert binds(margin) == ["capacity", "capacity"]
    assert [bound["pool"] for bound in margin["binding"]] == ["A.H", "B.H"]
    assert margin["gain"] == pytest.approx(0.0, abs=1e-6)
    assert "any higher bid" in changed(margin)["bid"]["why"]
    assert binds(rows["a-rec"]) == ["demand"]
    assert rows["a-rec"]["gain"] == pytest.approx(0.09694444 * 90, abs=1e-4)


def test_the_gang_example():
    rows = explained(example("book_gangs"))
    assert binds(rows["a1"]) == ["gang"]
    assert rows["b1"]["regret"] == pytest.approx(0.1, abs=1e-6)
    assert binds(rows["c2"]) == ["priced_out"]
    assert rows["c2"]["gains_from"]["value"] == pytest.approx(2.9 / 0.9, abs=1e-6)


def test_own_limits_bind():
    wide = one(a_job(max_gpus=2))
    assert (wide["status"], binds(wide)) == ("served", ["width"])
    sated = one(a_job(demand=2.0, max_gpus=4))
    assert (sated["status"], binds(sated)) == ("served", ["demand"])
    both = one(a_job(demand=2.0, max_gpus=2))
    assert binds(both) == ["width", "demand"]
    brief = one(a_job(gang=2, demand=1.5))
    assert binds(brief) == ["gang", "demand"]
    poor = one(a_job(value=4.0, demand=3.0, budget=8.0))
    assert (poor["status"], binds(poor)) == ("partly_served", ["budget"])
    assert changed(poor)["budget"]["budget"] == pytest.approx(12.0)
    for nothing in (a_job(value=0.0), a_job(demand=0.0), a_job(max_gpus=0)):
        row = one(nothing)
        assert (row["status"], binds(row)) == ("nothing_asked", ["nothing_asked"])
        assert row["changes"] == []


def test_a_floor_binds_when_the_job_runs_above_its_bid():
    weak, strong = a_job("weak", value=2.0, demand=4.0), a_job("strong", value=9.0, demand=4.0)
    document = a_book(weak, strong, floors=[{"job": "weak", "demand": 1.0}])
    row = explained(document)["weak"]
    assert "floor" in binds(row)
    assert row["gain"] < 0
    with pytest.raises(BadBook, match="has a floor"):
        tried(document, row)


def test_each_pool_that_was_no_offer_says_why():
    pools = [
        a_pool(site, gpus=gpus) for site, gpus in zip("ABCDEF", (4, 4, 1, 4, 4, 0), strict=True)
    ]
    pools[4]["reserve"] = 50.0
    affinity = [
        {"pool": pool["id"], "class": "unit", "samples_per_s": PER_HOUR * speed}
        for pool, speed in zip(pools, (1.0, 1.0, 1.0, 0.0, 1.0, 1.0), strict=True)
    ]
    job = a_job(gang=2, pools=["A.G", "C.G", "D.G", "E.G", "F.G"])
    row = one(job, pools=pools, affinity=affinity)
    assert [offer["pool"] for offer in row["pools"]] == ["A.G"]
    assert {bar["pool"]: bar["reason"] for bar in row["barred"]} == {
        "B.G": "not_permitted",
        "C.G": "too_few_gpus",
        "D.G": "no_speed",
        "E.G": "below_reserve",
        "F.G": "too_few_gpus",
    }
    dear = one(a_job(gang=4, value=4.0, budget=10.0))
    assert dear["barred"][0]["reason"] == "over_budget"
    assert binds(dear) == ["budget"]
    assert changed(dear)["budget"]["budget"] == pytest.approx(16.0)
    broke = one(a_job(demand=1.0, budget=0.0))
    assert broke["barred"][0]["reason"] == "over_budget"


def test_a_better_pool_that_is_not_permitted_is_named():
    pools = [a_pool("A", reserve=3.0), a_pool("B", reserve=1.0), a_pool("C", reserve=0.5)]
    row = one(a_job(gang=2, pools=["A.G"]), pools=pools)
    assert changed(row)["permission"] == {
        "kind": "permission",
        "pool": "C.G",
        "gain": pytest.approx(7.0),
        "why": changed(row)["permission"]["why"],
    }
    assert "permission" not in changed(one(a_job(gang=2, pools=["C.G"]), pools=pools))


def test_gpus_that_were_lacking_are_counted():
    small = one(a_job(gang=6))
    assert binds(small) == ["capacity"]
    assert (changed(small)["gpus"]["gpus"], changed(small)["gpus"]["pool"]) == (2, "A.G")


def test_a_gang_left_out_although_it_would_pay():
    """Four GPUs at 2 are worth more than three at 2.2, and the four cannot pay 2.2 for each."""
    jobs = [a_job("wide", value=2.0, gang=4), a_job("slim", value=2.2, gang=3)]
    row = explained(a_book(*jobs))["slim"]
    assert (row["status"], binds(row)) == ("not_served", ["rejected_at_price"])
    assert row["regret"] == pytest.approx(0.6, abs=1e-6)
    assert row["gains_from"]["value"] < row["value"]
    assert "bid" not in changed(row)
    assert (changed(row)["gpus"]["gpus"], changed(row)["gpus"]["pool"]) == (3, "A.G")


def test_a_deadline_that_cannot_be_met_is_told():
    """Twelve million samples on four GPUs of speed one take three hours."""
    late = one(a_job(gang=4, demand=12.0, deadline_h=2.0))
    assert changed(late)["deadline"]["hours"] == pytest.approx(3.0)
    assert changed(late)["deadline"]["slack"] == pytest.approx(-1.0)
    assert "comes before" in changed(late)["deadline"]["why"]
    timely = one(a_job(demand=12.0, deadline_h=5.0))
    assert changed(timely)["deadline"]["slack"] == pytest.approx(2.0)
    assert "can wait 2 h" in changed(timely)["deadline"]["why"]
    assert "deadline" not in changed(one(a_job(gang=2)))


def test_elastic_sizes_are_offers_of_their_own():
    affinity = [
        {"pool": "A.G", "class": "unit", "samples_per_s": PER_HOUR * speed, "gpus": gpus}
        for gpus, speed in ((1, 1.0), (4, 3.6))
    ]
    row = one(a_job(value=3.0, gang=[1, 4]), affinity=affinity)
    assert [(offer["gpus"], offer["worth"]) for offer in row["pools"]] == [
        (1, 3.0),
        (4, pytest.approx(2.7)),
    ]
    assert [offer["sold"] for offer in row["pools"]] == [0.0, 4.0]


def test_moving_is_told_beside_the_transfer():
    pools = [a_pool("A", reserve=1.0), a_pool("B", reserve=0.4)]
    fees = [{"from": "A", "to": "B", "per_gpu_hour": 0.1}]
    for job in (a_job(gang=4), a_job(demand=4.0)):
        mover = {**job, "running_on": "A.G", "move_cost": 0.5, "extra": {"B.G": 0.2}}
        cleared = posted(a_book(mover, pools=pools, transfer=fees), [1.0, 0.4])
        here, there = explain(cleared, "j")["pools"]
        assert (here["moving"], there["moving"]) == (0.0, 0.5)
        assert (here["transfer"], there["transfer"]) == (0.0, pytest.approx(0.3))
        assert here["gain"] == pytest.approx(4 * 3.0)
        assert there["gain"] == pytest.approx(4 * (4.0 - 0.4 - 0.3) - 0.5)
        assert there["gain_per_gpu_hour"] == pytest.approx(there["gain"] / 4)


def test_a_rejected_gang_is_tried_in_a_new_round():
    document = example("book_gangs")
    row = explained(document)["c2"]
    trial = tried(document, row)
    assert (trial["above"]["gpu_hours"], trial["below"]["gpu_hours"]) == (0.0, 0.0)
    at = trial["runs_from"]
    for value, runs in ((at * (1 + 1e-6), True), (at * (1 - 2e-4), False)):
        jobs = [{**job, "value": value} if job["id"] == "c2" else job for job in document["jobs"]]
        lines = clear({**document, "jobs": jobs})["allocation"]
        assert any(line["job"] == "c2" for line in lines) is runs


def test_no_bid_helps_where_nothing_fits():
    row = one(a_job(gang=6))
    assert row["gains_from"] is None
    document = a_book(a_job(gang=6))
    assert tried(document, row)["runs_from"] is None


def test_a_large_book_is_not_cleared_over_and_over():
    jobs = [a_job(f"j{at}", demand=1.0) for at in range(MOST_JOBS + 1)]
    with pytest.raises(BadBook, match="at most"):
        tried(a_book(*jobs), {"id": "j0", "value": 4.0, "gains_from": None})


def test_only_the_jobs_asked_for():
    document = example("book_gangs")
    cleared = read_cleared(document, clear(document))
    assert [row["id"] for row in explanations(cleared, ["c2", "a1"])["jobs"]] == ["a1", "c2"]
    assert explanations(cleared)["jobs"][0] == explain(cleared, "a1")
    with pytest.raises(BadBook, match="unknown job 'nobody'"):
        explain(cleared, "nobody")


def test_an_empty_book_explains_nobody():
    document = a_book(pools=[])
    assert explanations(read_cleared(document, clear(document)))["jobs"] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The gang example and its clearing."""
    clearing = tmp_path_factory.mktemp("round") / "clearing.json"
    book = DATA / "book_gangs.json"
    assert main(["clear", str(book), "-o", str(clearing)]) == 0
    return str(book), str(clearing)


def test_curves_as_a_process(files):
    done = subprocess.run(
        [sys.executable, "-m", "economics", "curves", *files, "--pool", "A.G", "--no-merit"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["format"] == "hanse.curves/1"
    assert [row["id"] for row in told["pools"]] == ["A.G"]


def test_curves_and_explanations_to_files(files, tmp_path, capsys):
    assert main(["curves", *files, "--no-intervals", "-o", str(tmp_path / "curves.json")]) == 0
    whole = json.loads((tmp_path / "curves.json").read_text())
    assert [row["interval"] for row in whole["pools"]] == [None, None]
    assert main(["explain", *files, "-o", str(tmp_path / "why.json")]) == 0
    assert capsys.readouterr().out == ""
    why = json.loads((tmp_path / "why.json").read_text())
    assert why["format"] == "hanse.explanations/1"
    assert [row["id"] for row in why["jobs"]] == ["a1", "b1", "c1", "c2"]


def test_a_verified_explanation(files, capsys):
    assert main(["explain", *files, "--job", "c2", "--verify"]) == 0
    [row] = json.loads(capsys.readouterr().out)["jobs"]
    assert row["tried"]["runs_from"] > row["value"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["curves", "--pool", "X"], "--pool: unknown pool 'X'"),
        (["explain", "--job", "x"], "--job: unknown job 'x'"),
        (["explain", "--verify"], "--verify: needs --job"),
    ],
)
def test_unknown_names_exit_two(files, capsys, words, line):
    command, *rest = words
    assert main([command, *files, *rest]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"{line}\n")


def test_a_clearing_of_another_book_exits_two(files, capsys):
    other = str(DATA / "book_three_sites.json")
    assert main(["explain", other, files[1]]) == 2
    assert capsys.readouterr().out == ""
