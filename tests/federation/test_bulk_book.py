"""The book made in bulk is the book that one job after another would make."""

from __future__ import annotations

import importlib
import json
import random
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection

from economics.book import canonical_json, document_sha256, read_book
from federation.grouping import Traits, group_of
from federation.machines.lease import LIVE
from federation.matching import permits
from federation.models import Account, Job, Lease, OfferPool, Venue
from federation.money import samples_paid, worth_micro
from federation.selectors.affinity import believed_cells, current_offers, speed_at
from federation.services import rounds
from federation.services.leases import Ending
from federation.snapshot import book_build, seal, unpack
from federation.snapshot.documents import millionths
from federation.snapshot.terms import row_template
from tests.support.crowd import Crowd, furnish
from tests.support.world import (
    SimAgent,
    a_class,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
)

pytestmark = pytest.mark.django_db
NOT_KNOWN = ("no_feasible_pool", "no_affinity")


def book_of(now):
    book = book_build(venue=a_venue(), now=now)
    document = json.loads(book.text)
    return document, {left.job_id: (left.code, left.final) for left in book.left_out}


class OneByOne:
    """The rules of a bid, written for one job at a time and for nothing else."""

    def __init__(self, venue, now):
        self.venue, offers = venue, list(current_offers(venue, now))
        self.cells = believed_cells(offers)
        self.lines = list(OfferPool.objects.filter(offer__in=offers).select_related("pool__site"))
        self.funds = {
            purse.tenant_id: purse.balance_micro
            for purse in Account.objects.filter(kind="tenant_cash")
        }
        self.jobs, self.left_out = [], {}
        jobs = [job for job in Job.objects.filter(kind="training") if self.bids(job)]
        for job in sorted(jobs, key=lambda j: (-j.value_micro, str(j.pk))):
            found = self.look(job)
            if isinstance(found, dict):
                self.jobs.append(found)
            else:
                self.left_out[str(job.pk)] = found

    def bids(self, job):
        if job.state == "pending":
            return True
        lease = job.leases.filter(state__in=["offered", "active"]).first()
        if lease is None or not job.preemptible or lease.revoke_asked_at is not None:
            return False
        return job.state != "recovering" and not lease.contracts.filter(to_end=True).exists()

    def free(self, line):
        held = Lease.objects.filter(
            pool=line.pool, state__in=sorted(LIVE), job__preemptible=False
        ).values_list("gpus", flat=True)
        return line.gpus - sum(held)

    def look(self, job):
        declined = set(
            job.leases.filter(end_reason__in=["declined", "lost"]).values_list("pool", flat=True)
        )
        allowed = [ln for ln in self.lines if permits(job, ln.pool) and ln.pool_id not in declined]
        if not allowed:
            return "no_feasible_pool", False
        ways = [
            (line.reserve_micro * size * self.venue.round_s / 3600, speed.samples_per_s)
            for line in allowed
            for size in job.gpus
            if (speed := speed_at(self.cells, line.pool_id, job.job_class_id, size))
        ]
        if not ways:
            return "no_affinity", False
        room = job.max_cost_micro - job.spent_micro
        begun = job.spent_micro and not job.held_micro and job.state == "pending"
        if begun and room < max(1, min(cost for cost, _ in ways)):
            return "max_cost", True
        if max(self.free(line) for line in allowed) < min(job.gpus):
            return "no_capacity", False
        return self.row(job, allowed, max(speed for _, speed in ways))

    def row(self, job, allowed, fastest):
        left = max(job.samples - job.samples_done, job.samples // 100, 1)
        round_s = self.venue.round_s
        output = min(left, int(fastest * round_s) + 1) if job.preemptible else left
        free = self.funds[job.tenant_id]
        room = job.max_cost_micro - job.spent_micro - job.held_micro
        budget = max(0, min(worth_micro(output, job.value_micro), room, free))
        self.funds[job.tenant_id] -= budget
        demand = min(left, samples_paid(budget, job.value_micro))
        if demand < 1:
            return ("max_cost" if room <= 0 else "no_funds"), False
        row = {
            "id": str(job.pk),
            "site": job.tenant.member.name,
            "tenant": job.tenant.name,
            "class": job.job_class.name,
            "value": job.value_micro / 1e6,
            "demand": demand / 1e6,
            "budget": budget / 1e6,
            "gang": job.gpus if len(job.gpus) > 1 else job.gpus[0],
        }
        if len(allowed) < len(self.lines):
            row["pools"] = sorted(str(line.pool) for line in allowed)
        lease = job.leases.filter(state__in=sorted(LIVE)).first()
        if lease is not None:
            speed = speed_at(self.cells, lease.pool_id, job.job_class_id, lease.gpus)
            cost = job.value_micro / 1e6 * speed.samples_per_s / 1e6 * self.venue.restart_s
            row |= {"running_on": str(lease.pool), "move_cost": round(cost, 9)}
        return row


def a_mixed_market(seed):
    """Jobs of all kinds, running and waiting, begun and new, of rich and of poor tenants."""
    draw = random.Random(seed)
    sites = [
        a_site(name, gpus=draw.randint(2, 6), reserve=str(draw.randint(1, 900)), gpu=gpu,
               speeds={"cnn": 1000.0, "lm": 300.0} if gpu == "A100" else {"cnn": 400.0})
        for name, gpu in (("north", "A100"), ("south", "L40S"), ("west", "A100"))
    ]  # fmt: skip
    a_class("unknown")
    tenants = [a_tenant("rich"), a_tenant("poor", credits=9), a_tenant("broke", credits=1)]

    def submit(count):
        for _ in range(count):
            a_job(
                draw.choice(tenants),
                job_class=draw.choice(["cnn", "cnn", "lm", "unknown"]),
                gpus=draw.choice([[1], [2], [1, 2, 4], [64]]),
                samples=draw.choice([1, 5_000, 100_000, 10**12]),
                value=draw.choice(["0.5", "500", "500", "777.123457", "90000"]),
                max_cost=draw.choice(["0.000001", "3", "1000"]),
                preemptible=draw.random() < 0.7,
                gpu_kinds=draw.choice([[], ["A100"], ["L40S", "A100"], ["none"]]),
                sites_allow=draw.choice([[], [], ["north", "south"]]),
                sites_deny=draw.choice([[], [], ["west"]]),
                pools=draw.choice([[], [], ["north.gpu"]]),
                now=later(1),
            )

    submit(30)
    a_round(later(20))
    agents = {site.pk: SimAgent(site) for site in sites}
    for agent in agents.values():
        agent.sync(later(21))
        agent.sync(later(21))
    for lease in Lease.objects.filter(state="active").order_by("job__name"):
        end = draw.choice([None, None, Ending("declined"), Ending("lost")])
        agents[lease.site_id].report(lease, later(22), samples=1, ending=end)
    submit(30)
    waiting = list(Job.objects.filter(state="pending").order_by("name"))
    for job in draw.sample(waiting, 12):
        job.spent_micro = draw.choice([1, job.max_cost_micro // 2, job.max_cost_micro])
        job.held_micro = draw.choice([0, 0, 5])
        job.save()


@pytest.mark.parametrize("seed", range(6))
def test_one_job_after_another_gives_the_same_book(seed):
    a_mixed_market(seed)
    document, left_out = book_of(later(25))
    oracle = OneByOne(a_venue(), later(25))
    assert document["jobs"] == sorted(oracle.jobs, key=lambda row: row["id"])
    assert left_out == oracle.left_out
    assert len({code for code, _ in left_out.values()}) >= 4  # the market was mixed indeed
    assert len(document["jobs"]) >= 5


def test_the_text_is_the_canonical_one():
    a_mixed_market(3)
    Venue.objects.update(policy="allox", policy_parameters={"alpha": 0.25})
    book = book_build(venue=Venue.objects.get(), now=later(25))
    document = json.loads(book.text)
    assert canonical_json(document) == book.text
    sealed = seal(book.text)
    assert (unpack(sealed.body), sealed.sha256) == (document, document_sha256(document))
    assert document["rules"]["policy"] == "allox"
    assert document["rules"]["parameters"] == {"alpha": 0.25}
    assert len(read_book(document).jobs) == book.bids


def test_the_default_policy_has_no_parameters_in_the_book():
    a_site("north")
    a_job(a_tenant("ann"))
    document, _ = book_of(later(1))
    assert document["rules"]["policy"] == "surplus"
    assert "parameters" not in document["rules"]


def test_a_book_takes_as_many_statements_for_many_jobs_as_for_few(django_assert_num_queries):
    crowd = Crowd(jobs=200, pools=4, sites=2, classes=3, groups=6, tenants=4, members=2)
    furnished = furnish(crowd, now=later(0))
    Job.objects.exclude(pk__in=Job.objects.values("pk")[:12]).update(state="cancelled")
    with CaptureStatements() as few:
        assert book_build(venue=furnished.venue, now=later(1)).bids == 12
    Job.objects.update(state="pending")
    with django_assert_num_queries(few.count):
        assert book_build(venue=furnished.venue, now=later(1)).bids == 200


class CaptureStatements:
    """Counts the statements in a `with` block."""

    def __enter__(self):
        self.count = 0
        self._hook = connection.execute_wrapper(self._note)
        self._hook.__enter__()
        return self

    def __exit__(self, *error):
        self._hook.__exit__(*error)

    def _note(self, execute, sql, params, many, context):
        self.count += 1
        return execute(sql, params, many, context)


def traits(**changes):
    ids = SimpleNamespace(hex="0" * 32), SimpleNamespace(hex="1" * 32)
    fields = {"home": ids[0], "job_class": ids[1], "kind": "training", "gpus": [1, 2]}
    return Traits(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"home": SimpleNamespace(hex="2" * 32)},
        {"job_class": SimpleNamespace(hex="2" * 32)},
        {"kind": "probe"},
        {"gpus": [1]},
        {"gpu_kinds": ["A100"]},
        {"sites_allow": ["north"]},
        {"sites_deny": ["north"]},
        {"pools": ["north.gpu"]},
    ],
    ids=str,
)
def test_every_trait_makes_another_group(changes):
    assert group_of(traits(**changes)) != group_of(traits())


def test_order_and_repetition_make_no_other_group():
    one = traits(gpus=[4, 1], sites_allow=["a", "b"], pools=["x.y", "x.z"])
    same = traits(gpus=[1, 4, 4], sites_allow=["b", "a", "a"], pools=["x.z", "x.y"])
    assert group_of(one) == group_of(same)


def test_a_job_is_stored_with_its_group():
    tenant = a_tenant("ann")
    plain, alike = a_job(tenant), a_job(tenant, value="3", samples=9, max_cost="7")
    other = a_job(tenant, gpus=[2])
    assert plain.group == alike.group != other.group
    assert len(plain.group) == 32


def test_jobs_without_a_group_get_the_same_rows_and_the_migration_gives_them_one():
    a_mixed_market(1)
    before = book_of(later(25))
    groups = dict(Job.objects.filter(ended_at__isnull=True).values_list("pk", "group"))
    Job.objects.update(group="")
    assert book_of(later(25)) == before
    migration = importlib.import_module("federation.migrations.0003_job_group_and_policy")
    migration.fill_groups(apps, SimpleNamespace(connection=connection))
    found = dict(Job.objects.filter(ended_at__isnull=True).values_list("pk", "group"))
    training = Job.objects.filter(ended_at__isnull=True, kind="training")
    assert {pk: found[pk] for pk in training.values_list("pk", flat=True)} == {
        pk: groups[pk] for pk in training.values_list("pk", flat=True)
    }
    assert book_of(later(25)) == before


def test_the_migration_fills_more_jobs_than_one_statement_takes(monkeypatch):
    tenant = a_tenant("ann")
    for _ in range(7):
        a_job(tenant)
    Job.objects.update(group="")
    migration = importlib.import_module("federation.migrations.0003_job_group_and_policy")
    monkeypatch.setattr(migration, "BATCH", 3)
    migration.fill_groups(apps, SimpleNamespace(connection=connection))
    assert Job.objects.values("group").distinct().count() == 1
    assert not Job.objects.filter(group="").exists()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (10, "0.00001"),
        (100, "0.0001"),
        (1_000_000, "1"),
        (1_500_000, "1.5"),
        (123_456_789_012_345, "123456789.012345"),
        (10**15, "1000000000"),
        (10**26, "100000000000000000000"),
        (10**27, "1e+21"),
    ],
)
def test_millionths_are_written_as_a_canonical_document_writes_them(number, text):
    assert millionths([number]) == [text] == [canonical_json(number / 1e6).decode()]


def test_a_template_is_the_row_whatever_its_texts_hold():
    shared = {"site": 'a "%s" b', "class": "100%", "pools": ["p\\q", "ü"], "gang": [1, 2]}
    own = {"budget": 1.5, "demand": 2, "id": "j", "tenant": "t", "value": 3}
    text = row_template(shared) % ("1.5", "2", "j", '"t"', "3")
    assert text.encode() == canonical_json(shared | own)


def test_a_gate_tells_only_the_jobs_whose_outcome_changed():
    a_site("north", gpus=2)
    jobs = [a_job(a_tenant("ann"), gpus=[64]) for _ in range(1)]
    jobs += [a_job(jobs[0].tenant, gpus=[64], name=f"more-{at}") for at in range(3)]
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    assert rounds.rounds_close(now=later(11)) == []
    assert set(Job.objects.values_list("outcome_code", flat=True)) == {"no_capacity"}
    told = {str(job.pk): ("no_capacity", Job.objects.get(pk=job.pk).outcome_why) for job in jobs}
    from federation.services.outcomes import outcomes_tell

    assert outcomes_tell(number=1, told=told) == 0
    told[str(jobs[0].pk)] = ("no_funds", "other words")
    assert outcomes_tell(number=1, told=told) == 1
    assert outcomes_tell(number=2, told=told) == 4


def test_a_running_job_keeps_its_place_in_the_book():
    site = a_site("north", gpus=4)
    job = a_job(a_tenant("ann"), gpus=[2], samples=10**9)
    a_round(later(20))
    agent = SimAgent(site)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(live_lease(job), later(22), samples=5)
    document, _ = book_of(later(25))
    [row] = document["jobs"]
    assert row["running_on"] == "north.gpu"
    assert row["move_cost"] == round(500 * 2000 / 1e6 * a_venue().restart_s, 9)
