"""Partners drawn around an operator's own offer."""

import math

import pytest

from economics.book import read_book
from economics.errors import BadBook
from economics.incentives.join import join
from economics.incentives.partners import Partners, around
from tests.economics.books import example


def offer():
    """Site A of the worked example, alone."""
    book = example("book_three_sites")
    return {
        **book,
        "pools": [row for row in book["pools"] if row["site"] == "A"],
        "affinity": [row for row in book["affinity"] if row["pool"].startswith("A.")],
        "jobs": [row for row in book["jobs"] if row["site"] == "A"],
        "transfer": [],
    }


def partners_of(book, key):
    return [row for row in book[key] if row.get("site", row.get("from")) != "A"]


def test_the_operators_own_rows_stay_as_they_are():
    own, book = offer(), around(offer(), 5)
    for key in ("pools", "affinity", "jobs"):
        assert book[key][: len(own[key])] == own[key]
    assert own == offer()
    assert read_book(book).sites == ("A", "partner-1", "partner-2", "partner-3")


def test_partners_own_the_operators_types_and_run_its_classes():
    for seed in range(20):
        book = around(offer(), seed, Partners(count=4, jobs=5))
        gpus = {row["id"]: row["gpu"] for row in book["pools"]}
        assert {row["gpu"] for row in partners_of(book, "pools")} <= {"H", "V"}
        assert {row["class"] for row in book["affinity"]} == {"cnn", "lm", "rec"}
        assert len(partners_of(book, "jobs")) == 20
        for row in partners_of(book, "pools"):
            assert row["gpus"] == 0 or 3 <= row["gpus"] <= 12  # half to twice the mean of 6
            least = {"H": 1.5, "V": 0.4}[gpus[row["id"]]]
            assert 0.5 * least <= row["reserve"] <= 1.5 * least


def test_the_days_of_a_trace_meet_the_same_partners_with_other_work():
    first, second, other = around(offer(), 5), around(offer(), 5, number=1), around(offer(), 6)
    assert first["pools"] == second["pools"] != other["pools"]
    assert first["affinity"] == second["affinity"]
    assert first["jobs"] != second["jobs"]
    assert around(offer(), 5) == first


def test_without_sigma_partners_are_as_fast_as_the_operator():
    book = around(offer(), 2, Partners(sigma=0.0))
    kind = {row["id"]: row["gpu"] for row in book["pools"]}
    speeds = {}
    for row in book["affinity"]:
        speeds.setdefault((kind[row["pool"]], row["class"]), []).append(row["samples_per_s"])
    for found in speeds.values():
        assert len(found) == 4
        assert found == pytest.approx([found[0]] * 4)


def test_sigma_is_the_deviation_of_log_speeds():
    offs = []
    for seed in range(100):
        flat, book = around(offer(), seed, Partners(sigma=0.0)), around(offer(), seed)
        offs += [
            math.log(row["samples_per_s"] / same["samples_per_s"])
            for same, row in zip(flat["affinity"], book["affinity"], strict=True)
            if not row["pool"].startswith("A.")
        ]
    mean = sum(offs) / len(offs)
    assert mean == pytest.approx(0.0, abs=0.05)
    assert math.sqrt(sum(off**2 for off in offs) / len(offs)) == pytest.approx(0.5, abs=0.04)


def test_load_is_what_the_tenants_want_of_the_partners_gpus():
    found = []
    for seed in range(60):
        book = read_book(around(offer(), seed, Partners(load=1.0)))
        theirs = [at for at, job in enumerate(book.jobs) if job.site != "A"]
        gpus = sum(pool.gpus for pool in book.pools if pool.site != "A")
        rate = {
            name: (book.speed["A.H", name][1] + book.speed["A.V", name][1]) / 2 * 0.0036
            for name in ("cnn", "lm", "rec")
        }
        wanted = sum(book.jobs[at].demand / rate[book.jobs[at].job_class] for at in theirs)
        found.append(wanted / gpus if gpus else 1.0)
    assert sum(found) / len(found) == pytest.approx(1.0, abs=0.06)


def test_an_operator_without_jobs_still_meets_tenants():
    book = around({**offer(), "jobs": []}, 1)
    assert all(row["value"] > 0 for row in book["jobs"])
    assert read_book(book).jobs


def test_a_name_that_partners_get_is_refused():
    taken = offer()
    taken["jobs"] = [{**row, "site": "partner-2"} for row in taken["jobs"]]
    with pytest.raises(BadBook, match="partner-2"):
        around(taken, 0)


def test_an_offer_that_runs_nothing_is_refused():
    with pytest.raises(BadBook, match="no pool with GPUs"):
        around({**offer(), "affinity": []}, 0)


@pytest.mark.slow
def test_a_trace_among_drawn_partners_can_be_studied():
    days = [around(offer(), 3, number=day) for day in range(8)]
    found = join(days, "A", draws=200)
    assert (found.rounds, found.unit) == (8, "rounds")
    market = found.rules[0]
    assert market.gain.low <= market.gain.value <= market.gain.high
    assert found.standalone.value == pytest.approx(33.5806, abs=1e-3)
