"""Sizes and pools of which every pair fits, and GPUs by a site's word or by a data sheet."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.affinity.planner.errors import BadDescription
from federation.affinity.planner.product import rectangle
from federation.affinity.planner.sheets import INTER_GBIT_S, described

POOLS = ("a", "b", "c", "d", "e")
SIZES = st.sampled_from([1, 2, 3, 4, 6, 8, 16])
TABLES = st.dictionaries(st.sampled_from(POOLS), st.frozensets(SIZES, min_size=1), min_size=1)


def cells_of(fits: dict[str, frozenset[int]]) -> list[tuple[str, int]]:
    return sorted((pool, size) for pool, sizes in fits.items() for size in sizes)


def most_cells(fits: dict[str, frozenset[int]], held: list[tuple[str, int]]) -> int:
    """Cells of the largest rectangle that holds those, by looking at every set of pools."""
    names = sorted(fits)
    some = chain.from_iterable(combinations(names, n) for n in range(1, len(names) + 1))
    best = 0
    for pools in some:
        sizes = frozenset.intersection(*(fits[pool] for pool in pools))
        if all(pool in pools and size in sizes for pool, size in held):
            best = max(best, len(pools) * len(sizes))
    return best


@settings(max_examples=300, deadline=None)
@given(fits=TABLES, data=st.data(), most=st.integers(2, 7))
def test_every_size_fits_on_every_pool(fits, data, most):
    wanted = data.draw(st.lists(st.sampled_from(cells_of(fits)), min_size=1, max_size=3))

    found = rectangle(fits, wanted, most_sizes=most, order={})

    assert all(size in fits[pool] for pool in found.pools for size in found.sizes)
    assert wanted[0][0] in found.pools
    assert wanted[0][1] in found.sizes
    assert len(found.sizes) <= max(most, len({size for _, size in wanted}))
    assert list(found.sizes) == sorted(set(found.sizes))
    # no pool that could stand beside the others is left away
    assert set(found.pools) == {pool for pool in fits if set(found.sizes) <= fits[pool]}


@settings(max_examples=200, deadline=None)
@given(ends=st.dictionaries(st.sampled_from(POOLS), st.integers(1, 7), min_size=1), data=st.data())
def test_of_nested_pools_it_is_the_largest_and_holds_both_cells_where_that_can_be(ends, data):
    ladder = [1, 2, 3, 4, 6, 8, 16]
    fits = {pool: frozenset(ladder[:end]) for pool, end in ends.items()}
    first, second = (data.draw(st.sampled_from(cells_of(fits))) for _ in range(2))

    found = rectangle(fits, [first, second], most_sizes=7, order={})

    both = second[1] in fits[first[0]] and first[1] in fits[second[0]]
    held = [first, second] if both else [first]
    assert all(pool in found.pools and size in found.sizes for pool, size in held)
    assert len(found.pools) * len(found.sizes) == most_cells(fits, held)


def test_of_too_many_sizes_the_cheapest_stay_beside_those_wanted():
    fits = {"a": frozenset(range(1, 101))}
    order = {size: abs(size - 50.0) for size in range(1, 101)}

    found = rectangle(fits, [("a", 100)], most_sizes=5, order=order)

    assert found.sizes == (48, 49, 50, 51, 100)


def test_a_cell_that_does_not_fit_holds_nothing():
    with pytest.raises(ValueError, match="no plan fits the first cell"):
        rectangle({"a": {1}}, [("a", 2)], most_sizes=4, order={})


def test_a_data_sheet_gives_what_the_site_leaves_out():
    sheet = described("NVIDIA A100-SXM4-80GB", {})

    assert not isinstance(sheet, str)
    assert (sheet.device.memory_gb, sheet.device.peak_tflops) == (80.0, 312.0)
    assert sheet.device.intra_gbit_s == 600 / 2 * 8  # half of both directions, GB to Gbit
    assert sheet.device.inter_gbit_s == INTER_GBIT_S
    assert sheet.gpus_per_node == 8
    on_a_bus = described("L4", {})
    assert not isinstance(on_a_bus, str)
    assert on_a_bus.gpus_per_node == 4


def test_the_sites_word_stands_above_the_data_sheet():
    found = described("A100", {"memory_gb": 40.0, "gpus_per_node": 2})

    assert not isinstance(found, str)
    assert (found.device.memory_gb, found.device.peak_tflops) == (40.0, 312.0)
    assert found.gpus_per_node == 2


def test_a_gpu_that_nobody_knows_is_named_with_what_is_missing():
    why = described("X9", {"memory_gb": 40.0})

    missing = "its site says no peak_tflops, intra_gbit_s"
    assert why == f"GPU 'X9' is in no data sheet here, and {missing}"
    whole = {"memory_gb": 40.0, "peak_tflops": 100.0, "intra_gbit_s": 800.0}
    assert not isinstance(described("X9", whole), str)


def test_figures_that_no_gpu_has_are_refused():
    with pytest.raises(BadDescription, match=r"gpu\.memory_gb: must be at least"):
        described("A100", {"memory_gb": -1.0})
