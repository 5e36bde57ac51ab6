"""Jobs that queue for GPUs in virtual time: what is conserved, who goes first, what it is worth."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from economics.policies.gittins_index import Experience
from federation.simulation.hybrid_cluster import Hall, play_hybrid
from federation.simulation.hybrid_disciplines import (
    Allox,
    FirstComeAny,
    FirstComeFastest,
    ShortestJob,
)
from federation.simulation.hybrid_trace import HybridTrace, draw
from federation.simulation.queue_cluster import play
from federation.simulation.queue_disciplines import Fifo, Gittins, LeastAttained, Shortest
from federation.simulation.queue_trace import Trace, read_philly, read_sixty_jobs

DATA = os.environ.get("HANSE_DATA")
needs_traces = pytest.mark.skipif(
    DATA is None, reason="HANSE_DATA names no folder: the public traces are not at hand"
)
SIXTEEN_GPU_HOURS = 57_600.0
DISCIPLINES = (
    Fifo(),
    Fifo(skips=True),
    Shortest(),
    Shortest(by_service=True),
    LeastAttained((20.0,)),
    LeastAttained((10.0, 40.0), knob=1.0),
    Gittins(Experience.of([5.0, 30.0, 90.0], 10.0)),
)


def traced(*rows):
    """A trace of (arrival, GPUs, seconds)."""
    arrival, gpus, seconds = np.array(rows, dtype=float).T
    return Trace.of(arrival, gpus, seconds)


def check(story, gpus, restart_s=0.0):
    """Every job got exactly its work, on all its GPUs, after it came; GPUs were never oversold."""
    trace = story.trace
    for span in story.spans:
        assert span.end >= span.start
        assert np.unique(span.jobs).size == span.jobs.size
        assert trace.gpus[span.jobs].sum() <= gpus
        assert (trace.arrival[span.jobs] <= span.start + 1e-6).all()
        assert (story.finish[span.jobs] >= span.end - 1e-6).all()
    given_service = trace.gpus @ story.delivered
    needed = trace.service.sum()
    if restart_s:
        assert story.delivered.sum() >= trace.seconds.sum() - 1e-6
        most = story.restarts * restart_s
        assert story.delivered.sum() <= trace.seconds.sum() + most + 1e-6
    else:
        assert given_service == pytest.approx(needed, rel=1e-6)
        np.testing.assert_allclose(story.delivered, trace.seconds, rtol=1e-6)


@st.composite
def traces(draw_):
    job = st.tuples(st.integers(0, 60), st.integers(1, 4), st.integers(1, 40))
    return traced(*draw_(st.lists(job, min_size=1, max_size=12)))


@settings(deadline=None, max_examples=60)
@given(traces(), st.sampled_from(DISCIPLINES), st.integers(4, 7), st.sampled_from([0.0, 3.0]))
def test_work_is_conserved_and_a_gang_is_whole(trace, discipline, gpus, restart_s):
    check(play(trace, gpus, discipline, restart_s=restart_s), gpus, restart_s)


@settings(deadline=None, max_examples=40)
@given(traces(), st.sampled_from(DISCIPLINES))
def test_on_one_gpu_shortest_remaining_first_is_best(trace, discipline):
    alone = Trace.of(trace.arrival, np.ones(trace.jobs), trace.seconds)
    best = play(alone, 1, Shortest()).completion.mean()
    assert best <= play(alone, 1, discipline).completion.mean() + 1e-9


def test_a_strict_queue_waits_for_its_head_and_backfilling_does_not():
    trace = traced((0, 3, 10), (1, 4, 10), (2, 1, 5))
    assert play(trace, 4, Fifo()).finish.tolist() == [10, 20, 25]
    assert play(trace, 4, Fifo(skips=True)).finish.tolist() == [10, 20, 7]


def test_a_job_wider_than_the_cluster_is_refused_and_does_not_stop_the_queue():
    with pytest.raises(ValueError, match="asks for 5 GPUs of a cluster of 4"):
        play(traced((0, 1, 1), (1, 5, 1)), 4, Fifo())


def test_a_job_drops_a_queue_by_gpu_seconds_not_by_seconds():
    # Four GPUs reach 200 GPU-seconds after 50 s; the newcomer then goes first.
    trace = traced((0, 4, 100), (10, 4, 30))
    story = play(trace, 4, LeastAttained((200.0,)))
    assert story.finish.tolist() == [130, 80]
    assert story.restarts == 1


def test_the_first_job_put_back_pays_for_its_restart():
    trace = traced((0, 4, 100), (10, 4, 30))
    story = play(trace, 4, LeastAttained((200.0,)), restart_s=7.0)
    assert story.finish.tolist() == [137, 80]
    assert story.delivered.tolist() == [107, 30]


def a_long_job_in_a_stream():
    """A long job on one GPU, and a job of 5 s every 5 s from then on."""
    return traced((0, 1, 300), *((5.0 * k, 1, 5) for k in range(1, 400)))


def test_a_job_that_waited_as_long_as_it_ran_is_promoted():
    story = play(a_long_job_in_a_stream(), 1, LeastAttained((10.0,), knob=1.0))
    assert len(story.promotions) > 5
    for promotion in story.promotions:
        assert promotion.ran > 0
        assert promotion.waited == pytest.approx(promotion.ran, abs=1.0)
    check(story, 1)


def test_without_the_guard_the_stream_starves_it():
    trace = a_long_job_in_a_stream()
    starved = play(trace, 1, LeastAttained((10.0,)))
    assert not starved.promotions
    assert starved.finish[0] == starved.finish.max()
    guarded = play(trace, 1, LeastAttained((10.0,), knob=1.0))
    assert guarded.finish[0] < 0.5 * starved.finish[0]


def test_the_gittins_order_gives_up_on_a_job_past_every_sample():
    # All past jobs ended by 40 GPU-seconds; at 50 the long one goes last.
    trace = traced((0, 1, 100), (45, 1, 30))
    story = play(trace, 1, Gittins(Experience.of([10.0, 20.0, 40.0], 10.0)))
    assert story.finish.tolist() == [130, 75]


@needs_traces
def test_sixty_jobs_on_eight_gpus_take_half_the_time_under_attained_service():
    trace = read_sixty_jobs(Path(DATA) / "tiresias" / "60_job.csv")
    assert (trace.jobs, trace.service.sum()) == (60, 26_624)
    story = play(trace, 8, LeastAttained((200.0,)))
    check(story, 8)
    fifo = play(trace, 8, Fifo()).completion.mean()
    assert fifo == pytest.approx(1556.5, abs=0.1)
    assert play(trace, 8, Fifo(skips=True)).completion.mean() == pytest.approx(715.3, abs=0.1)
    assert play(trace, 8, Shortest()).completion.mean() == pytest.approx(519.9, abs=0.1)
    assert story.completion.mean() <= 0.55 * fifo


@needs_traces
def test_two_thousand_jobs_of_philly_take_a_third_of_the_time_under_attained_service():
    trace = read_philly(Path(DATA) / "philly" / "jobs_until_2017-10.csv.gz", "6c71a0", jobs=2000)
    assert trace.jobs == 2000
    story = play(trace, 62, LeastAttained((SIXTEEN_GPU_HOURS,)))
    check(story, 62)
    fifo = play(trace, 62, Fifo()).completion.mean()
    oracle = play(trace, 62, Shortest(by_service=True)).completion.mean()
    assert fifo == pytest.approx(294_090, rel=1e-3)
    assert oracle == pytest.approx(45_084, rel=1e-3)
    assert oracle <= story.completion.mean() <= fifo / 3.0


@needs_traces
def test_sixteen_gpu_hours_do_well_whether_or_not_running_jobs_go_first():
    trace = read_philly(Path(DATA) / "philly" / "jobs_until_2017-10.csv.gz", "6c71a0", jobs=2000)
    fifo = play(trace, 62, Fifo()).completion.mean()

    def mean(limit, running_first):
        discipline = LeastAttained((limit,), running_first=running_first)
        return play(trace, 62, discipline).completion.mean()

    assert mean(SIXTEEN_GPU_HOURS, False) <= fifo / 3.0
    assert mean(3600.0, True) <= fifo / 3.0
    assert mean(3600.0, False) > fifo / 2.0


@needs_traces
def test_the_gittins_order_learns_from_the_jobs_that_came_later():
    path = Path(DATA) / "philly" / "jobs_until_2017-10.csv.gz"
    trace = read_philly(path, "6c71a0", jobs=2000)
    past = read_philly(path, "6c71a0", jobs=2000, after=2000)
    story = play(trace, 62, Gittins(Experience.of(past.service, SIXTEEN_GPU_HOURS)))
    check(story, 62)
    attained = play(trace, 62, LeastAttained((SIXTEEN_GPU_HOURS,))).completion.mean()
    assert story.completion.mean() == pytest.approx(attained, rel=0.05)


# Devices of two types


HYBRIDS = (FirstComeAny(), FirstComeFastest(), ShortestJob(), Allox(), Allox(0.1), Allox(1.0, 3))


def whole(story, devices):
    """Each job ran once, to its end, after it came, on a device that had no other job then."""
    trace = story.trace
    kind = np.repeat(np.arange(len(devices)), devices)[story.device]
    took = trace.seconds[np.arange(trace.jobs), kind]
    np.testing.assert_allclose(story.finish, story.start + took)
    assert (story.start >= trace.arrival).all()
    for device in np.unique(story.device):
        jobs = np.flatnonzero(story.device == device)
        jobs = jobs[np.argsort(story.start[jobs])]
        assert (story.start[jobs][1:] >= story.finish[jobs][:-1] - 1e-9).all()


@pytest.mark.parametrize("discipline", HYBRIDS, ids=repr)
def test_a_device_serves_one_job_at_a_time_to_its_end(discipline):
    trace = draw(80, seed=3)
    whole(play_hybrid(trace, (3, 2), discipline), (3, 2))


def test_jobs_that_are_all_present_are_served_in_the_best_order():
    seconds = np.array([[9.0, 3.0], [4.0, 8.0], [5.0, 2.0], [7.0, 7.0]])
    trace = HybridTrace(np.zeros(4), seconds, seconds, np.arange(4))
    # First type: 4, then 7; second: 2, then 3. Found by trying all orders.
    assert play_hybrid(trace, (1, 1), Allox()).completion.sum() == 4 + 11 + 2 + 5


def test_a_wrong_belief_changes_the_order_and_not_the_work():
    seconds = np.array([[10.0], [1.0]])
    trace = HybridTrace(np.zeros(2), seconds, seconds[::-1], np.zeros(2, dtype=np.int64))
    assert play_hybrid(trace, (1,), ShortestJob()).finish.tolist() == [10, 11]


def test_a_device_that_is_taken_is_not_given_again():
    class Greedy:
        def starts(self, hall: Hall):
            return [(int(hall.waiting[0]), 0), (int(hall.waiting[-1]), 0)]

    with pytest.raises(ValueError, match="cannot start on device 0"):
        play_hybrid(draw(5, seed=0), (1, 1), Greedy())


@pytest.mark.parametrize("seed", range(4))
def test_alpha_one_beats_the_queue_and_alpha_a_tenth_is_fairer_at_a_price(seed):
    # Made-up traces: the published one is not among the shared data.
    trace = draw(600, seed=seed)
    played = {
        name: play_hybrid(trace, (5, 5), discipline)
        for name, discipline in {
            "any": FirstComeAny(),
            "shortest": ShortestJob(),
            "one": Allox(),
            "tenth": Allox(0.1),
        }.items()
    }
    mean = {name: story.completion.mean() for name, story in played.items()}
    assert mean["one"] <= 0.40 * mean["any"]
    assert mean["one"] <= 1.00 * mean["shortest"]
    assert mean["tenth"] <= 1.45 * mean["one"]
    assert played["tenth"].largest_gap < played["one"].largest_gap
    assert played["tenth"].mean_gap < played["one"].mean_gap
