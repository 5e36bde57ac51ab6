"""Reports of many leases in one batch: as few statements, and the same end, as one by one."""

from __future__ import annotations

import importlib
import itertools
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from federation.models import Contract, Event, Job, Lease, LogChunk, Report, ThroughputSample
from federation.services.leases import Ending
from federation.services.reports import LogPiece, reports_accept
from federation.services.totals import Measured
from tests.federation.contract_scene import HOUR, a_scene
from tests.federation.crashes import dies_everywhere
from tests.federation.samples_scene import Scene
from tests.support.together import together
from tests.support.world import later

LEASES = 4
MANY = 4


@pytest.fixture
def scene(db) -> Scene:
    return Scene()


ROUNDS = 20  #: one deadlock in three calls, before a lease was locked ahead of its model


def some_leases(scene, many=LEASES):
    return [scene.lease(1) for _ in range(many)]


def told(scene, lease, samples, **said):
    """A report of so many samples under the lease's contract, with a measurement."""
    one = scene.report(scene.sample(lease))
    measured = Measured(samples, samples, samples / 100, 900.0, one.seq, 0.5)
    contract = Contract.objects.get(lease=lease)
    return replace(one, contract_id=contract.pk, measured=measured, **said)


def standing(lease):
    """All that reports move of one lease."""
    lease = Lease.objects.get(pk=lease.pk)
    job, contract = Job.objects.get(pk=lease.job_id), Contract.objects.get(lease=lease)
    return (
        *(lease.state, lease.samples, lease.gpu_seconds, lease.measured_samples_per_s),
        *(lease.progress_lines, lease.reports_stored, lease.reports_highest, lease.end_seq),
        *(lease.log_bytes, lease.log_truncated, lease.loss, job.state, job.samples_done),
        *(contract.state, contract.delivered, contract.gpu_seconds, contract.gpu_seconds_told),
        Report.objects.filter(lease=lease, applied=True).count(),
        sorted(ThroughputSample.objects.filter(lease=lease).values_list("seq", flat=True)),
        b"".join(LogChunk.objects.filter(lease=lease).values_list("data", flat=True)),
        list(
            Event.objects.filter(subject_id__in=[str(job.pk), str(contract.pk)])
            .order_by("id")
            .values_list("subject", "event", "to_state")
        ),
    )


def test_what_cannot_be_stored_of_one_lease_costs_no_other_a_report(scene):
    leases = some_leases(scene)
    batch = [told(scene, lease, 100) for lease in leases]
    batch[2] = replace(batch[2], measured=replace(batch[2].measured, samples=2**70))
    batch += [told(scene, lease, 200) for lease in leases]
    untouched = standing(leases[2])
    for _ in range(2):  # its agent sends the batch again: the others' reports are replays then
        accepted = reports_accept(site=scene.site, reports=batch, now=later(90))
        answered = {(receipt.lease_id, receipt.accepted) for receipt in accepted.receipts}
        assert answered == {(one.pk, True) for one in leases if one is not leases[2]}
        for lease in (leases[0], leases[1], leases[3]):
            found = standing(lease)
            assert (found[1], found[5], found[12], found[14]) == (200, 2, 200, 200)
            assert found[18] == [1, 2]
        assert standing(leases[2]) == untouched
    with pytest.raises(Exception, match=r"range|large"):  # nothing at all could be stored
        reports_accept(site=scene.site, reports=[batch[2]], now=later(90))


def test_a_measurement_that_cannot_be_stored_costs_no_report(scene):
    leases = some_leases(scene, 2)
    batch = [told(scene, lease, 100) for lease in leases]
    broken = replace(batch[1].sample, seq=2**70)
    batch[1] = replace(batch[1], sample=broken)
    accepted = reports_accept(site=scene.site, reports=batch, now=later(90))
    assert [receipt.lease_id for receipt in accepted.receipts] == [leases[0].pk]
    assert [standing(lease)[1] for lease in leases] == [100, 100]
    assert ThroughputSample.objects.get().lease_id == leases[0].pk


def a_batch(scene, leases):
    """Progress of all, a log of one, and the end of another."""
    reports = [told(scene, lease, 100 * at) for at in (1, 2, 3) for lease in leases]
    reports[4] = replace(reports[4], log=LogPiece(0, b"hello", truncated=False))
    ended = told(scene, leases[-1], 400)
    return [*reports, replace(ended, kind="ended", ending=Ending("exited", 0), sample=None)]


def test_a_broker_that_dies_anywhere_in_a_batch_loses_and_doubles_nothing(scene):
    leases, twins = some_leases(scene), some_leases(scene)
    batch, other = a_batch(scene, leases), a_batch(scene, twins)
    before = {lease.pk: standing(lease) for lease in leases}
    seen = set()

    def whole():
        """Each lease has all of its reports, or none; measurements may come with the next try."""
        for lease in leases:
            found = standing(lease)
            started = found != before[lease.pk]
            seen.add(started)
            assert found[5] == found[17] == ((3 + (lease is leases[-1])) if started else 0)
            assert found[1] == found[12] == found[14] == (100 * found[5] if started else 0)

    died = dies_everywhere(
        lambda: reports_accept(site=scene.site, reports=batch, now=later(90)), whole
    )
    assert died > 20
    assert seen == {True, False}
    reports_accept(site=scene.site, reports=other, now=later(90))
    assert [standing(one) for one in leases] == [standing(one) for one in twins]
    assert standing(leases[-1])[0] == "done"


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_of_many_leases_ends_where_its_reports_one_by_one_end(scene, seed):
    draw = random.Random(seed)
    leases, twins = some_leases(scene, 3), some_leases(scene, 3)
    batch, other = a_batch(scene, leases), a_batch(scene, twins)
    order = [draw.randrange(len(batch)) for _ in range(5)] + draw.sample(
        range(len(batch)), len(batch)
    )
    cut = draw.randrange(len(order))
    for part in (order[:cut], order[cut:]):
        reports_accept(site=scene.site, reports=[batch[at] for at in part], now=later(90))
    for at in range(len(other)):
        reports_accept(site=scene.site, reports=[other[at]], now=later(90))
    for one, two in zip(leases, twins, strict=True):
        assert standing(one)[:-1] == standing(two)[:-1]


def test_a_batch_of_more_leases_takes_no_more_statements(scene):
    """Once their jobs run: a change of state is told by itself."""
    leases = some_leases(scene, 6)
    for _ in range(2):
        batch = [told(scene, lease, 100) for lease in leases]
        reports_accept(site=scene.site, reports=batch, now=later(90))
    counts = []
    for some in (leases[:2], leases):
        batch = [told(scene, lease, 200 + len(some)) for lease in some]
        with CaptureQueriesContext(
            connection,
        ) as queries:
            reports_accept(site=scene.site, reports=batch, now=later(91))
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_leases_of_another_site_are_refused_and_the_rest_is_stored(scene):
    lease = scene.lease(1)
    stranger = a_scene().lease
    batch = [told(scene, lease, 100), replace(told(scene, lease, 200), lease_id=stranger.pk)]
    found = reports_accept(site=scene.site, reports=batch, now=later(90))
    assert [(one.accepted, one.code) for one in found.receipts] == [
        (True, ""),
        (False, "unknown_attempt"),
    ]
    assert Report.objects.get().lease_id == lease.pk


@pytest.mark.django_db
@pytest.mark.parametrize("alone", [True, False])
def test_gpu_time_of_contracts_does_not_depend_on_the_order_of_their_reports(alone):
    scene = a_scene()
    first = scene.contract
    second = scene.next(3660)
    reports = [
        scene.report(100, gpu_seconds=800.0, contract=first),
        scene.report(300, gpu_seconds=2400.0, contract=first),
        scene.report(10, total=310, gpu_seconds=2500.0, contract=second),
        scene.report(90, total=390, gpu_seconds=3000.0, contract=second),
        scene.report(400, gpu_seconds=2450.0, contract=first),
    ]
    ends = set()
    for order in itertools.permutations(reports):
        batches = [[report] for report in order] if alone else [order]
        with transaction.atomic():
            for batch in batches:
                reports_accept(site=scene.agent.site, reports=batch, now=later(HOUR))
            rows = [Contract.objects.get(pk=one.pk) for one in (first, second)]
            ends.add(tuple((row.state, row.delivered, row.gpu_seconds) for row in rows))
            transaction.set_rollback(True)  # the next order starts where this one did
    assert ends == {(("running", 400, 2450.0), ("running", 90, 550.0))}


@pytest.mark.usefixtures("ledger_may_be_flushed")
def test_batches_that_name_the_same_leases_in_any_order_at_once_count_once():
    scene = Scene()
    leases = some_leases(scene)
    batch = [told(scene, lease, 100 * at) for at in (1, 2, 3) for lease in leases]

    def send(number):
        mine = random.Random(number).sample(batch, len(batch))
        return reports_accept(site=scene.site, reports=mine, now=later(90))

    for found in together(MANY, send):
        assert all(receipt.accepted for receipt in found.receipts)
    for lease in leases:
        found = standing(lease)
        assert (found[1], found[5], found[12], found[14]) == (300, 3, 300, 300)
        assert found[18] == [1, 2, 3]


@pytest.mark.usefixtures("ledger_may_be_flushed")
def test_a_batch_and_the_reports_of_one_of_its_leases_never_lock_each_other_out():
    """An agent sends again what it has no answer to: batches overlap, replays among them."""
    scene = Scene()
    leases = some_leases(scene)
    reports_accept(site=scene.site, reports=[told(scene, x, 100) for x in leases], now=later(90))
    whole = [[told(scene, x, 200 + n) for x in leases] for n in range(ROUNDS)]
    single = [[told(scene, leases[n % 4], 150)] for n in range(2 * ROUNDS)]

    def send(number):
        mine = whole if number == 0 else single[number - 1 :: 2]
        for batch in mine:
            reports_accept(site=scene.site, reports=batch, now=later(91))

    together(3, send)
    assert ThroughputSample.objects.count() == 4 + 4 * ROUNDS + 2 * ROUNDS


@pytest.mark.django_db
def test_the_migration_sums_up_what_was_told_before_it():
    scene = a_scene()
    first, second = scene.contract, scene.next(3660)
    third = scene.next(7260)
    Contract.objects.filter(pk=first.pk).update(gpu_seconds=800.0)
    Contract.objects.filter(pk=second.pk).update(gpu_seconds=50.0)
    module = importlib.import_module("federation.migrations.0010_gpu_seconds_told")
    module.sum_up(apps, SimpleNamespace(connection=connection))
    rows = Contract.objects.order_by("sequence").values_list("pk", "gpu_seconds_told")
    assert list(rows) == [(first.pk, 800.0), (second.pk, 850.0), (third.pk, 0.0)]
