"""What strange or false profiles and rows can do: stop nobody, move no price, take no time."""

from __future__ import annotations

import json
import math

import pytest

from broker.api.parsers import DEFAULT_LIMIT
from federation.affinity.coldstart import profile as bounds
from federation.affinity.coldstart.blend import Prior, blend, blend_known, prior_or_none
from federation.affinity.coldstart.catalogue import Query, roof
from federation.affinity.coldstart.operators import Operator, Timing, fit_operators
from federation.affinity.coldstart.profile import Profile, read_profile
from federation.affinity.coldstart.voices import Asked, Measured, Voices, listen
from federation.errors import BadInput, Refused
from federation.machines.job import JobState
from federation.models import ForecastAffinity, JobClass, MeasuredAffinity, PriorAffinity
from federation.selectors import prior_inputs as inputs_module
from federation.selectors.affinity import believed_cells, current_offers
from federation.selectors.offers import offers_open
from federation.selectors.prior_inputs import prior_inputs
from federation.services import priors
from federation.services.members import class_create
from federation.services.priors import priors_refit, profile_set
from federation.snapshot import book_build
from tests.support.world import (
    NOW,
    a_class,
    a_job,
    a_member,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
)

pytestmark = pytest.mark.django_db


def a_profile(name, by=None, **said):
    return profile_set(job_class=a_class(name), profile=said, by=by, actor="test", now=NOW)


def owned(name, member):
    a_class(name)
    JobClass.objects.filter(name=name).update(owner=member)


def stored(name, **said):
    """A profile as an earlier version let it through."""
    a_class(name)
    JobClass.objects.filter(name=name).update(profile=said)


def measured(site, name, speed, *, leases=3, gpus=1):
    MeasuredAffinity.objects.update_or_create(
        pool=site.pools.get(), job_class=a_class(name), gpus=gpus,
        defaults={"samples_per_s": speed, "log_sd": 0.02, "leases": leases, "updated_at": NOW},
    )  # fmt: skip


def a_prior(site, name, log_mean, log_sd=0.7, gpus=1):
    PriorAffinity.objects.create(
        pool=site.pools.get(), job_class=a_class(name), gpus=gpus,
        log_mean=log_mean, log_sd=log_sd, source="roofline", n=0, made_at=NOW,
    )  # fmt: skip


def cells_now(now=100):
    return believed_cells(current_offers(a_venue(), later(now)))


def priced(now):
    """(pool, class, GPUs) -> samples/s that a round plans on."""
    book = json.loads(book_build(venue=a_venue(), now=later(now)).text)
    return {(x["pool"], x["class"], x["gpus"]): x["samples_per_s"] for x in book["affinity"]}


# no number stops a gate


@pytest.mark.parametrize(
    ("log_mean", "log_sd"),
    [(708.0, 0.7), (-745.0, 0.7), (5.0, 400.0), (1e300, 0.7), (math.inf, 0.7), (0.0, math.inf)],
)
def test_a_stored_prior_that_nobody_can_reckon_with_is_left_out(log_mean, log_sd):
    north = a_site("north", gpu="A100", gpus=64, speeds={})
    south = a_site("south", gpus=4, speeds={"cnn": 1000.0})
    a_prior(north, "evil", log_mean, log_sd)
    a_prior(south, "cnn", log_mean, log_sd, gpus=2)
    measured(south, "lm", 70.0, leases=1)
    a_prior(south, "lm", log_mean, log_sd)
    a_job(a_tenant("mallory"), job_class="evil", gpus=[64], now=later(1))
    good = a_job(a_tenant("ann"), job_class="cnn", now=later(1))
    a_round(later(20))
    good.refresh_from_db()
    assert good.state != JobState.PENDING
    assert len(offers_open(a_venue(), now=later(21))) == 2
    cells = cells_now()
    assert (north.pools.get().pk, a_class("evil").pk, 1) not in cells
    assert cells[south.pools.get().pk, a_class("lm").pk, 1].with_prior is None
    assert len(list(cells)) == len(cells)


@pytest.mark.parametrize("speed", [0.0, -1.0, 5e-324, 1e308, math.inf])
def test_a_stored_speed_that_nobody_can_reckon_with_is_left_out(speed):
    south = a_site("south", gpu="A100", gpus=4, speeds={"cnn": 1000.0})
    key = {"pool": south.pools.get(), "job_class": a_class("odd")}
    measured(south, "cnn", speed, leases=2)
    measured(south, "odd", speed, leases=2)
    ForecastAffinity.objects.create(
        **key, gpus=2, samples_per_s=speed, low=speed, high=speed,
        extrapolated=False, samples=9, fitted_at=NOW,
    )  # fmt: skip
    a_prior(south, "odd", 3.0)
    ann = a_tenant("ann")
    a_job(ann, job_class="odd", now=later(1))
    good = a_job(ann, job_class="cnn", now=later(1))
    assert priors_refit(now=later(8)) is not None
    a_round(later(20))
    good.refresh_from_db()
    assert good.state != JobState.PENDING
    assert offers_open(a_venue(), now=later(21))


def test_a_spread_that_nobody_can_reckon_with_is_left_out():
    south = a_site("south", gpus=4, speeds={"cnn": 1000.0})
    measured(south, "cnn", 1000.0)
    MeasuredAffinity.objects.update(log_sd=1e200)
    assert cells_now()[south.pools.get().pk, a_class("cnn").pk, 1].measured is None


def test_a_prior_out_of_reach_is_refused_and_no_voice_raises():
    with pytest.raises(ValueError, match="within 60 of 0"):
        Prior(59.0, 0.3, "roofline", 0)
    assert prior_or_none(math.nan, 0.3, "roofline", 0) is None
    apart = [Prior(side * 50.0, 0.001, "roofline", 0) for side in (-1, 1)]
    assert blend_known(*apart) is None
    with pytest.raises(ValueError, match="within 60 of 0"):
        blend(apart)


# one class stops no other


STRANGE = (
    {"operations": 5e-324, "batch": 5e-324, "parameters": 5e-324},
    {"operations": 1e24, "parameters": 5e-324, "batch": 5e-324},
    {"operations": 1.2e-292},
)


@pytest.mark.parametrize("said", STRANGE)
def test_a_strange_profile_is_refused_and_one_stored_before_is_told_and_stops_nobody(said):
    site = a_site("north", gpu="A100", gpus=8, speeds={})
    with pytest.raises(BadInput):
        a_profile("bad", **said)
    stored("bad", **said)
    measured(site, "bad", 100.0)
    a_job(a_tenant("ann"), job_class="bad", gpus=[4], now=later(1))
    for at in range(5):
        a_profile(f"good-{at}", operations=1e10, batch=8)
    made = priors_refit(now=later(10))
    assert made.left == 0
    [(left_out, why)] = made.left_out
    assert left_out == str(a_class("bad").pk)
    assert "at least" in why
    assert priors_refit(now=later(20)) is None
    assert PriorAffinity.objects.filter(job_class__name__startswith="good").count() == 5
    a_round(later(30))


def test_a_class_that_priors_fail_for_is_left_out_and_the_others_have_theirs(monkeypatch):
    a_site("north", gpu="A100", gpus=8, speeds={})
    for name in ("a", "b", "c"):
        a_profile(name, operations=1e10)
    bad, told = str(a_class("b").pk), Voices._prior

    def failing(self, asked, kin, said):
        if asked.job_class == bad:
            raise KeyError("odd")
        return told(self, asked, kin, said)

    monkeypatch.setattr(Voices, "_prior", failing)
    made = priors_refit(now=later(10))
    assert (made.cells, made.left, made.left_out) == (2, 0, ((bad, "KeyError('odd')"),))
    assert priors_refit(now=later(20)) is None


def test_what_cannot_be_listened_to_at_all_is_told_and_the_work_goes_on(monkeypatch):
    a_site("north", gpu="A100", gpus=8, speeds={})
    a_profile("a", operations=1e10)

    def deaf(*args, **more):
        raise RuntimeError("deaf")

    monkeypatch.setattr(priors, "listen", deaf)
    made = priors_refit(now=later(10))
    assert (made.cells, made.left_out) == (0, ((str(a_class("a").pk), "RuntimeError('deaf')"),))
    assert priors_refit(now=later(20)) is None


def test_a_voice_that_cannot_be_learnt_is_silent_and_the_others_speak(monkeypatch):
    def broken(*args, **more):
        raise ValueError("no likelihood")

    monkeypatch.setattr("federation.affinity.coldstart.voices.complete", broken)
    profiles = {name: Profile(operations=1e10, batch=32.0) for name in ("a", "b")}
    voices = listen(profiles, [Measured("a", "V100", 1, 900.0, 3)], asked=[("b", 1)])
    assert voices.silent == ("neighbours: no likelihood",)
    [said] = voices.priors([Asked("b", "V100", 1)])
    assert said.source == "catalogue"


# no price moves


def liars(many, member=None):
    """Networks whose operators take no time, so they say."""
    for at in range(many):
        if member is not None:
            owned(f"liar-{at}", member)
        a_profile(
            f"liar-{at}",
            by=member,
            batch=32,
            parameters=1e6,
            operators=operators(at + 1),
            timings=[{"device": "A100", "seconds": [1e-9 * (k + at + 1) for k in range(6)]}],
        )


def operators(first):
    return [{"kind": "Conv", "size": 1e6 * (k + first)} for k in range(6)]


def test_four_classes_of_liars_move_no_price():
    north = a_site("north", gpu="A100", gpus=4, speeds={})
    a_profile("victim", batch=32, parameters=1e6, operators=operators(1))
    measured(north, "victim", 1000.0, leases=1)
    a_job(a_tenant("ann"), job_class="victim", now=later(1))
    before = priced(5)
    liars(4)
    priors_refit(now=later(8))
    key = (north.pools.get().pk, a_class("victim").pk, 1)
    shown = cells_now(9)[key]
    assert PriorAffinity.objects.get(job_class__name="victim").source == "operators"
    assert shown.with_prior > 5_000  # classes of the federation are heard, and shown
    assert shown.samples_per_s == pytest.approx(1000.0)
    [row] = [
        row
        for line in offers_open(a_venue(), now=later(9))
        for row in line["affinities"]
        if row["job_class"] == "victim"
    ]
    assert (row["believed"], row["with_prior"]) == (shown.samples_per_s, shown.with_prior)
    assert before == priced(9)
    assert next(iter(before.values())) == pytest.approx(1000.0)


@pytest.mark.parametrize("speed", [50.0, 100_000.0])
@pytest.mark.parametrize("leases", [1, 4])
def test_kin_and_operations_move_no_price(speed, leases):
    north = a_site("north", gpu="A100", gpus=4, speeds={})
    mallory = a_member("mallory")
    theirs = a_site("mallory", member=mallory, gpu="A100", gpus=4, speeds={})
    a_profile("bert", work="bert", batch=32)
    measured(north, "bert", 1000.0, leases=leases)
    a_job(a_tenant("ann"), job_class="bert", now=later(1))
    mine = str(north.pools.get())
    before = {key: value for key, value in priced(5).items() if key[0] == mine}
    for at in range(6):
        owned(f"m{at}", mallory)
        a_profile(f"m{at}", by=mallory, work="bert", batch=32)
        measured(theirs, f"m{at}", speed, leases=20)
    priors_refit(now=later(8))
    after_kin = {key: value for key, value in priced(9).items() if key[0] == mine}
    a_profile("bert", work="bert", batch=32, operations=1e6)
    priors_refit(now=later(10))
    assert PriorAffinity.objects.filter(pool__site=north, job_class__name="bert").exists()
    assert len(before) == 1
    assert before == after_kin
    assert before == {key: value for key, value in priced(11).items() if key[0] == mine}


def test_operators_are_told_by_the_federation_and_by_the_classes_own_member_alone():
    north = a_site("north", gpu="A100", gpus=4, speeds={})
    mallory, ann = a_member("mallory"), a_member("ann")
    liars(4, mallory)
    said = {"batch": 32, "parameters": 1e6, "operators": operators(1)}
    for name, member in (("hers", ann), ("theirs", mallory), ("ours", None)):
        if member is not None:
            owned(name, member)
        a_profile(name, by=member, **said)
    priors_refit(now=later(8))
    told = PriorAffinity.objects.filter(pool__site=north, source="operators")
    names = set(told.values_list("job_class__name", flat=True))
    assert names == {"theirs", *(f"liar-{at}" for at in range(4))}
    JobClass.objects.filter(name__startswith="liar").update(owner=None)
    priors_refit(now=later(9))
    assert told.filter(job_class__name__in=["hers", "theirs", "ours"]).count() == 3


# no device passes its roof


def test_no_prior_passes_the_roof_of_the_device():
    """Kin that are a million times as fast say so of a class whose operations forbid it."""
    profiles = {
        "kin": Profile(work="bert", batch=32.0),
        "other": Profile(work="bert", batch=32.0),
        "mine": Profile(work="bert", batch=32.0, operations=1e12),
    }
    rows = [
        Measured(name, kind, 1, 1e7, 9) for name in ("kin", "other") for kind in ("A30", "V100")
    ]
    voices = listen(profiles, rows, asked=[("mine", 1), ("mine", 4)])
    for gpus in (1, 4):
        [said] = voices.priors([Asked("mine", "A30", gpus)])
        assert said.rate == pytest.approx(roof(Query("mine", "A30", gpus, operations=1e12)))
    assert roof(Query("mine", "A30", operations=1e12)) == 165.0
    assert roof(Query("mine", "A30", operations=1e12, precision="single")) == 82.0
    assert roof(Query("mine", "A30")) is roof(Query("mine", "abacus", operations=1.0)) is None


def test_nothing_is_learnt_from_a_cell_above_the_roof():
    profiles = {
        f"c{at}": Profile(work=f"w{at % 2}", operations=1e12, batch=32.0) for at in range(4)
    }
    true = [Measured(f"c{at}", kind, 1, 40.0, 3) for at in range(3) for kind in ("A30", "V100")]
    false = [Measured(f"c{at}", "A30", 1, 1e6, 30) for at in range(3)]
    for rows in (true, [*true, *false]):
        [said] = listen(profiles, rows, asked=[("c3", 1)]).priors([Asked("c3", "A30", 1)])
        assert said.rate == pytest.approx(40.0, rel=0.3)


# nobody takes all the time


def test_the_timings_that_are_learnt_from_are_bounded_for_each_member(monkeypatch):
    monkeypatch.setattr(inputs_module, "NETWORKS", 3)
    monkeypatch.setattr(inputs_module, "TIMES", 30)
    mallory = a_member("mallory")
    liars(5)
    a_class("plain")
    for at in range(4):
        owned(f"large-{at}", mallory)
        row = {"device": "A100", "seconds": [1.0] * 12}
        large = {"batch": 1, "parameters": 1, "operators": operators(1) * 2}
        a_profile(f"large-{at}", by=mallory, **large, timings=[row])
    inputs = prior_inputs()
    assert {len(names) for names in inputs.timed.values()} == {3, 2}
    theirs = str(a_class("large-3").pk)
    assert len(inputs.teachers(theirs)) == 5
    assert len(inputs.teachers(str(a_class("liar-0").pk))) == 3
    assert inputs.teachers(str(a_class("plain").pk)) == ()


def test_a_run_learns_from_so_many_timings_and_the_next_goes_on(monkeypatch):
    a_site("north", gpu="A100", gpus=4, speeds={})
    for member in ("ann", "bob", "cem"):
        owned(f"of-{member}", a_member(member))
        row = {"device": "A100", "seconds": [1.0] * 6}
        said = {"batch": 1, "parameters": 1, "operators": operators(1), "timings": [row]}
        a_profile(f"of-{member}", by=a_member(member), **said)
    monkeypatch.setattr(priors, "TIMES_AT_ONCE", 7)
    left = [priors_refit(now=later(10 + at)).left for at in range(3)]
    assert left == [2, 1, 0]
    assert priors_refit(now=later(20)) is None


def test_networks_beyond_eight_are_left_out_in_groups():
    """Each in turn up to eight; so many groups beyond, which still see what was not fitted on."""
    spreads = []
    for many in (8, 23):
        timings = [
            Timing(f"n{at:02}", "V100", Operator("Conv", 1e6 * (1 + at + k)), 1e-3 * (1 + at + k))
            for at in range(many)
            for k in range(3)
        ]
        model = fit_operators(timings, [])
        assert model.networks == many
        spreads.append(model.spread)
    assert spreads == pytest.approx([0.01, 0.01])


def test_a_member_lists_operators_of_so_many_classes(monkeypatch):
    monkeypatch.setattr(priors, "NETWORKS", 2)
    ann = a_member("ann")
    said = {"batch": 1, "parameters": 1, "operators": operators(1)}
    for name in ("a", "b", "c"):
        owned(name, ann)
    a_profile("a", by=ann, **said)
    a_profile("b", by=ann, **said)
    with pytest.raises(BadInput, match="clear one first"):
        a_profile("c", by=ann, **said)
    a_profile("a", by=ann, **{**said, "batch": 2})
    a_profile("c", by=ann, batch=4)
    a_profile("a", by=ann)
    a_profile("c", by=ann, **said)
    a_profile("of-the-federation", **said)


def test_a_member_has_so_many_classes(monkeypatch):
    monkeypatch.setattr("federation.services.members.MOST_CLASSES", 2)
    ann, bob = a_member("ann"), a_member("bob")
    for owner, name in ((ann, "a"), (ann, "b"), (bob, "c"), (None, "d")):
        class_create(name=name, owner=owner, actor="test", now=NOW)
    with pytest.raises(Refused, match="the most a member may have") as refused:
        class_create(name="e", owner=ann, actor="test", now=NOW)
    assert refused.value.code == "too_many_classes"


def test_the_largest_profile_fits_into_one_request():
    kind, number = "k" * 63, 1.2345678901234567e-05
    many = bounds.MOST_OPERATORS
    devices = ["NVIDIA A100-SXM4-80GB", "V100", "T4"][: bounds.MOST_TIMES // many]
    document = {
        "work": "w" * 63, "operations": 1.2345678901234567e23, "parameters": 1.2345678901234e14,
        "batch": 1234567.8901234567, "precision": "single",
        "operators": [{"kind": kind, "size": 1.2345678901234567e17, "on_cpu": False}] * many,
        "timings": [{"device": name, "seconds": [number] * many} for name in devices],
        "exchanges": [
            {"device": "V100", "gpus": 100_000 + at, "seconds": number}
            for at in range(bounds.MOST_EXCHANGES)
        ],
    }  # fmt: skip
    assert read_profile(document).times == bounds.MOST_TIMES
    assert len(json.dumps(document)) < DEFAULT_LIMIT
