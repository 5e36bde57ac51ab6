"""Speeds of pairs that nobody measured: made offline, shown with their source, never priced on."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from bench.synthetic_nets import DEVICES as NET_DEVICES
from bench.synthetic_nets import networks, profile, truth
from broker.tasks import tick_priors
from federation.affinity.coldstart.blend import Prior
from federation.affinity.coldstart.catalogue import Query, roofline
from federation.affinity.coldstart.profile import Profile
from federation.affinity.coldstart.tables import read_table
from federation.affinity.coldstart.voices import Asked, Measured, listen
from federation.errors import BadInput, NotAllowed
from federation.models import Event, Job, JobClass, MeasuredAffinity, PriorAffinity, PriorStudy
from federation.selectors.affinity import believed_cells, current_offers
from federation.selectors.offers import offers_open
from federation.services import priors
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
    an_offer,
    later,
)

pytestmark = pytest.mark.django_db
OWN = Path(__file__).parents[2] / "docs" / "reference" / "catalogue-cpu.csv"
SPEEDS = {"T4": 1.0, "V100": 3.0, "A100": 6.0}  #: of the kinds of GPU, over each other


def a_profile(name, **said):
    return profile_set(job_class=a_class(name), profile=said, by=None, actor="test", now=NOW)


def measured(site, name, speed, *, leases=3, gpus=1, now=NOW):
    MeasuredAffinity.objects.update_or_create(
        pool=site.pools.get(), job_class=a_class(name), gpus=gpus,
        defaults={"samples_per_s": speed, "log_sd": 0.02, "leases": leases, "updated_at": now},
    )  # fmt: skip


@pytest.fixture
def sites():
    """One site of each kind of GPU, on each of which four classes of two works were measured."""
    found = {kind: a_site(kind.lower(), gpu=kind, gpus=4, speeds={}) for kind in SPEEDS}
    for at in range(4):
        a_profile(f"class-{at}", work="resnet50" if at % 2 else "bert", batch=2.0 ** (5 + at))
        for kind, speed in SPEEDS.items():
            measured(
                found[kind], f"class-{at}", 100 * (1 + at) * speed * (1.02 if at % 2 else 0.98)
            )
    return found


def cell(site, name, gpus=1, now=100):
    matrix = believed_cells(current_offers(a_venue(), later(now)))
    return matrix.get((site.pools.get().pk, a_class(name).pk, gpus))


def test_kin_say_what_a_class_does_where_it_never_ran(sites):
    a_profile("new", work="bert", batch=64)
    measured(sites["T4"], "new", 250.0, leases=20)
    made = priors_refit(now=later(60))
    assert (made.left, made.cells) == (0, PriorAffinity.objects.count())
    said = cell(sites["A100"], "new")
    assert said.source == "neighbours"
    assert said.samples_per_s == pytest.approx(6 * 250, rel=0.15)
    assert said.low < 1500 < said.high
    assert (said.leases > 0, said.known_at, said.priced) == (True, later(60), False)
    assert (said.declared, said.measured) == (None, None)


def test_what_only_a_prior_knows_is_not_priced_on(sites):
    a_profile("new", work="bert", batch=64)
    measured(sites["T4"], "new", 250.0, leases=20)
    priors_refit(now=later(60))
    job = a_job(a_tenant("ann"), job_class="new", now=later(61))
    matrix = believed_cells(current_offers(a_venue(), later(70)))
    pool = sites["A100"].pools.get()
    assert matrix.speed(pool.pk, a_class("new").pk, 1) is None
    book = json.loads(book_build(venue=a_venue(), now=later(70)).text)
    assert [row["id"] for row in book["jobs"]] == [str(job.pk)]
    assert {row["pool"] for row in book["affinity"] if row["class"] == "new"} == {"t4.gpu"}


def test_a_data_sheet_speaks_of_a_class_whose_operations_are_known():
    site = a_site("north", gpu="A100", gpus=8, speeds={})
    a_profile("new", operations=1e12, batch=8)
    a_job(a_tenant("ann"), job_class="new", gpus=[4], now=later(1))
    assert priors_refit(now=later(60)).cells == 2
    one, four = cell(site, "new"), cell(site, "new", 4)
    sheet = roofline(Query("new", "A100 80GB", operations=1e12))
    assert (one.source, one.leases) == ("roofline", 0)
    assert one.samples_per_s == pytest.approx(sheet.rate)
    assert four.samples_per_s == pytest.approx(4 * one.samples_per_s)
    assert four.high / four.low > one.high / one.low  # a gang is less sure


def test_measured_classes_are_the_catalogue_for_a_kind_of_gpu_that_nobody_ran_on(sites):
    for at in range(4):
        a_profile(f"class-{at}", operations=1e10 / (1 + at), batch=32)
    new = a_site("h100", gpu="H100", gpus=4, speeds={})
    a_profile("new", operations=5e9, batch=32)
    priors_refit(now=later(60))
    said = cell(new, "new")
    assert said.source == "catalogue"
    assert said.samples_per_s > cell(sites["V100"], "new").samples_per_s


def test_operators_speak_where_networks_like_it_were_timed():
    true, nets = truth(3), networks(3, 6)
    timings, exchanges = profile(true, nets[:5], 3)
    site = a_site("north", gpu="V100", gpus=4, speeds={})
    for net in nets:
        own = [one for one in timings if one.network == net.name]
        seconds = {
            device: [one.seconds for one in own if one.device == device]
            for device in ("V100", "T4")
        }
        a_profile(
            net.name.replace(" ", "-"),
            batch=32,
            parameters=net.parameters,
            operators=[{"kind": o.kind, "size": o.size, "on_cpu": o.on_cpu} for o in net.operators],
            **(
                {
                    "timings": [{"device": d, "seconds": s} for d, s in seconds.items()],
                    "exchanges": [
                        {"device": one.device, "gpus": one.gpus, "seconds": one.seconds}
                        for one in exchanges
                        if one.network == net.name and one.device in seconds
                    ],
                }
                if own
                else {}
            ),
        )
    assert set(NET_DEVICES) > {"V100", "T4"}
    priors_refit(now=later(60))
    said = cell(site, nets[5].name.replace(" ", "-"))
    assert said.source == "operators"
    assert said.samples_per_s == pytest.approx(32 / true.step(nets[5], "V100", 1), rel=0.15)


def test_nothing_is_made_up_of_what_nothing_is_known_of(sites):
    a_class("unknown")
    priors_refit(now=later(60))
    assert cell(sites["A100"], "unknown") is None
    assert not PriorAffinity.objects.filter(job_class__name="unknown").exists()


def test_claimed_and_well_measured_cells_get_none(sites):
    a_profile("new", operations=1e12, batch=8)
    an_offer(sites["A100"], gpu="A100", speeds={"new": 900.0}, now=later(1))
    measured(sites["V100"], "new", 300.0, leases=5)
    measured(sites["T4"], "new", 100.0, leases=2)
    priors_refit(now=later(60))
    kinds = PriorAffinity.objects.filter(job_class__name="new").values_list("pool__gpu", flat=True)
    assert list(kinds) == ["T4"]
    told = cell(sites["T4"], "new")
    assert (told.source, told.leases, told.priced) == ("measured", 2, True)
    assert told.measured == pytest.approx(100.0)


def test_a_cell_is_never_told_of_itself():
    """Its own leases are left out, so that they do not count twice."""
    kinds = ["T4", "V100 PCIe", "A30", "A40", "L4"]
    profiles = {f"c{at}": Profile(work="bert", batch=2.0 ** (3 + at)) for at in range(5)}
    rows = [
        Measured(f"c{at}", kind, 1, 100.0 * (1 + at) * (1 + place), 4)
        for at in range(5)
        for place, kind in enumerate(kinds)
    ]
    off = [one if one is not rows[7] else Measured("c1", "A30", 1, 60_000.0, 4) for one in rows]
    before, after = (
        listen(profiles, table).priors([Asked("c1", "A30", 1, table[7])])[0]
        for table in (rows, off)
    )
    assert before.source == after.source == "neighbours"
    assert before.rate == pytest.approx(600.0, rel=0.1)
    assert after.rate < 3000.0  # 100 times as fast by its own word, which is not heard


def test_another_pool_of_the_kind_speaks_for_a_cell(sites):
    twin = a_site("twin", gpu="A100", gpus=4, speeds={})
    measured(twin, "class-1", 9000.0, leases=1)
    priors_refit(now=later(60))
    kept = PriorAffinity.objects.get(pool__site=twin, job_class__name="class-1", gpus=1)
    assert math.exp(kept.log_mean) == pytest.approx(2 * 100 * 6 * 1.02, rel=0.15)
    assert kept.source == "neighbours"


def test_nothing_is_done_when_nothing_changed(sites, monkeypatch):
    assert priors_refit(now=later(60)) is not None
    before = list(PriorAffinity.objects.order_by("pk").values_list())
    monkeypatch.setattr(priors, "listen", None)
    assert priors_refit(now=later(70)) is None
    measured(sites["T4"], "class-0", 98.01, now=later(71))  # a step that is none
    assert priors_refit(now=later(80)) is None
    assert list(PriorAffinity.objects.order_by("pk").values_list()) == before
    monkeypatch.undo()
    measured(sites["T4"], "class-0", 50.0, now=later(81))
    assert priors_refit(now=later(90)) is not None
    assert PriorStudy.objects.get().made_at == later(90)


def test_the_work_is_done_in_turns_and_every_class_has_its_turn(sites, monkeypatch):
    for at in range(5):
        a_profile(f"new-{at}", work="bert", operations=1e12 + at, batch=8)
    priors_refit(now=later(60))
    whole = values()
    PriorAffinity.objects.all().delete()
    PriorStudy.objects.all().delete()
    monkeypatch.setattr(priors, "CELLS_AT_ONCE", 6)
    left, runs = None, 0
    while left != 0:
        made = priors_refit(now=later(70 + runs))
        assert made.classes == 2 if made.left else made.classes in (1, 2)
        left, runs = made.left, runs + 1
        assert runs < 20
    assert priors_refit(now=later(99)) is None
    assert values().keys() == whole.keys()
    a_profile("new-0", work="bert", operations=9e12, batch=8)  # from where it came to, all anew
    assert priors_refit(now=later(100)).left == JobClass.objects.count() - 2


def values():
    return {
        (row.pool_id, row.job_class_id, row.gpus): row.log_mean
        for row in PriorAffinity.objects.all()
    }


def test_a_run_that_was_overtaken_writes_nothing(sites, monkeypatch):
    listened = priors.listen

    def overtaken(*args, **more):
        PriorStudy.objects.update(version=9)
        return listened(*args, **more)

    monkeypatch.setattr(priors, "listen", overtaken)
    assert priors_refit(now=later(60)) is None
    assert not PriorAffinity.objects.exists()


def test_a_stored_profile_that_cannot_be_read_says_nothing(sites):
    JobClass.objects.filter(name="class-0").update(profile={"made": "by another version"})
    assert priors_refit(now=later(60)) is not None


# the profile of a class


def test_the_owner_and_operators_set_a_profile_and_nobody_else():
    owner, other = a_member("owner"), a_member("other")
    mine = a_class("mine")
    JobClass.objects.filter(pk=mine.pk).update(owner=owner)
    mine.refresh_from_db()
    said = {"profile": {"batch": 8}, "actor": "test", "now": NOW}
    assert profile_set(job_class=mine, by=owner, **said).profile == {"batch": 8}
    assert profile_set(job_class=mine, by=None, **said).profile == {"batch": 8}
    for who, what in ((other, mine), (owner, a_class("of-the-federation"))):
        with pytest.raises(NotAllowed, match="set by its owner"):
            profile_set(job_class=what, by=who, **said)
    told = Event.objects.filter(subject="class", subject_id=str(mine.pk), event="profile")
    assert told.count() == 1  # the second changed nothing


def test_a_profile_that_does_not_fit_is_not_stored():
    with pytest.raises(BadInput) as refused:
        a_profile("mine", batch=-1, work="")
    assert [problem.path for problem in refused.value.problems] == ["work", "batch"]
    assert a_class("mine").profile == {}


# where to measure first


def test_the_pool_where_work_is_likely_cheapest_is_probed_first():
    """Cheap by the hour, dear by the sample: T4 at 3 credits is slower by more than it saves."""
    a_site("cheap", gpu="T4", gpus=4, reserve="3", speeds={})
    a_site("fast", gpu="H100", gpus=4, reserve="9", speeds={})
    a_profile("new", operations=1e12, batch=8)
    a_venue().__class__.objects.update(probe_pools=1)
    priors_refit(now=later(1))
    a_job(a_tenant("ann"), job_class="new", now=later(2))
    a_round(later(20))
    [probe] = Job.objects.filter(kind="probe")
    assert probe.name.startswith("probe-fast-")


def test_without_any_prior_the_cheapest_by_the_hour_is_probed_first():
    a_site("cheap", gpu="T4", gpus=4, reserve="3", speeds={})
    a_site("fast", gpu="H100", gpus=4, reserve="9", speeds={})
    a_class("new")
    a_venue().__class__.objects.update(probe_pools=1)
    a_job(a_tenant("ann"), job_class="new", now=later(2))
    a_round(later(20))
    [probe] = Job.objects.filter(kind="probe")
    assert probe.name.startswith("probe-cheap-")


def test_a_pool_that_nothing_is_known_of_comes_after_those_with_a_prior():
    a_site("odd", gpu="abacus", gpus=4, reserve="0.001", speeds={})
    a_site("fast", gpu="H100", gpus=4, reserve="9", speeds={})
    a_profile("new", operations=1e12, batch=8)
    a_venue().__class__.objects.update(probe_pools=1)
    priors_refit(now=later(1))
    a_job(a_tenant("ann"), job_class="new", now=later(2))
    a_round(later(20))
    [probe] = Job.objects.filter(kind="probe")
    assert probe.name.startswith("probe-fast-")


def test_the_offers_show_priors_with_all_that_is_known_of_them(sites):
    a_profile("new", operations=1e12, batch=8)
    priors_refit(now=later(60))
    rows = [
        row
        for line in offers_open(a_venue(), now=later(70))
        for row in line["affinities"]
        if row["job_class"] == "new"
    ]
    assert len(rows) == 3
    for row in rows:
        assert (row["source"], row["reports"], row["priced"]) == ("roofline", 0, False)
        assert row["low"] < row["believed"] < row["high"]
        assert row["known_at"] == later(60)


def test_the_blend_takes_the_surer_of_two_that_learnt_from_the_same():
    """Neighbours and catalogue both learn from leases: together they would be too sure."""
    profiles = {f"c{at}": Profile(operations=1e10, batch=32) for at in range(4)}
    rows = [
        Measured(f"c{at}", kind, 1, speed * 100, 3)
        for at in range(3)
        for kind, speed in (("T4", 1.0), ("V100", 3.0))
    ]
    rows.append(Measured("c3", "T4", 1, 100.0, 3))
    voices = listen(profiles, rows)
    [said] = voices.priors([Asked("c3", "V100", 1)])
    kin = voices.completion.prior("c3 x1", "V100")
    told = voices.counted.prior(Query("c3", "V100", batch=32, operations=1e10))
    assert isinstance(kin, Prior)
    assert said == min((kin, told), key=lambda one: one.log_sd)


# tables of speeds measured elsewhere

TABLE = """family,size,device,precision,batch,samples_per_s,note
cnn,small,AMD EPYC,float32,16,480,
cnn,small,AMD EPYC,float32,64,530,
cnn,small,AMD EPYC,bfloat16,64,970,
cnn,small,NVIDIA A100-SXM4-80GB,bfloat16,64,50000,
"""


def test_a_table_tells_a_pool_of_the_very_device_and_another_by_the_data_sheets():
    site = a_site("cpu", gpu="AMD-EPYC", gpus=4, speeds={})
    other = a_site("v100", gpu="V100", gpus=4, speeds={})
    a_profile("mine", work="cnn-small", batch=32, precision="single")
    a_profile("half", work="cnn-small", batch=64, precision="half")
    rows = read_table(TABLE, "table")
    priors_refit(now=later(60), table=rows)
    said, half = cell(site, "mine"), cell(site, "half")
    assert (said.source, said.leases, said.priced) == ("catalogue", 2, False)
    assert said.samples_per_s == pytest.approx(480.0)  # of two batches as near the smaller
    assert half.samples_per_s == pytest.approx(970.0)
    assert 5_000 < cell(other, "half").samples_per_s < 50_000
    assert priors_refit(now=later(70), table=rows) is None
    assert priors_refit(now=later(80), table=rows[:2]) is not None


def test_the_table_of_our_own_is_read():
    rows = read_table(OWN.read_text(), "catalogue-cpu.csv")
    assert len({row.work for row in rows}) >= 8


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "lacks the column family"),
        ("family,size,device,precision,batch\n", "lacks the column samples_per_s"),
        (TABLE.replace("float32,16", "int8,16"), "table, line 2: precision is 'int8'"),
        (TABLE.replace(",480,", ",-1,"), "table, line 2: samples_per_s is '-1'"),
        (TABLE.replace(",64,530", ",nan,530"), "table, line 3: batch is 'nan'"),
        ("family,size,device,precision,batch,samples_per_s\ncnn,s,x,float32\n", "batch is None"),
    ],
)
def test_a_table_that_does_not_fit_is_told_by_its_line(text, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        read_table(text, "table")


def test_the_task_leaves_out_a_table_that_cannot_be_read(tmp_path, settings):
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text(TABLE)
    bad.write_text("x")
    settings.SPEED_TABLES = [str(bad), str(tmp_path / "none.csv"), str(good)]
    site = a_site("cpu", gpu="AMD-EPYC", gpus=4, speeds={})
    a_profile("mine", work="cnn-small", batch=16, precision="single")
    tick_priors()
    kept = PriorAffinity.objects.get(pool__site=site, gpus=1)
    assert math.exp(kept.log_mean) == pytest.approx(480.0)
