"""How variables are kept alike: the strategies by hand, and the quickest of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.affinity.planner.errors import BadDescription
from federation.affinity.planner.pool import Device, Pool
from federation.affinity.planner.synchronisation import (
    GROUP,
    STRATEGIES,
    Resources,
    Variable,
    pieces_of,
    resources_of,
    synchronisation_seconds,
    synchronise,
)

MB = 1e6
NODES = Resources(workers=8, servers=2, worker_bytes_s=1e9, server_bytes_s=4e9, latency_s=1e-5)
WORDS = Variable("words", 50000, 400 * MB, touched=0.01)
DENSE = [Variable(f"layer-{at}", 1024, 4 * MB) for at in range(6)]


def built(strategy, variables, resources=NODES):
    return {one.variable: one for one in STRATEGIES[strategy](variables, resources)}


def test_a_variable_goes_to_the_server_with_fewest_bytes():
    sizes = (5, 3, 1, 1, 4)
    variables = [Variable(f"v{at}", 10, size * MB) for at, size in enumerate(sizes)]
    found = built("parameter_server", variables)
    assert [found[f"v{at}"].servers for at in range(5)] == [(0,), (1,), (1,), (1,), (0,)]


def test_a_partition_is_by_the_smallest_divisor():
    assert [pieces_of(Variable("v", rows, 1.0)) for rows in (1, 2, 7, 9, 35, 1024)] == [
        1, 2, 7, 3, 5, 2,
    ]  # fmt: skip
    found = built("partitioned_server", [Variable("v", 1024, 8 * MB), Variable("one", 1, MB)])
    assert found["v"].servers == (0, 1)
    assert found["one"].servers == (0,)
    assert built("partitioned_server", [Variable("prime", 7, MB)])["prime"].servers == (0, 1)


def test_all_reduce_sends_128_variables_at_a_time():
    variables = [Variable(f"v{at}", 2, 1.0) for at in range(GROUP + 1)]
    groups = [one.group for one in built("all_reduce", variables).values()]
    assert groups == [0] * GROUP + [1]


def test_sparse_variables_go_to_servers_and_dense_ones_are_reduced():
    found = built("sparse_to_server", [DENSE[0], WORDS])
    assert (found["layer-0"].by, found["words"].by) == ("all_reduce", "parameter_server")


@pytest.mark.parametrize(
    ("strategy", "seconds"),
    [
        # 2 x 7/8 x 24 MB at 1 GB/s, 14 hops; 7 x 4 MB of rows beside it
        ("all_reduce", 0.042 + 0.028 + 14e-5),
        # server 0 has 400 MB of words, 4 of which move; server 1 has six layers, 24 MB
        ("parameter_server", 2 * (8 * 0.024 / 4 + 1e-5)),
        ("partitioned_server", 2 * (8 * 0.014 / 4 + 1e-5)),
        ("sparse_to_server", 0.042 + 14e-5 + 2 * (8 * 0.004 / 4 + 1e-5)),
    ],
)
def test_seconds_by_hand(strategy, seconds):
    variables = [WORDS, *DENSE]
    chosen = STRATEGIES[strategy](variables, NODES)
    assert synchronisation_seconds(variables, chosen, NODES) == pytest.approx(seconds)


def test_dense_models_are_reduced_and_large_sparse_tables_are_served():
    few = Resources(8, 2, 1e9, 3e9, 1e-5)
    assert synchronise(DENSE, few).strategy == "all_reduce"
    assert synchronise([WORDS, *DENSE], few).strategy == "sparse_to_server"
    many = Resources(64, 8, 1e9, 8e9, 1e-3)
    assert synchronise([Variable("small", 2, MB)], many).strategy == "partitioned_server"
    assert synchronise([Variable("bias", 1, 100.0)], many).strategy == "parameter_server"


def test_one_worker_has_nobody_to_agree_with():
    alone = synchronise([WORDS], Resources(1, 1, 1e9, 1e9))
    assert alone.seconds == 0.0


@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.integers(1, 10**6), st.sampled_from([0.01, 0.5, 1.0])),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 64),
    st.integers(1, 8),
)
def test_the_quickest_is_chosen_and_every_variable_has_a_place(drawn, workers, servers):
    variables = [Variable(f"v{at}", *row) for at, row in enumerate(drawn)]
    resources = Resources(workers, servers, 1e9, 3e9)
    found = synchronise(variables, resources)
    assert found.seconds == min(seconds for _, seconds in found.considered)
    assert [one.variable for one in found.variables] == [v.name for v in variables]
    for one in found.variables:
        assert (one.group is None) == bool(one.servers)
        assert all(0 <= server < servers for server in one.servers)
        assert len(set(one.servers)) == len(one.servers)


def test_the_resources_of_a_pool():
    pool = Pool("A", Device(80, 312, 2400, 200), 64, 8)
    wide = resources_of(pool, 32)
    assert (wide.workers, wide.servers) == (32, 4)
    assert (wide.worker_bytes_s, wide.server_bytes_s) == (25e9, 200e9)
    assert resources_of(pool, 4).worker_bytes_s == 300e9


def test_what_is_no_variable_is_refused():
    with pytest.raises(BadDescription, match="there is none"):
        synchronise([], NODES)
    with pytest.raises(BadDescription, match="'words' stands twice"):
        synchronise([WORDS, WORDS], NODES)
    with pytest.raises(BadDescription, match=r"variables\.v\.touched: must be"):
        Variable("v", 1, 1.0, touched=0.0)
    with pytest.raises(BadDescription, match="workers: must be"):
        Resources(0, 1, 1e9, 1e9)
