"""One click: sizes and pools that all hold the model, chosen from what is on offer now."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.affinity.planner.planning import plans
from federation.affinity.planner.pool import Pool
from federation.errors import BadInput, Refused
from federation.models import OfferPool, PoolPrice, Round
from federation.selectors import plans_pools
from federation.selectors.plans import plan_choice
from federation.selectors.plans_award import launch_variables, plan_at
from federation.selectors.plans_model import model_asked
from federation.selectors.plans_pools import planner_pool, stock_read
from tests.federation.planned_scene import LARGE, SMALL, WIDE, a_line, put_on_offer
from tests.support.world import NOW, a_class, a_job, a_round, a_site, a_tenant, a_venue, later

pytestmark = pytest.mark.django_db


def a_wish(**changes: Any) -> Any:
    names = ("gpus", "gpu_kinds", "sites_allow", "sites_deny", "pools")
    empty: dict[str, Any] = dict.fromkeys(names, ())
    return SimpleNamespace(**{**empty, **changes})


def choose(model: dict[str, Any] | None = None, **changes: Any) -> Any:
    wish = a_wish(**changes.pop("wish", {}))
    values: dict[str, Any] = {
        "model": SMALL if model is None else model,
        "samples": 100_000,
        "deadline_s": None,
        "budget": None,
    }
    return plan_choice(
        **{**values, **changes},
        wish=wish,
        job_class=a_class("cnn"),
        stock=stock_read(a_venue(), NOW + timedelta(seconds=1)),
    )


@pytest.fixture
def north():
    site = a_site("north", speeds={})
    put_on_offer(
        site,
        a_line("big", "A100-80", 32, reserve="2"),
        a_line("old", "T4", 16, reserve="0.3"),
        a_line("odd", "X9", 8),
        speeds={},
    )
    return site


def the_line(name: str) -> OfferPool:
    lines = OfferPool.objects.select_related("pool__site")
    return lines.get(offer__state="active", pool__name=name)


def test_every_size_fits_on_every_pool_that_is_chosen(north):
    found = choose()

    asked = model_asked(SMALL, samples=None)
    for name, size in product(found.pools, found.gpus):
        pool = planner_pool(the_line(name.partition(".")[2]))
        assert isinstance(pool, Pool)
        assert plans(asked.model, pool, size).nothing is None
    assert found.pools == ("north.big", "north.old")
    assert 1 not in found.gpus  # a T4 does not hold it alone


def test_the_document_says_what_is_cheapest_and_fastest_and_who_was_left_out(north):
    document = choose().document

    assert document["format"] == "hanse.choice/1"
    by_credits = min(document["front"], key=lambda one: one["credits"])
    by_time = min(document["front"], key=lambda one: one["time_s"])
    assert (document["cheapest"], document["fastest"]) == (by_credits, by_time)
    [odd] = [row for row in document["refused"] if row["pool"] == "north.odd"]
    assert "in no data sheet" in odd["why"]
    assert "memory_gb" in odd["why"]
    assert document["gpus"] == sorted(document["gpus"])


def test_a_site_that_describes_its_gpus_is_planned_with(north):
    put_on_offer(north, a_line("odd", "X9", 8, device=WIDE), speeds={})

    assert choose().pools == ("north.odd",)


def test_a_deadline_leaves_what_meets_it(north):
    free = choose()
    slowest = max(one["time_s"] for one in free.document["front"])
    fastest = free.document["fastest"]

    hurried = choose(deadline_s=fastest["time_s"] * 1.01)

    assert hurried.gpus == (fastest["plan"]["gpus"],)
    assert hurried.pools == (fastest["pool"],)
    assert hurried.document["cheapest"] == fastest
    assert choose(deadline_s=slowest * 10).gpus == free.gpus


def test_a_budget_leaves_what_it_pays(north):
    cheapest = choose().document["cheapest"]

    found = choose(budget=cheapest["credits"] * 1.0001)

    assert cheapest["pool"] in found.pools
    assert found.document["fastest"]["credits"] <= cheapest["credits"] * 1.0001


def test_wishes_that_nothing_meets_are_said_and_the_market_decides(north):
    found = choose(deadline_s=1.0, budget=0.000001)

    assert [sentence.split(":")[0] for sentence in found.document["why"]] == [
        "nothing ends within 1 s",
        "nothing costs at most 1e-06 credits",
    ]
    assert found.gpus == choose().gpus
    assert found.notes == tuple(found.document["why"])


def test_the_price_is_that_of_the_last_round_and_never_below_the_reserve(north):
    tenant = a_tenant()
    put_on_offer(north, a_line("big", "A100-80", 2, reserve="2"), speeds={"big": 1000.0})
    before = choose().document["cheapest"]
    for _ in range(3):  # more jobs than GPUs: the price rises
        a_job(tenant, samples=10_000, value="90000")
    a_round(later(10))
    round = Round.objects.get(published_at__isnull=False)
    price = PoolPrice.objects.get(round=round, pool__name="big").price_micro / 1e6
    assert price > 2

    after = choose().document["cheapest"]

    hours = after["time_s"] / 3600
    assert after["credits"] == pytest.approx(price * after["plan"]["gpus"] * hours)
    assert before["credits"] < after["credits"]
    put_on_offer(north, a_line("big", "A100-80", 2, reserve=str(price * 2)), speeds={"big": 1000.0})
    raised = choose().document["cheapest"]
    assert raised["credits"] == pytest.approx(2 * after["credits"])


def test_the_speed_that_the_market_believes_in_scales_the_plan(north):
    put_on_offer(north, a_line("big", "A100-80", 32), speeds={"big": 7.0})

    chosen = choose(wish={"gpus": (1,)}).document["cheapest"]["plan"]

    assert chosen["speed_from"] == "believed"
    assert chosen["samples_per_s"] == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("wish", "pools"),
    [
        ({"gpu_kinds": ("T4",)}, ("north.old",)),
        ({"pools": ("north.big",)}, ("north.big",)),
        ({"sites_allow": ("north",)}, ("north.big", "north.old")),
    ],
)
def test_only_what_the_tenant_permits_is_planned(north, wish, pools):
    assert choose(wish=wish).pools == pools


def test_nothing_permitted_is_a_sentence(north):
    for wish in ({"sites_deny": ("north",)}, {"gpu_kinds": ("B200",)}):
        with pytest.raises(Refused, match="permitted") as caught:
            choose(wish=wish)
        assert caught.value.code == "no_plan"


def test_only_unknown_gpus_are_a_sentence(north):
    with pytest.raises(Refused, match="in no data sheet") as caught:
        choose(wish={"pools": ("north.odd",)})
    assert caught.value.code == "no_plan"


def test_a_model_that_nothing_holds_is_told_the_tightest_part(north):
    with pytest.raises(Refused, match="the tightest part is optimizer states") as caught:
        choose({**LARGE, "params": 3e13, "hidden": 65536, "heads": 64})
    assert caught.value.code == "no_plan"


def test_own_sizes_that_do_not_fit_are_dropped_and_named(north):
    found = choose(wish={"gpus": (1, 4, 8), "pools": ("north.big", "north.old")})

    assert (found.gpus, found.pools) == ((4, 8), ("north.big", "north.old"))
    assert found.notes == ("Without 1 GPUs: the model does not fit so at every pool chosen.",)


def test_own_pools_that_cannot_hold_it_are_dropped_and_named(north):
    found = choose(wish={"gpus": (1,), "pools": ("north.big", "north.old")})

    assert (found.gpus, found.pools) == ((1,), ("north.big",))
    assert found.notes == ("Without north.old: the model does not fit there at every size.",)


def test_own_pools_that_are_not_on_offer_are_named_as_such(north):
    found = choose(wish={"pools": ("north.big", "south.gone")})

    assert found.pools == ("north.big",)
    assert found.notes == ("Without south.gone: not on offer now, or not permitted.",)


def test_a_speed_beyond_all_reckoning_leaves_the_formula(north):
    put_on_offer(north, a_line("big", "A100-80", 8), speeds={"big": 1e-9})

    found = choose().document["cheapest"]["plan"]
    award = plan_at(model=SMALL, pool=the_line("big"), gpus=8, samples_per_s=1e-9)

    assert (found["speed_from"], award["speed_from"]) == ("formula", "formula")


def test_own_sizes_beyond_every_pool_are_refused(north):
    with pytest.raises(Refused, match="fewer than 64") as caught:
        choose(wish={"gpus": (64,)})
    assert caught.value.code == "no_plan"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"params": float("nan")}, "model.params"),
        ({"params": -1.0}, "model.params"),
        ({"params": 1e6}, "model.params"),  # less than its own embedding
        ({"layers": 0}, "model.layers"),
        ({"layers": 2.5}, "model.layers"),
        ({"hidden": "wide"}, "model.hidden"),
        ({"heads": True}, "model.heads"),
        ({"seq": 10**12}, "model.seq"),
        ({"vocab": None}, "model.vocab"),
        ({"global_batch": 0}, "model.global_batch"),
        ({"global_batch": 735_134_400, "layers": 5040}, "model.global_batch"),
        ({"depth": 3}, "model.depth"),
        ({"gpus": 3}, "model.gpus"),
        ({"variables": "all"}, "model.variables"),
        ({"variables": []}, "model.variables"),
        ({"variables": [3]}, "model.variables[0]"),
        ({"variables": [{"size_mb": 1}]}, "model.variables[0].name"),
        ({"variables": [{"name": "w"}]}, "model.variables[0].size_mb"),
        ({"variables": [{"name": "w", "size_mb": 0}]}, "model.variables[0].size_mb"),
        ({"variables": [{"name": "w", "size_mb": 1, "sparse": 1}]}, "model.variables[0].sparse"),
        ({"variables": [{"name": "w", "size_mb": 1, "rows": 0}]}, "model.variables[0].rows"),
        ({"variables": [{"name": "w", "size_mb": 1, "x": 0}]}, "model.variables[0].x"),
        ({"variables": [{"name": "w", "size_mb": 1}] * 2}, "model.variables[1].name"),
    ],
)
def test_each_field_of_a_model_is_refused_by_its_path(north, changes, path):
    with pytest.raises(BadInput) as caught:
        choose({**SMALL, **changes})
    assert path in [problem.path for problem in caught.value.problems]
    assert all(problem.why for problem in caught.value.problems)


def test_a_model_without_a_field_names_it(north):
    short = {name: value for name, value in SMALL.items() if name != "heads"}
    with pytest.raises(BadInput) as caught:
        choose(short)
    assert [problem.path for problem in caught.value.problems] == ["model.heads"]


def test_more_pools_than_can_be_weighed_are_left_out_with_a_note(north, monkeypatch):
    monkeypatch.setattr(plans_pools, "MOST_POOLS", 1)

    found = choose()

    assert found.pools == ("north.old",)  # most computing for a credit
    assert "1 pools" in found.notes[-1]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from(["T4", "L4", "A100", "H100", "V100"]),
            st.integers(1, 40),
            st.sampled_from(["0.3", "1", "2.5"]),
        ),
        min_size=1,
        max_size=5,
    ),
    layers=st.sampled_from([12, 24, 36]),
    batch=st.sampled_from([6, 16, 48, 64]),
    deadline_h=st.none() | st.floats(0.5, 500.0),
)
def test_what_is_chosen_fits_by_brute_force(north, lines, layers, batch, deadline_h):
    put_on_offer(
        north,
        *(a_line(f"p{at}", gpu, gpus, reserve=r) for at, (gpu, gpus, r) in enumerate(lines)),
        speeds={},
    )
    model = {**SMALL, "layers": layers, "global_batch": batch}
    deadline_s = None if deadline_h is None else deadline_h * 3600
    asked = model_asked(model, samples=None)
    held = {}
    for line in OfferPool.objects.filter(offer__state="active").select_related("pool__site"):
        pool = planner_pool(line)
        assert isinstance(pool, Pool)
        for size in pool.sizes():
            held[pool.id, size] = plans(asked.model, pool, size).nothing is None
    if not any(held.values()):
        with pytest.raises(Refused):
            choose(model, deadline_s=deadline_s)
        return

    found = choose(model, deadline_s=deadline_s)

    assert found.gpus
    assert found.pools
    assert all(held[pool, size] for pool, size in product(found.pools, found.gpus))


def test_the_plan_of_an_award_is_the_quickest_there(north):
    asked = model_asked(LARGE, samples=None)
    line = the_line("big")
    pool = planner_pool(line)
    assert isinstance(pool, Pool)
    best = plans(asked.model, pool, 16).plans[0]

    document = plan_at(model=LARGE, pool=line, gpus=16)

    environment = document.pop("environment")
    assert document == {"format": "hanse.plan/1", **best.document()}
    assert environment == {
        "WORLD_SIZE": "16",
        "LOCAL_WORLD_SIZE": "8",
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "8",
    }
    scaled = plan_at(model=LARGE, pool=line, gpus=16, samples_per_s=3.0)
    assert scaled["samples_per_s"] == pytest.approx(3.0)
    assert (scaled["tensor"], scaled["pipeline"]) == (best.tensor, best.pipeline)


def test_an_award_that_holds_nothing_is_refused_with_what_is_tightest(north):
    with pytest.raises(Refused, match="the tightest part is") as caught:
        plan_at(model=LARGE, pool=the_line("old"), gpus=4)
    assert caught.value.code == "no_plan"
    with pytest.raises(Refused, match="in no data sheet") as caught:
        plan_at(model=SMALL, pool=the_line("odd"), gpus=4)
    assert caught.value.code == "no_plan"
    for pool, gpus in ((None, 4), (the_line("big"), 64)):
        with pytest.raises(Refused) as caught:
            plan_at(model=SMALL, pool=pool, gpus=gpus)
        assert caught.value.code == "not_on_offer"


def test_variables_bring_a_strategy_to_keep_them_alike(north):
    variables = [
        {"name": "wte", "size_mb": 412.0, "sparse": True},
        {"name": "body", "size_mb": 2100.0, "rows": 2048},
    ]

    document = plan_at(model={**SMALL, "variables": variables}, pool=the_line("big"), gpus=8)

    strategy = document["synchronisation"]
    assert strategy["strategy"] in strategy["considered"]
    assert strategy["seconds"] == min(strategy["considered"].values())
    assert [one["variable"] for one in strategy["variables"]] == ["wte", "body"]
    told = launch_variables(document)
    assert told is not None
    assert '"synchronisation":{"strategy"' in told["HANSE_PLAN"]


def test_a_plan_never_outgrows_one_variable_of_the_environment(north):
    names = [f"{'layer' * 30}.{at}" for at in range(1000)]
    variables = [{"name": name, "size_mb": 1.0} for name in names]

    document = plan_at(model={**SMALL, "variables": variables}, pool=the_line("big"), gpus=8)

    told = launch_variables(document)
    assert told is not None
    assert len(told["HANSE_PLAN"]) <= 64 * 1024
    strategy = document["synchronisation"]  # what each variable does is left out, the rest is not
    assert sorted(strategy) == ["considered", "seconds", "strategy"]
    assert strategy["strategy"] in strategy["considered"]


def test_no_plan_is_told_where_there_is_none():
    assert launch_variables(None) is None
