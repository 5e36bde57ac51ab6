"""`hanse.shares/1`: the three sites cell by cell, the command, and who is said to object."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from economics.__main__ import main
from economics.book import read_book
from economics.sharing.shares import shares
from tests.economics.books import DATA, a_book, a_job, a_pool, books, clear, example
from tests.economics.markets import divisible_market, side_by_side

BOOK = DATA / "book_three_sites.json"
COLUMNS = ("standalone", "market", "shapley", "nucleolus", "dividend", "marginal")
RULES = ("market", "dividend", "shapley", "nucleolus", "equal_split", "proportional", "marginal")
quick = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def shared(document, **more):
    return shares(read_book(document), **more)


def column(found, key):
    return [row[key] for row in found["sites"]]


def by_rule(found):
    return {row["rule"]: row for row in found["rules"]}


@pytest.fixture(scope="module")
def three_sites():
    return shared(example("book_three_sites"))


def test_the_document_has_exactly_these_keys(three_sites):
    assert list(three_sites) == [
        *("format", "book_sha256", "value", "surplus", "exact", "sites", "rules"),
    ]
    assert three_sites["format"] == "hanse.shares/1"
    assert three_sites["book_sha256"] == read_book(example("book_three_sites")).sha256
    keys = {"site", "half_width", *COLUMNS}
    assert all(set(row) == keys for row in three_sites["sites"])
    assert column(three_sites, "site") == ["A", "B", "C"]
    assert tuple(row["rule"] for row in three_sites["rules"]) == RULES
    keys = {"rule", "worst_excess", "in_core", "blocking"}
    assert all(set(row) == keys for row in three_sites["rules"])


@pytest.mark.parametrize(
    ("key", "payoffs"),
    [
        ("standalone", (33.5806, 34.5613, 34.1960)),
        ("market", (70.8890, 64.3672, 34.4602)),
        ("shapley", (53.5894, 49.8347, 66.2924)),
        ("nucleolus", (53.7101, 49.9554, 66.0510)),
        ("dividend", (62.2995, 57.1613, 50.2556)),
        ("marginal", (73.8396, 65.3494, 98.6301)),
    ],
)
def test_what_the_three_sites_get(three_sites, key, payoffs):
    assert column(three_sites, key) == pytest.approx(payoffs, abs=1e-3)


def test_the_gain_of_the_three_sites(three_sites):
    assert three_sites["value"] == pytest.approx(169.7164, abs=1e-3)
    assert three_sites["surplus"] == pytest.approx(67.3785, abs=1e-3)
    assert three_sites["exact"] is True
    assert column(three_sites, "half_width") == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rule", "worst", "in_core"),
    [
        ("market", -0.264, True),
        ("shapley", -15.273, True),
        ("nucleolus", -15.394, True),
        ("equal_split", -8.329, True),
    ],
)
def test_who_would_object_among_the_three_sites(three_sites, rule, worst, in_core):
    row = by_rule(three_sites)[rule]
    assert row["worst_excess"] == pytest.approx(worst, abs=1e-3)
    assert (row["in_core"], row["blocking"]) == (in_core, None)


def test_marginal_contributions_need_money_from_outside(three_sites):
    row = by_rule(three_sites)["marginal"]
    total = sum(column(three_sites, "marginal"))
    assert total == pytest.approx(237.8192, abs=1e-3)
    assert total / three_sites["value"] - 1 == pytest.approx(0.401, abs=1e-3)
    assert not row["in_core"], "nobody objects, but the payoffs do not sum to the value"
    assert row["blocking"] is None


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_alpha_goes_from_the_market_to_the_nucleolus(three_sites, alpha):
    found = shared(example("book_three_sites"), alpha=alpha)
    ends = np.array(column(three_sites, "market")), np.array(column(three_sites, "nucleolus"))
    assert column(found, "dividend") == pytest.approx((1 - alpha) * ends[0] + alpha * ends[1])
    assert by_rule(found)["dividend"]["in_core"]


def test_gang_example():
    found = shared(example("book_gangs"))
    assert found["value"] == pytest.approx(32.2, abs=1e-6)
    assert column(found, "standalone") == pytest.approx([12.0, 4.7, 0.0], abs=1e-6)
    assert column(found, "nucleolus") == pytest.approx([14.70, 10.45, 7.05], abs=1e-6)
    assert by_rule(found)["nucleolus"]["worst_excess"] == pytest.approx(-2.7, abs=1e-6)
    assert by_rule(found)["market"]["in_core"]


def test_an_even_split_is_shown_with_the_sites_that_would_leave():
    """A brings all the GPUs, B and C the same job: without one of them A loses little."""
    jobs = [a_job(f"j{site}", site, value=5.0, demand=4.0) for site in "BC"]
    found = shared(a_book(*jobs, pools=[a_pool("A", gpus=4)]))
    row = by_rule(found)["equal_split"]
    assert column(found, "standalone") == [0.0, 0.0, 0.0]
    assert (found["value"], row["in_core"], row["blocking"]) == (16.0, False, ["A", "B"])
    assert row["worst_excess"] == pytest.approx(16.0 - 2 / 3 * 16.0)
    assert by_rule(found)["proportional"]["blocking"] == ["A", "B"], "alone nobody makes anything"


def test_shapley_outside_the_core_is_said_to_be():
    """Of two buyers of the same hours one is superfluous, and Shapley pays it all the same."""
    jobs = [a_job(f"j{site}", site, value=5.0, demand=4.0) for site in "BC"]
    row = by_rule(shared(a_book(*jobs, pools=[a_pool("A", gpus=4)])))["shapley"]
    assert (row["in_core"], row["blocking"]) == (False, ["A", "B"])
    assert row["worst_excess"] == pytest.approx(16.0 / 6)


@quick
@given(books(kinds=("divisible", "gang"), epsilon=0.005))
def test_every_verdict_is_that_of_the_definition(document):
    """Every coalition is cleared as a book of its own, in which nobody else has GPUs or jobs."""
    found = shared(document)
    names, value = column(found, "site"), found["value"]
    tolerance = 3e-6 * max(1.0, value)
    payoffs = {key: dict(zip(names, column(found, key), strict=True)) for key in COLUMNS}
    assert payoffs.pop("market") == clear(document)["payoffs"]
    assert payoffs.pop("standalone") == pytest.approx(
        {name: welfare(document, {name}) for name in names}, abs=tolerance
    )
    alone = {
        group: welfare(document, set(group))
        for count in range(1, len(names))
        for group in itertools.combinations(names, count)
    }
    for rule, payoff in payoffs.items():
        row = by_rule(found)[rule]
        excess = [made - sum(payoff[name] for name in group) for group, made in alone.items()]
        worst = max(excess, default=0.0)
        assert row["worst_excess"] == pytest.approx(worst, abs=tolerance)
        sums_up = abs(sum(payoff.values()) - value) <= tolerance
        if worst > tolerance:
            assert not row["in_core"]
            gain = alone[tuple(row["blocking"])] - sum(payoff[name] for name in row["blocking"])
            assert gain == pytest.approx(worst, abs=tolerance)
        elif worst < -tolerance:
            assert (row["in_core"], row["blocking"]) == (sums_up, None)


def welfare(document, sites):
    pools = [row if row["site"] in sites else {**row, "gpus": 0} for row in document["pools"]]
    jobs = [row for row in document["jobs"] if row["site"] in sites]
    return clear({**document, "pools": pools, "jobs": jobs})["welfare"]


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "economics", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_writes_the_same_bytes_in_any_order_of_rows(tmp_path, three_sites):
    first = run("share", BOOK)
    assert (first.returncode, first.stderr) == (0, "")
    assert json.loads(first.stdout) == three_sites
    book, out = example("book_three_sites"), tmp_path / "shares.json"
    book["jobs"].reverse()
    book["pools"].reverse()
    (tmp_path / "book.json").write_text(json.dumps(book))
    assert run("share", tmp_path / "book.json", "--alpha", "0.5", "-o", out).stdout == ""
    assert out.read_text() == first.stdout


@pytest.mark.parametrize("alpha", ["1.5", "-0.1", "nan", "inf"])
def test_an_alpha_that_is_no_part_is_refused(tmp_path, capsys, alpha):
    out = tmp_path / "shares.json"
    assert main(["share", str(BOOK), f"--alpha={alpha}", "-o", str(out)]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("--alpha: must be between 0 and 1")
    assert (told.out, out.exists()) == ("", False)


def test_a_bad_book_is_refused_field_by_field(tmp_path, capsys):
    book, out = tmp_path / "book.json", tmp_path / "shares.json"
    book.write_text(json.dumps(a_book(a_job(value=-1.0), a_job("k", value=-2.0))))
    assert main(["share", str(book), "-o", str(out)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "jobs[0].value: must not be negative, is -1.0",
        "jobs[1].value: must not be negative, is -2.0",
    ]
    assert not out.exists()
    assert main(["share", str(tmp_path / "none.json")]) == 2


def test_books_with_nothing_to_share():
    nobody = shared({**a_book(), "pools": [], "affinity": []})
    assert (nobody["value"], nobody["sites"]) == (0.0, [])
    alone = shared(a_book(a_job(demand=2.0)))
    assert column(alone, "nucleolus") == column(alone, "standalone") == [6.0]
    assert all(row["in_core"] for row in alone["rules"])


@pytest.mark.slow
def test_thirteen_sites_are_sampled_and_say_so():
    found = shared(divisible_market(3, sites=13, jobs=1, types=("H",)))
    assert found["exact"] is False
    assert max(column(found, "half_width")) > 0.0
    assert max(column(found, "half_width")) <= 0.005 * found["value"]
    for key in ("market", "shapley", "nucleolus", "dividend"):
        assert sum(column(found, key)) == pytest.approx(found["value"], rel=1e-6)
    rows = by_rule(found)
    assert rows["market"]["in_core"]
    assert rows["nucleolus"]["in_core"]
    assert rows["nucleolus"]["worst_excess"] <= rows["market"]["worst_excess"] + 1e-6
    assert rows["equal_split"]["blocking"], "of thirteen sites somebody always would"


@pytest.mark.slow
def test_many_sites_that_trade_in_small_groups_need_no_sampling():
    parts = [
        divisible_market(seed, sites=sites, jobs=1, types=("H",))
        for seed, sites in ((1, 5), (2, 4), (3, 4))
    ]
    found = shared(side_by_side(parts))
    assert found["exact"] is True
    apart = [shared(part) for part in parts]
    expected = [value for part in apart for value in column(part, "shapley")]
    assert column(found, "shapley") == pytest.approx(expected, abs=1e-6 * found["value"])
