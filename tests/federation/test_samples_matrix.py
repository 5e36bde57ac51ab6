"""The affinity matrix: arrays say what `planned` says, and a forecast is priced on inside only."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import numpy as np
import pytest
from django.db.models import BooleanField, ExpressionWrapper, Q

from federation.affinity.belief import UNSEEN, claims_spread, observed, planned
from federation.affinity.believed import GUESSED
from federation.affinity.coldstart.blend import Prior, blend, measured
from federation.decision import decide
from federation.models import (
    Alarm,
    ForecastAffinity,
    Job,
    JobClass,
    MeasuredAffinity,
    OfferAffinity,
    PriorAffinity,
    SiteRecord,
)
from federation.policies import WORDS as POLICIES
from federation.selectors import affinity
from federation.selectors.affinity import believed_cells, current_offers, speed_at
from federation.selectors.cell_codes import Axes, CodeIndex
from federation.selectors.columns import columns_read
from federation.selectors.offers import offers_open
from federation.services import rounds
from federation.services.fits import models_refit
from federation.snapshot import book_build
from tests.federation.samples_scene import Scene, step_s
from tests.support.world import NOW, a_class, a_job, a_site, a_venue, later

pytestmark = pytest.mark.django_db


def matrix():
    return believed_cells(current_offers(a_venue(), later(300)))


def a_mixed_matrix(seed):
    """Claims, leases and forecasts of some classes on some pools, in all combinations."""
    draw = random.Random(seed)
    classes = [a_class(f"class-{at}") for at in range(6)]
    for name in ("north", "south", "west"):
        site = a_site(name, speeds={"cnn": 1000.0})
        SiteRecord.objects.update_or_create(
            site=site, defaults={"contracts": draw.choice([0, 7, 40]), "updated_at": NOW}
        )
        pool, offer = site.pools.get(), site.offers.get()
        for job_class in classes:
            for gpus in (1, 2, 4, 8):
                cell = {"pool": pool, "job_class": job_class, "gpus": gpus}
                if draw.random() < 0.5:
                    source = draw.choice(["declared", "probed"])
                    speed = draw.uniform(100, 3000)
                    OfferAffinity.objects.create(
                        offer=offer, samples_per_s=speed, source=source, **cell
                    )
                    if draw.random() < 0.4:
                        Alarm.objects.create(
                            kind="claim", about=f"{cell}", why="raised", figures={"gpus": gpus},
                            site=site, pool=pool, job_class=job_class, created_at=NOW,
                        )  # fmt: skip
                if draw.random() < 0.5:
                    MeasuredAffinity.objects.create(
                        samples_per_s=draw.uniform(100, 3000), log_sd=draw.random() / 5,
                        leases=draw.choice([0, 1, 2, 20]),
                        updated_at=NOW + timedelta(hours=draw.random()), **cell,
                    )  # fmt: skip
                if draw.random() < 0.5:
                    PriorAffinity.objects.create(
                        log_mean=draw.uniform(3, 8), log_sd=draw.uniform(0.02, 0.8),
                        source=draw.choice(GUESSED), n=draw.randrange(90),
                        made_at=NOW + timedelta(hours=draw.random()), **cell,
                    )  # fmt: skip


def one_by_one():
    """The rule of a cell, written for one cell at a time and for nothing else."""
    found = {}
    said = {(x.pool_id, x.job_class_id, x.gpus): x for x in OfferAffinity.objects.all()}
    shown = {(x.pool_id, x.job_class_id, x.gpus): x for x in MeasuredAffinity.objects.all()}
    waiting = {
        (a.pool_id, a.job_class_id, a.figures["gpus"]) for a in Alarm.objects.filter(kind="claim")
    }
    guessed = {(x.pool_id, x.job_class_id, x.gpus): x for x in PriorAffinity.objects.all()}
    spread = claims_spread(
        [
            math.log(shown[cell].samples_per_s / claim.samples_per_s)
            for cell, claim in said.items()
            if cell in shown and shown[cell].leases
        ]
    )
    for cell in said.keys() | shown.keys() | guessed.keys():
        own = cell if cell in said else (*cell[:2], 1)
        claim, lease, guess = said.get(own), shown.get(cell), guessed.get(cell)
        if lease is not None and not lease.leases:
            lease = None
        speed = None if claim is None else claim.samples_per_s * (cell[2] if own != cell else 1)
        record = SiteRecord.objects.get(site__pools=cell[0])
        at = guess.made_at if guess else None
        at = record.site.offers.get().created_at if claim else at
        believed = planned(
            declared=speed,
            belief=None if lease is None else observed(
                measured=lease.samples_per_s, log_sd=lease.log_sd, leases=lease.leases
            ),
            contracts=record.contracts,
            source="declared" if claim is None else claim.source,
            unconfirmed=own in waiting,
            known_at=at if lease is None else lease.updated_at,
            prior=guess and Prior(guess.log_mean, guess.log_sd, guess.source, guess.n),
            unseen=spread,
        )  # fmt: skip
        if believed is not None:
            found[cell] = believed
    ones = {cell[:2] for cell, one in found.items() if cell[2] == 1 and one.priced}
    rows = said.keys() | shown.keys()
    return {  # a size that only a prior speaks of is so many times one GPU, where that is known
        cell: one
        for cell, one in found.items()
        if (one.priced and cell in rows) or cell[:2] not in ones
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_cell_is_what_one_after_another_gives(seed):
    a_mixed_matrix(seed)
    cells, oracle = matrix(), one_by_one()
    assert len(oracle) > 30
    assert set(cells) == set(oracle)
    assert len(cells) == len(oracle)
    for cell, one in oracle.items():
        found = cells[cell]
        assert found.low < found.high
        assert replace(found, known_at=None) == replace(one, known_at=None)
        assert abs(found.known_at - one.known_at) < timedelta(microseconds=2)
        if one.priced:
            assert cells.speed(*cell) == pytest.approx(one.samples_per_s, rel=1e-12)
        else:
            assert cells.speed(*cell) is speed_at(cells, *cell) is None
    sources = {one.source for one in oracle.values()}
    assert sources >= {"declared", "probed", "measured", "blended", "claim_unconfirmed"}
    assert sources & set(GUESSED)
    assert any(not one.priced for one in oracle.values())


def test_leases_that_nobody_claimed_are_planned_on_alone_in_both_forms():
    pool = a_site("north").pools.get()
    cell = {"pool": pool, "job_class": a_class("new"), "gpus": 2}
    shown = MeasuredAffinity.objects.create(
        samples_per_s=1000.0, log_sd=0.0, leases=1, updated_at=NOW, **cell
    )
    said = Prior(math.log(600.0), 0.05, "neighbours", 9)
    PriorAffinity.objects.create(
        log_mean=said.log_mean, log_sd=said.log_sd, source=said.source, n=9, made_at=NOW, **cell
    )
    key = (pool.pk, cell["job_class"].pk, 2)
    found = matrix()[key]
    belief = observed(measured=shown.samples_per_s, log_sd=0.0, leases=1)
    assert found.samples_per_s == pytest.approx(1000.0)
    assert found.with_prior == pytest.approx(blend([said, measured(belief)]).rate)
    assert 600 < found.with_prior < 700
    assert (found.source, found.leases, found.priced) == ("neighbours", 1, True)
    assert matrix().speed(*key) == pytest.approx(found.samples_per_s, rel=1e-12)


def test_a_gang_without_a_row_is_so_many_times_one_gpu():
    site = a_site("north")
    pool, cnn = site.pools.get().pk, JobClass.objects.get(name="cnn").pk
    cells = matrix()
    assert cells.speed(pool, cnn, 3) == speed_at(cells, pool, cnn, 3).samples_per_s == 3000.0
    assert cells.speed(pool, uuid4(), 1) is cells.get((pool, uuid4(), 1)) is None
    assert cells.speed(uuid4(), cnn, 1) is None


def test_a_venue_without_offers_has_an_empty_matrix():
    assert dict(believed_cells([])) == {}
    assert believed_cells([]).speed(uuid4(), uuid4(), 1) is None


@pytest.fixture
def modelled():
    """`cnn` was measured on 1, 2 and 4 GPUs of north; only its speed on one is declared."""
    scene = Scene()
    for lease in [scene.lease(gpus) for gpus in (1, 2, 4)]:
        scene.measure(lease, batches=(16, 32, 32, 64))
    [fit] = models_refit(now=later(200))
    assert not fit.why
    return scene


def place(scene):
    return scene.site.pools.get().pk, JobClass.objects.get(name="cnn").pk


def test_a_size_that_was_not_leased_is_forecast_inside_what_was_measured(modelled):
    pool, cnn = place(modelled)
    cells = matrix()
    two = cells[pool, cnn, 2]
    assert (two.source, two.leases, two.known_at) == ("forecast", 36, later(200))
    assert two.declared == 2000.0
    assert two.samples_per_s == pytest.approx(2 * 32 / step_s(2, 32), rel=0.05)
    assert two.low < two.samples_per_s < two.high
    assert cells.speed(pool, cnn, 2) == speed_at(cells, pool, cnn, 2).samples_per_s
    assert cells[pool, cnn, 1].source == "declared"  # its own row stands


def test_a_size_beyond_is_shown_and_not_priced_on(modelled):
    pool, cnn = place(modelled)
    cells = matrix()
    for gpus in (8, 12, 64, 1000):  # with a row of its own, between two, beyond all
        told = cells[pool, cnn, gpus]
        assert told.source == "extrapolated"
        assert told.samples_per_s > 0
        assert cells.speed(pool, cnn, gpus) is speed_at(cells, pool, cnn, gpus) is None
    assert (pool, cnn, 12) not in set(cells)


def test_between_two_forecast_sizes_the_logarithm_is_straight(modelled):
    pool, cnn = place(modelled)
    ForecastAffinity.objects.filter(gpus=3).delete()
    cells = matrix()
    three, ends = cells[pool, cnn, 3], [cells[pool, cnn, gpus].samples_per_s for gpus in (2, 4)]
    share = math.log(3 / 2) / math.log(2)
    assert three.source == "forecast"
    assert three.samples_per_s == pytest.approx(ends[0] ** (1 - share) * ends[1] ** share)
    assert cells.speed(pool, cnn, 3) == three.samples_per_s


def test_a_lease_at_the_size_stands_before_any_forecast(modelled):
    pool, cnn = place(modelled)
    MeasuredAffinity.objects.create(
        pool_id=pool, job_class_id=cnn, gpus=8, samples_per_s=1700.0, leases=1, updated_at=NOW
    )
    told = matrix()[pool, cnn, 8]
    assert (told.source, told.measured) == ("blended", pytest.approx(1700.0))
    assert matrix().speed(pool, cnn, 8) == pytest.approx(told.samples_per_s)


def book():
    found = book_build(venue=a_venue(), now=later(300))
    return json.loads(found.text), {left.job_id: left for left in found.left_out}


def test_the_book_holds_a_forecast_and_leaves_out_what_lies_beyond(modelled):
    inside = a_job(modelled.tenant, gpus=[2], now=later(250))
    both = a_job(modelled.tenant, gpus=[2, 12], now=later(250))
    beyond = a_job(modelled.tenant, gpus=[16], now=later(250))
    document, left_out = book()
    rows = {row["gpus"]: row["samples_per_s"] for row in document["affinity"]}
    assert rows[2] == pytest.approx(2 * 32 / step_s(2, 32), rel=0.05)
    assert (rows[12], rows[8]) == (0.0, 0.0)
    assert {row["id"] for row in document["jobs"]} == {str(inside.pk), str(both.pk)}
    assert left_out[str(beyond.pk)].code == "no_affinity"
    assert "probe at that size" in left_out[str(beyond.pk)].why


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_no_policy_sells_a_size_that_is_not_priced_on(modelled, policy):
    jobs = [
        a_job(modelled.tenant, gpus=[2, 12], value="90000", now=later(250)),
        a_job(modelled.tenant, gpus=[1, 4], value="80000", now=later(250)),
    ]
    document, left_out = book()
    assert not left_out
    document["rules"]["policy"] = policy
    if policy == "gittins":
        document["rules"]["parameters"] = {"samples": [1.0, 2.0, 3.0]}
    clearing = decide(document).clearing
    assert clearing is not None
    sold = {
        line["job"]: line["gpu_hours"] / document["round_hours"] for line in clearing["allocation"]
    }
    assert sold.get(str(jobs[0].pk), 2) == pytest.approx(2)
    assert sold


def test_a_job_at_a_size_beyond_is_probed_first_and_then_priced(modelled):
    job = a_job(modelled.tenant, gpus=[8], now=later(250))
    rounds.round_ensure_open(venue=a_venue(), now=later(260))
    rounds.rounds_close(now=later(280))
    [probe] = Job.objects.filter(kind="probe", parent=job)
    assert probe.gpus == [8]
    job.refresh_from_db()
    assert job.outcome_code == "probing"


def test_a_class_without_samples_is_priced_as_before(modelled):
    site = a_site("south", gpus=16, speeds={"cnn": 500.0})
    job = a_job(modelled.tenant, gpus=[16], sites_allow=["south"], now=later(250))
    document, left_out = book()
    assert not left_out
    assert [row["id"] for row in document["jobs"]] == [str(job.pk)]
    assert matrix().speed(site.pools.get().pk, place(modelled)[1], 16) == 8000.0


def test_the_offers_show_where_every_number_comes_from(modelled):
    [north] = offers_open(a_venue(), now=later(300))
    told = {row["gpus"]: row for row in north["affinities"]}
    assert {row["source"] for row in told.values()} == {"declared", "forecast", "extrapolated"}
    assert (told[1]["reports"], told[1]["known_at"], told[1]["priced"]) == (0, NOW, True)
    assert math.log(told[1]["high"] / told[1]["low"]) == pytest.approx(2 * 1.6449 * UNSEEN, 1e-4)
    assert not told[8]["priced"]
    assert told[2]["low"] < told[2]["believed"] < told[2]["high"]
    assert (told[2]["reports"], told[2]["known_at"]) == (36, later(200))


def test_columns_are_what_the_rows_hold():
    a_mixed_matrix(5)
    rows = OfferAffinity.objects.order_by("pk")
    probed = ExpressionWrapper(Q(source="probed"), BooleanField())
    pools, gpus, speed, flag = columns_read(
        rows.annotate(flag=probed).values_list("pool_id", "gpus", "samples_per_s", "flag"),
        ("id", "int", "float", "bool"),
    )
    found = [
        (UUID(int=(int(high) << 64) | int(low)), int(size), float(value), bool(is_probed))
        for (high, low), size, value, is_probed in zip(pools, gpus, speed, flag, strict=True)
    ]
    assert found == [(x.pool_id, x.gpus, x.samples_per_s, x.source == "probed") for x in rows]
    [at] = columns_read(
        MeasuredAffinity.objects.order_by("pk").values_list("updated_at"), ("time",)
    )
    times = [x.timestamp() for x in MeasuredAffinity.objects.order_by("pk").values_list(
        "updated_at", flat=True
    )]  # fmt: skip
    assert at == pytest.approx(np.array(times), abs=2e-6)


def test_ids_that_agree_in_one_half_keep_apart():
    ids = tuple(sorted(UUID(int=(high << 64) | low) for high in (1, 2) for low in (1, 2, 3)))
    index = CodeIndex(Axes(ids, ids))
    halves = np.array([(one.int >> 64, one.int & (2**64 - 1)) for one in ids], dtype=np.uint64)
    codes = index.codes(halves, halves[::-1], np.arange(1, 7, dtype=np.int32))
    cells = [Axes(ids, ids).cell(code) for code in codes.tolist()]
    assert cells == [(ids[at], ids[5 - at], at + 1) for at in range(6)]


def test_a_gate_reads_the_matrix_once(modelled, monkeypatch):
    a_job(modelled.tenant, gpus=[2], now=later(250))
    read = []

    def counted(rows, kinds):
        read.append(rows.model)
        return columns_read(rows, kinds)

    monkeypatch.setattr(affinity, "columns_read", counted)
    rounds.round_ensure_open(venue=a_venue(), now=later(260))
    assert len(rounds.rounds_close(now=later(280))) == 1
    assert sorted(model.__name__ for model in read) == [
        *("ForecastAffinity", "MeasuredAffinity", "OfferAffinity"),
    ]
