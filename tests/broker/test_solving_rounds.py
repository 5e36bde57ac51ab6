"""Rounds and studies through the tasks: every failure of a solver ends the round, none is a number.

The child processes are real; only what they are asked to compute misbehaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from broker import tasks
from broker.celery import app
from broker.queues import STUDIES, queues, solve_queue
from broker.solving.fan_out import FanOut
from broker.solving.supervisor import Solver, own_solver
from federation.models import Assignment, Job, Lease, Round, Study, Venue
from federation.selectors.frozen import frozen
from federation.services import rounds, studies
from tests.support import world

pytestmark = pytest.mark.django_db
MEMORY_MB = 1024


@pytest.fixture
def bad(tmp_path: Path) -> Iterator[Solver]:
    """A solver whose works misbehave."""
    made = Solver(memory_mb=MEMORY_MB, works="tests.broker.misbehaving", scratch=tmp_path)
    yield made
    made.close()


@pytest.fixture
def market(db) -> list[Job]:
    now = timezone.now()
    world.a_venue(solve_patience_s=30.0)
    world.a_site("north", gpus=2, now=now)
    return [world.a_job(world.a_tenant(name), now=now) for name in ("ann", "bob")]


def a_closed_round() -> Round:
    """The venue's gate, opened and closed now."""
    now = timezone.now()
    venue = world.a_venue()
    opened = rounds.round_ensure_open(venue=venue, now=now)
    Round.objects.filter(pk=opened.pk).update(closes_at=now - timedelta(seconds=1))
    assert rounds.rounds_close(now=now) == [opened.pk]
    return opened


@pytest.mark.parametrize(
    ("misbehaviour", "code"),
    [
        ("hang", "solver_timed_out"),
        ("eat", "solver_out_of_memory"),
        ("crash", "solver_out_of_memory"),
        ("die", "solver_died"),
        ("stumble", "solver_failed"),
        ("not_a_number", "solver_failed"),
    ],
)
def test_a_round_ends_whatever_its_solver_does_and_the_next_is_solved(
    market, bad, monkeypatch, misbehaviour, code
):
    monkeypatch.setenv("MISBEHAVIOUR", misbehaviour)
    if misbehaviour == "hang":
        Venue.objects.update(solve_patience_s=1.0)
    monkeypatch.setattr(tasks, "own_solver", lambda memory_mb: bad)
    first = a_closed_round()
    tasks.solve_round(str(first.pk))
    first.refresh_from_db()
    assert (first.state, first.void_code, first.claims) == ("void", code, 1)
    assert first.void_why.endswith(".") or misbehaviour in ("stumble", "not_a_number")
    assert (first.clearing, first.welfare, first.certified) == (None, None, False)
    assert not Assignment.objects.exists()
    assert not Lease.objects.exists()
    assert {job.state for job in Job.objects.all()} == {"pending"}

    Venue.objects.update(solve_patience_s=30.0)
    monkeypatch.setattr(tasks, "own_solver", own_solver)
    second = a_closed_round()
    tasks.solve_round(str(second.pk))
    second.refresh_from_db()
    assert (second.state, second.certified, second.number) == ("published", True, first.number + 1)
    assert Lease.objects.count() == len(market)


def test_a_round_that_is_decided_already_or_claimed_by_another_is_left_alone(market):
    round = a_closed_round()
    tasks.solve_round(str(round.pk))
    before = Round.objects.get(pk=round.pk)
    tasks.solve_round(str(round.pk))
    after = Round.objects.get(pk=round.pk)
    assert (after.state, after.claims, after.cleared_at) == ("published", 1, before.cleared_at)


def test_a_study_whose_solver_was_killed_is_tried_again_and_one_that_is_too_large_is_not(
    market, bad, monkeypatch
):
    round = a_closed_round()
    tasks.solve_round(str(round.pk))
    monkeypatch.setattr(tasks, "own_solver", lambda memory_mb: bad)
    for kind, state, code in (("die", "pending", ""), ("eat", "failed", "solver_out_of_memory")):
        [study] = studies.studies_request(
            round=round, kind=kind, questions=[studies.Question({})], actor="t", now=timezone.now()
        )
        tasks.run_study(str(study.pk))
        study.refresh_from_db()
        assert (study.state, study.code, study.claims) == (state, code, 1)


def taken(name: str) -> list[tuple[str, list[str]]]:
    """What waits in a queue: (task, its arguments)."""
    found = []
    with app.connection_for_read() as connection:
        [queue] = [q for q in app.conf.task_queues if q.name == name]
        bound = queue(connection.channel())
        bound.declare()
        while (message := bound.get(no_ack=True)) is not None:
            arguments, _, _ = message.payload
            found.append((message.headers["task"], arguments))
    return found


def test_rounds_of_venues_go_to_their_own_queues_and_studies_to_theirs(db, settings):
    lab = world.members.venue_ensure(now=timezone.now(), name="lab")
    pair = [
        Round.objects.create(
            venue=venue, number=1, closes_at=timezone.now(), created_at=timezone.now()
        )
        for venue in (world.a_venue(), lab)
    ]
    settings.SOLVE_PINS = {"lab": "3"}
    names = [solve_queue(v.name, count=4, pins=settings.SOLVE_PINS) for v in (world.a_venue(), lab)]
    assert names[1] == "solve-3"
    for name in (*names, STUDIES):
        taken(name)  # what other tests have left
    tasks.hand_out_rounds([round.pk for round in pair])
    asked = {name: taken(name) for name in set(names)}
    for round, name in zip(pair, names, strict=True):
        assert ("broker.tasks.solve_round", [str(round.pk)]) in asked[name]
    assert sum(map(len, asked.values())) == 2

    [study] = studies.studies_request(
        round=pair[0], kind="quote", questions=[studies.Question({})], actor="t", now=timezone.now()
    )
    tasks.hand_out_studies([study.pk])
    assert taken(STUDIES) == [("broker.tasks.run_study", [str(study.pk)])]


def test_a_venue_keeps_its_queue_and_a_pin_names_one_of_its_own():
    names = [f"venue-{n}" for n in range(200)]
    first = [solve_queue(name, count=4, pins={}) for name in names]
    assert first == [solve_queue(name, count=4, pins={}) for name in names]
    assert set(first) == {f"solve-{n}" for n in range(4)}
    assert solve_queue("main", count=4, pins={"main": "big"}) == "solve-big"
    everything = {queue.name for queue in queues(count=4, pins={"main": "big", "lab": "0"})}
    assert everything == {"hanse", "studies", "solve-big", *(f"solve-{n}" for n in range(4))}
    assert not any("." in name for name in everything)


NUMBERS = [1, 2, 3, 4, 5]
SQUARES = {"squares": [1, 4, 9, 16, 25], "total": sum(n**4 for n in NUMBERS)}


def spread(solver, crew):
    return solver.ask(
        "shared_out", inputs={}, parameters={"numbers": NUMBERS}, limit_s=60, crew=crew
    )


def a_crew(round, hand_out, limit_s=30.0):
    return FanOut(round.pk, limit_s=limit_s, hand_out=hand_out)


def test_one_worker_alone_computes_all_parts_of_a_round_and_waits_for_nobody(market, bad):
    handed: list[int] = []
    crew = a_crew(a_closed_round(), lambda ids: handed.append(len(ids)))
    assert spread(bad, crew) == SQUARES
    assert handed == [5, 5]
    assert not Study.objects.exists()


def test_other_workers_take_parts_of_a_round(market, bad, tmp_path, monkeypatch):
    other = Solver(memory_mb=MEMORY_MB, works="tests.broker.misbehaving", scratch=tmp_path)
    monkeypatch.setattr(tasks, "own_solver", lambda memory_mb: other)
    states: list[list[str]] = []

    def hand_out(ids):
        for part in ids[:2]:
            tasks.run_study(str(part))
        states.append([Study.objects.get(pk=part).state for part in ids])

    assert spread(bad, a_crew(a_closed_round(), hand_out)) == SQUARES
    assert states == [["done", "done", "pending", "pending", "pending"]] * 2
    other.close()


@pytest.mark.parametrize("others", [0, 1])
def test_a_round_by_regions_is_what_one_search_finds_whoever_answers(
    market, bad, tmp_path, monkeypatch, others
):
    other = Solver(memory_mb=MEMORY_MB, works="tests.broker.misbehaving", scratch=tmp_path)
    monkeypatch.setattr(tasks, "own_solver", lambda memory_mb: other)
    answered: list[int] = []

    def hand_out(ids):
        for part in ids[:others]:
            tasks.run_study(str(part))
        answered.append(Study.objects.filter(pk__in=ids, state="done").count())

    crew = a_crew(a_closed_round(), hand_out)
    told = bad.ask(
        "coordinated",
        inputs={},
        parameters={"jobs": 400, "regions": 3},
        limit_s=60,
        crew=crew,
    )
    assert told["value"] == pytest.approx(told["alone"], rel=1e-9)
    assert told["value"] == pytest.approx(told["bound"], rel=1e-6)
    assert answered == [others] * told["rounds"]
    assert Study.objects.filter(kind="file").count() == 3  # however often the regions answered
    assert len(list(other.scratch.shelf.iterdir())) == others
    crew.leave()
    assert not Study.objects.exists()
    other.close()


def test_fringes_are_decided_apart_as_they_are_here(market, bad):
    fringe = {
        "gang": [0, 0, 1, 2],
        "pool": [0, 1, 0, 1],
        "gain": [5.0, 4.0, 3.0, 3.5],
        "hours": [2.0, 2.0, 2.0, 2.0],
        "room": [2.0, 2.0],
        "nodes": 1000,
        "slack": 0.0,
    }
    told = bad.ask(
        "decided",
        inputs={},
        parameters={"fringes": [fringe, {**fringe, "room": [4.0, 0.0]}]},
        limit_s=60,
        crew=a_crew(a_closed_round(), lambda ids: None),
    )
    assert told["apart"] == told["here"]
    assert told["here"][0] == [[0, 3], True]


def test_a_part_whose_worker_died_is_computed_by_the_one_that_waits(market, bad, monkeypatch):
    round = a_closed_round()
    Venue.objects.update(solve_patience_s=0.01)  # so the dead worker's claim is over at once

    def hand_out(ids):
        claim = studies.study_claim(study_id=ids[-1], token=ids[-1], now=timezone.now())
        assert claim is not None

    assert spread(bad, a_crew(round, hand_out)) == SQUARES


def test_what_a_round_is_solved_from_is_its_stored_book(market):
    round = a_closed_round()
    found = frozen(round.pk)
    assert found.book == bytes(round.snapshot.body)
    assert found.clearing is None
