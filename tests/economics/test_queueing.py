"""Waiting at a site that serves others too, and what the wait costs."""

import copy
import heapq
import math
import random

import pytest

from economics.errors import BadBook
from economics.incentives.queueing import (
    BadQueue,
    Overloaded,
    Queue,
    ServiceLevel,
    delayed_values,
    erlang_b,
    erlang_c,
    starts_within,
    value_kept,
    waits_of,
)
from tests.economics.books import a_book, a_job, a_pool, clear


@pytest.mark.parametrize(("machines", "load"), [(1, 0.3), (5, 3.0), (6, 7.5), (20, 12.0)])
def test_blocking_is_the_closed_form(machines, load):
    terms = [load**n / math.factorial(n) for n in range(machines + 1)]
    assert erlang_b(machines, load) == pytest.approx(terms[-1] / sum(terms))


@pytest.mark.parametrize(("machines", "load"), [(1, 0.3), (5, 3.0), (20, 12.0)])
def test_the_chance_of_waiting_is_the_closed_form(machines, load):
    served = [load**n / math.factorial(n) for n in range(machines)]
    waits = load**machines / math.factorial(machines) * machines / (machines - load)
    assert erlang_c(machines, load) == pytest.approx(waits / (sum(served) + waits))


def test_one_machine_waits_as_the_textbook_says():
    queue = Queue(1, own_per_hour=0.5, foreign_per_hour=0.25, service_hours=1.0)
    assert waits_of(queue).own_hours == pytest.approx(0.75 / (1 - 0.75))


def simulated(queue, jobs, seed):
    """Waits of own and of foreign jobs in a simulated queue."""
    draw = random.Random(seed)
    rate = queue.own_per_hour + queue.foreign_per_hour
    clock, busy, line, waits = 0.0, [], [], {True: [], False: []}

    def begin(now):
        _, arrived, own = heapq.heappop(line)
        waits[own].append(now - arrived)
        heapq.heappush(busy, now + draw.expovariate(1 / queue.service_hours))

    for _ in range(jobs):
        clock += draw.expovariate(rate)
        while busy and busy[0] <= clock:
            ended = heapq.heappop(busy)
            if line:
                begin(ended)
        own = draw.random() < queue.own_per_hour / rate
        heapq.heappush(line, (queue.own_first and not own, clock, own))
        if len(busy) < queue.machines:
            begin(clock)
    return waits


@pytest.mark.parametrize("own_first", [False, True])
def test_a_simulated_queue_waits_as_long(own_first):
    queue = Queue(3, 1.0, 1.4, 1.0, own_first=own_first)
    found = simulated(queue, 200_000, seed=1)
    told = waits_of(queue)
    for own, mean in ((True, told.own_hours), (False, told.foreign_hours)):
        assert sum(found[own]) / len(found[own]) == pytest.approx(mean, rel=0.06)
    level = ServiceLevel(half_life_hours=1.0, limit_hours=1.5)
    kept = sum(0.5**wait for wait in found[True] if wait <= 1.5) / len(found[True])
    assert kept == pytest.approx(value_kept(queue, level), abs=0.01)
    in_time = sum(wait <= 0.5 for wait in found[True]) / len(found[True])
    assert in_time == pytest.approx(starts_within(queue, 0.5), abs=0.01)


def test_serving_own_jobs_first_moves_waiting_from_own_to_foreign_jobs():
    equal, first = (Queue(4, 1.0, 2.0, 1.0, own_first=first) for first in (False, True))
    fair, sorted_ = waits_of(equal), waits_of(first)
    assert sorted_.own_hours < fair.own_hours == fair.foreign_hours < sorted_.foreign_hours
    # Nobody's work is lost: the mean over all jobs stays.
    assert (sorted_.own_hours + 2 * sorted_.foreign_hours) / 3 == pytest.approx(fair.own_hours)


def test_two_sites_that_pool_their_machines_wait_less_than_half_as_long():
    alone = waits_of(Queue(4, 3.2, 0.0, 1.0))
    together = waits_of(Queue(8, 3.2, 3.2, 1.0))
    assert together.own_hours < alone.own_hours / 2


def test_value_falls_with_the_queue_and_not_without_a_service_level():
    level = ServiceLevel(half_life_hours=2.0)
    kept = [value_kept(Queue(4, own, 1.0, 1.0), level) for own in (0.5, 1.5, 2.5, 2.9)]
    assert sorted(kept, reverse=True) == kept
    assert 0 < kept[-1] < kept[0] < 1
    assert value_kept(Queue(4, 2.9, 1.0, 1.0), ServiceLevel()) == 1.0


def test_without_patience_only_what_starts_at_once_is_worth_something():
    queue = Queue(4, 2.0, 1.0, 1.0)
    kept = value_kept(queue, ServiceLevel(limit_hours=0.0))
    assert kept == pytest.approx(1 - erlang_c(4, 3.0)) == pytest.approx(starts_within(queue, 0.0))


def test_a_books_values_fall_by_the_queue_at_home():
    document = a_book(
        a_job("a", site="A", value=4.0),
        a_job("b", site="B", value=2.0),
        pools=[a_pool("A", gpus=2), a_pool("B", gpus=2)],
    )
    before = copy.deepcopy(document)
    queue, level = Queue(2, 1.0, 0.6, 1.0), ServiceLevel(half_life_hours=1.0)
    delayed = delayed_values(document, {"A": queue}, level)
    assert document == before
    values = {job["id"]: job["value"] for job in delayed["jobs"]}
    assert values == {"a": pytest.approx(4.0 * value_kept(queue, level)), "b": 2.0}
    assert clear(delayed)["welfare"] < clear(document)["welfare"]


def test_a_queue_at_an_unknown_site_is_refused():
    with pytest.raises(BadQueue, match="no site Z"):
        delayed_values(a_book(a_job()), {"Z": Queue(1, 0.1, 0.0, 1.0)}, ServiceLevel())


def test_what_is_no_book_is_refused():
    with pytest.raises(BadBook):
        delayed_values({"format": "hanse.book/1"}, {}, ServiceLevel())


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [
        (lambda: Queue(0, 1.0, 0.0, 1.0), BadQueue),
        (lambda: Queue(1, -1.0, 0.0, 1.0), BadQueue),
        (lambda: Queue(1, 0.1, 0.0, 0.0), BadQueue),
        (lambda: Queue(2, 1.0, 1.0, 1.0), Overloaded),
        (lambda: erlang_c(2, 2.0), Overloaded),
        (lambda: ServiceLevel(half_life_hours=0.0), BadQueue),
    ],
)
def test_what_is_no_queue_is_refused(wrong, refused):
    with pytest.raises(refused):
        wrong()
