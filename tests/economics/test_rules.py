"""The tie rule, the reasons given, and that the price does not depend on the solver."""

import pytest

from economics import faces, pricing
from economics.errors import NotCertified, NotCleared
from tests.economics.books import a_book, a_job, a_pool, clear, example


def placed(clearing):
    return [(row["job"], row["pool"], row["gpu_hours"]) for row in clearing["allocation"]]


def reasons(clearing):
    return {row["job"]: row["reason"] for row in clearing["unplaced"]}


TWO = [a_pool("A"), a_pool("B")]


def test_equal_gangs_are_served_by_id_in_pools_by_id():
    jobs = [a_job(f"j{at}", gang=4) for at in (3, 1, 2, 0)]
    clearing = clear(a_book(*jobs, pools=TWO))
    assert placed(clearing) == [("j0", "A.G", 4.0), ("j1", "B.G", 4.0)]


def test_a_running_gang_keeps_its_place_among_equals():
    jobs = [a_job(f"j{at}", gang=4) for at in range(4)]
    jobs[3]["running_on"] = "A.G"
    clearing = clear(a_book(*jobs, pools=TWO))
    assert placed(clearing) == [("j0", "B.G", 4.0), ("j3", "A.G", 4.0)]


def test_equal_divisible_jobs_are_served_by_id():
    jobs = [a_job(f"j{at}", demand=3.0) for at in range(5)]
    clearing = clear(a_book(*jobs, pools=TWO))
    assert placed(clearing) == [
        ("j0", "A.G", 3.0),
        ("j1", "A.G", 1.0),
        ("j1", "B.G", 2.0),
        ("j2", "B.G", 2.0),
    ]


def test_a_running_divisible_job_keeps_its_place_among_equals():
    jobs = [a_job(f"j{at}", demand=3.0) for at in range(5)]
    jobs[4]["running_on"] = "A.G"
    assert ("j4", "A.G", 3.0) in placed(clear(a_book(*jobs, pools=TWO)))


def test_many_equal_gangs_are_served_by_id():
    """More columns than the exact rule looks at: alike jobs are still in order."""
    jobs = [a_job(f"j{at:02d}", gang=1) for at in range(60)]
    clearing = clear(a_book(*jobs, pools=TWO))
    assert [job for job, _, _ in placed(clearing)] == [f"j{at:02d}" for at in range(8)]


CASES = [
    (a_job(gang=2, pools=[]), "no_feasible_pool"),
    (a_job(gang=9), "no_capacity"),
    (a_job(gang=2, budget=1.0), "budget"),
    (a_job(gang=2, value=0.5), "priced_out"),
    (a_job(demand=9.0), "partly_served"),
    (a_job(demand=3.0, budget=4.0), "budget"),
    (a_job(demand=3.0, budget=0.0), "budget"),
    (a_job(demand=3.0, value=0.9), "priced_out"),
    (a_job(demand=3.0, **{"class": "other"}), "no_feasible_pool"),
]


@pytest.mark.parametrize(("job", "reason"), CASES)
def test_every_job_left_out_has_a_reason_and_a_sentence(job, reason):
    clearing = clear(a_book(job))
    [row] = clearing["unplaced"]
    assert row["reason"] == reason
    assert row["why"].endswith(".")


def test_a_gang_that_would_have_paid_is_named():
    """Four GPUs; three wanted at 4, two at 5: the pool cannot ask more than 4 of the winner."""
    jobs = [a_job("wide", value=4.0, gang=3), a_job("narrow", value=5.0, gang=2)]
    clearing = clear(a_book(*jobs))
    [row] = clearing["unplaced"]
    assert (row["job"], row["reason"]) == ("narrow", "rejected_at_price")
    assert row["would_run_at"]["pool"] == "A.G"
    assert row["would_run_at"]["value"] <= 4.0 + 1e-6
    assert clearing["regret"] > 0


def test_who_wants_nothing_or_has_it_is_not_listed():
    jobs = [a_job("all", demand=1.0), a_job("none", demand=0.0), a_job("free", value=0.0, gang=1)]
    assert reasons(clear(a_book(*jobs))) == {}


def test_an_empty_book_clears_empty():
    document = {"format": "hanse.book/1", "round_hours": 1, "pools": [], "affinity": [], "jobs": []}
    clearing = clear(document)
    assert (clearing["status"], clearing["welfare"], clearing["allocation"]) == ("empty", 0.0, [])


def test_a_pool_without_bids_posts_its_reserve():
    clearing = clear(a_book(a_job(value=0.1), pools=TWO))
    assert clearing["status"] == "empty"
    assert clearing["prices"] == {"A.G": 1.0, "B.G": 1.0}


def books_for_solvers():
    yield example("book_gangs")
    yield example("book_three_sites")
    for rules in ({"epsilon": 0.0}, {"epsilon": 0.02}):
        jobs = [a_job("a", demand=6.0, value=5.0), a_job("b", "B", demand=6.0, value=3.0)]
        book = a_book(*jobs, a_job("c", "B", gang=2), pools=TWO, previous_prices={"A.G": 2.5})
        yield {**book, "rules": rules}
    yield a_book(*(a_job(f"j{at}", "AB"[at % 2], demand=3.0) for at in range(5)), pools=TWO)


@pytest.mark.parametrize("document", list(books_for_solvers()))
def test_two_solvers_give_the_same_prices(monkeypatch, document):
    first, known = clear(document), faces.SOLVERS
    for solver in ("HIGHS", "OSQP"):
        chosen = tuple(row for row in known if row[0] == solver)
        monkeypatch.setattr(faces, "SOLVERS", chosen)
        assert clear(document)["prices"] == pytest.approx(first["prices"], abs=2e-6)


def test_a_solver_that_proves_nothing_is_not_read(monkeypatch):
    monkeypatch.setattr(faces, "SOLVERS", ())
    with pytest.raises(NotCleared, match="nearest prices"):
        clear(example("book_gangs"))


def test_an_uncertified_round_is_not_published(monkeypatch):
    from economics.clearing import reference

    def dear(case, *_):
        return pricing.Priced(case.market.reserve * 50, ())

    monkeypatch.setattr(reference, "rents", dear)
    with pytest.raises(NotCertified, match="no_loss"):
        clear(example("book_gangs"))


def test_the_node_limit_is_published_not_hidden():
    jobs = [a_job(f"j{at:02d}", value=3 + at / 7, gang=1 + at % 5) for at in range(40)]
    pools = [a_pool(site, gpus=11) for site in "ABC"]
    rules = {"nodes": 1, "core_repair": False}
    clearing = clear({**a_book(*jobs, pools=pools), "rules": rules})
    assert clearing["bound"] >= clearing["welfare"]
    assert clearing["status"] in ("optimal", "within_gap")


def test_without_core_repair_no_money_moves():
    document = example("book_gangs")
    document["rules"]["core_repair"] = False
    clearing = clear(document)
    assert set(clearing["transfers_micro"].values()) == {0}
    assert "core" not in {row["check"] for row in clearing["certificate"]}


def test_a_floor_may_hold_the_rent_at_the_best_gain():
    """The highest rents are then forced ones, and may not be a rounding error too high."""
    document = {
        "format": "hanse.book/1",
        "round_hours": 0.1,
        "pools": [a_pool(gpus=1, reserve=0.1)],
        "affinity": [{"pool": "A.G", "class": "unit", "samples_per_s": 250}],
        "jobs": [a_job(value=8.0, demand=1.0)],
        "floors": [{"job": "j", "demand": 0.09}],
        "rules": {"epsilon": 0.0},
    }
    clearing = clear(document)
    assert all(row["holds"] for row in clearing["certificate"])


def test_floors_of_any_size_are_cleared():
    for step in range(1, 40):
        demand = step / 40 * 3.6 * 0.25
        jobs = [a_job("a", demand=demand, value=1 + step / 9), a_job("b", demand=0.5)]
        floors = [{"job": "a", "demand": demand}]
        affinity = [{"pool": "A.G", "class": "unit", "samples_per_s": 250.0 + step}]
        book = a_book(*jobs, pools=[a_pool(gpus=1, reserve=0.3)], floors=floors, affinity=affinity)
        assert all(row["holds"] for row in clear(book)["certificate"])
