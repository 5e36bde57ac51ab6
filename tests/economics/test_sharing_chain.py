"""The exact chain of a federation, against jobs counted one by one and against closed forms."""

import itertools

import numpy as np
import pytest

from economics.incentives import sharing_chain
from economics.incentives.queueing import erlang_b
from economics.incentives.sharing_chain import (
    MOST_STATES,
    Cloud,
    TooManyStates,
    states_of,
    use_of,
)
from economics.incentives.sharing_game import sharing_game


def plain_chain(clouds, shares):
    """The same federation job by job: who owns every lent machine, by a dense linear system."""
    count = len(clouds)
    start = ((0,) * count,) * count  # jobs of cloud i that run at cloud j
    number, todo, rates = {start: 0}, [start], []
    public = {}
    while todo:
        state = todo.pop()
        moves, bought = plain_moves(clouds, shares, state)
        public[state] = bought
        for after, rate in moves:
            if after not in number:
                number[after] = len(number)
                todo.append(after)
            rates.append((number[state], number[after], rate))
    flow = np.zeros((len(number), len(number)))
    for origin, target, rate in rates:
        flow[target, origin] += rate
        flow[origin, origin] -= rate
    flow[0] = 1.0
    chance = np.linalg.solve(flow, np.eye(len(number))[0])
    jobs = np.tensordot(chance, np.array(list(number), dtype=float), 1)
    away = jobs - np.diag(np.diag(jobs))
    outside = sum(chance[number[state]] * np.array(bought) for state, bought in public.items())
    return outside, away.sum(axis=1), away.sum(axis=0), jobs.sum(axis=0)


def plain_moves(clouds, shares, state):
    """Where a state leads with which rate, and each cloud's rate of buying outside."""
    moves, bought = [], [0.0] * len(clouds)
    idle = [c.machines - sum(row[at] for row in state) for at, c in enumerate(clouds)]
    lent = [sum(row[at] for i, row in enumerate(state) if i != at) for at in range(len(clouds))]
    for i, cloud in enumerate(clouds):
        free = {
            j: min(shares[j] - lent[j], idle[j])
            for j in range(len(clouds))
            if j != i and min(shares[j] - lent[j], idle[j]) > 0
        }
        best = [j for j in free if free[j] == max(free.values())]
        if idle[i] > 0:
            moves.append((changed(state, i, i, 1), cloud.load))
        elif best:
            moves += [(changed(state, i, j, 1), cloud.load / len(best)) for j in best]
        else:
            bought[i] = cloud.load
        moves += [(changed(state, i, j, -1), n) for j, n in enumerate(state[i]) if n]
    return moves, bought


def changed(state, i, j, by):
    rows = [list(row) for row in state]
    rows[i][j] += by
    return tuple(map(tuple, rows))


@pytest.mark.parametrize(
    ("machines", "loads", "shares"),
    [
        ((3, 2), (2.0, 2.5), (2, 1)),
        ((2, 2, 2), (1.0, 1.5, 3.0), (2, 1, 1)),
        ((2, 1, 3), (0.7, 2.0, 2.2), (1, 1, 3)),
        ((3, 3), (1.0, 0.0), (0, 3)),
    ],
)
def test_the_chain_is_that_of_the_jobs_themselves(machines, loads, shares):
    clouds = [Cloud(*pair) for pair in zip(machines, loads, strict=True)]
    use = use_of(clouds, shares)
    public, borrowed, lent, busy = plain_chain(clouds, shares)
    assert use.public == pytest.approx(public, abs=1e-10)
    assert use.borrowed == pytest.approx(borrowed, abs=1e-10)
    assert use.lent == pytest.approx(lent, abs=1e-10)
    assert use.utilisation == pytest.approx(busy / np.array(machines), abs=1e-10)


def test_a_cloud_that_shares_nothing_is_erlangs():
    use = use_of([Cloud(6, 3.0), Cloud(4, 5.0)], (0, 0))
    assert use.public == pytest.approx([3.0 * erlang_b(6, 3.0), 5.0 * erlang_b(4, 5.0)], rel=1e-12)


@pytest.mark.parametrize(("machines", "loads"), [((6, 6), (2.0, 6.0)), ((2, 3, 4), (1, 4, 2))])
def test_clouds_that_share_all_lose_what_one_cloud_of_all_machines_would(machines, loads):
    use = use_of([Cloud(*pair) for pair in zip(machines, loads, strict=True)], machines)
    lost = sum(loads) * erlang_b(sum(machines), sum(loads))
    assert sum(use.public) == pytest.approx(lost, rel=1e-9)


def test_every_job_is_somewhere_and_what_is_lent_is_borrowed():
    clouds = (Cloud(4, 2.0), Cloud(3, 4.0), Cloud(2, 1.0))
    for shares in itertools.product(range(5), range(4), range(3)):
        use = use_of(clouds, shares)
        assert sum(use.borrowed) == pytest.approx(sum(use.lent), abs=1e-10)
        for at, cloud in enumerate(clouds):
            at_home = use.utilisation[at] * cloud.machines - use.lent[at]
            assert at_home + use.borrowed[at] + use.public[at] == pytest.approx(cloud.load)


def test_the_order_of_the_clouds_does_not_matter_to_the_chain():
    clouds, shares = (Cloud(3, 2.0), Cloud(2, 2.5), Cloud(3, 1.0)), (2, 1, 3)
    first = use_of(clouds, shares)
    for order in itertools.permutations(range(3)):
        use = use_of([clouds[at] for at in order], [shares[at] for at in order])
        assert use.public == pytest.approx([first.public[at] for at in order], abs=1e-12)
        assert use.lent == pytest.approx([first.lent[at] for at in order], abs=1e-12)


def test_a_large_chain_is_stepped_to_the_same_shares_of_time(monkeypatch):
    clouds, shares = (Cloud(4, 3.0), Cloud(4, 2.0), Cloud(4, 3.5)), (4, 2, 3)
    factored = use_of(clouds, shares)
    monkeypatch.setattr(sharing_chain, "DIRECT_STATES", 10)
    stepped = use_of(clouds, shares)
    assert stepped != factored  # or the other way was not taken
    assert stepped.public == pytest.approx(factored.public, abs=1e-10)
    assert stepped.utilisation == pytest.approx(factored.utilisation, abs=1e-10)


def test_a_chain_that_is_too_large_is_refused_with_its_size():
    clouds = [Cloud(10, 5.0)] * 4
    with pytest.raises(TooManyStates, match=f"{states_of(clouds, [10] * 4)} states"):
        sharing_game(clouds, 0.5)
    assert states_of(clouds, [10] * 4) > MOST_STATES
    assert use_of(clouds, (0, 0, 0, 0)).lent == (0, 0, 0, 0)  # 11^4 states
