"""Offers: immutable versions, a window, and an affinity that is corrected by what was measured."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command

from federation.errors import BadInput
from federation.models import Lease, MeasuredAffinity, Offer, OfferPool, Round
from federation.selectors.affinity import believed_cells, current_offers
from federation.services import offers
from federation.services.affinity import affinity_refit
from tests.support.world import (
    SimAgent,
    a_class,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    an_offer,
    later,
    live_lease,
)

pytestmark = pytest.mark.django_db


def draft(**changes):
    fields = {
        "digest": "d1",
        "pools": [offers.PoolLine("gpu", "A100", 4, "1.50")],
        "affinities": [offers.AffinityLine("gpu", "cnn", 1, 100.0, "declared")],
        "valid_from": None,
        "valid_until": None,
        "note": "",
    }
    return offers.OfferDraft(**{**fields, **changes})


def test_a_change_is_a_new_version_and_the_old_one_stays_as_it_was():
    site = a_site("north", gpus=4)
    an_offer(site, gpus=2)
    versions = list(Offer.objects.filter(site=site).order_by("version"))
    assert [(o.version, o.state) for o in versions] == [(1, "superseded"), (2, "active")]
    assert [OfferPool.objects.get(offer=o).gpus for o in versions] == [4, 2]


def test_the_same_document_again_is_the_same_version():
    site = a_site("north", online=False)
    a_class("cnn")
    first = offers.offer_submit(site=site, draft=draft(), now=later(0))
    assert offers.offer_submit(site=site, draft=draft(), now=later(5)) == first
    assert Offer.objects.count() == 1


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"pools": []}, "pools"),
        ({"pools": [offers.PoolLine("../x", "A100", 4, "1")]}, "pools[0].name"),
        ({"pools": [offers.PoolLine("gpu", "A\n100", 4, "1")]}, "pools[0].gpu"),
        ({"pools": [offers.PoolLine("gpu", "A100", -1, "1")]}, "pools[0].gpus"),
        ({"pools": [offers.PoolLine("gpu", "A100", 1, "NaN")]}, "pools[0].reserve"),
        ({"pools": [offers.PoolLine("gpu", "A100", 1, "-1")]}, "pools[0].reserve"),
        ({"pools": [offers.PoolLine("gpu", "A100", 1, "1e99")]}, "pools[0].reserve"),
        ({"affinities": [offers.AffinityLine("x", "cnn", 1, 1.0, "declared")]}, "pool"),
        ({"affinities": [offers.AffinityLine("gpu", "no", 1, 1.0, "declared")]}, "job_class"),
        ({"affinities": [offers.AffinityLine("gpu", "cnn", 0, 1.0, "declared")]}, "gpus"),
        ({"affinities": [offers.AffinityLine("gpu", "cnn", 1, 0.0, "declared")]}, "samples_per_s"),
        ({"affinities": [offers.AffinityLine("gpu", "cnn", 1, 1.0, "guessed")]}, "source"),
        ({"valid_until": later(-1)}, "valid_until"),
    ],
)
def test_a_bad_offer_is_refused_with_the_field_and_nothing_is_stored(changes, path):
    site = a_site("north", online=False)
    a_class("cnn")
    with pytest.raises(BadInput) as refusal:
        offers.offer_submit(site=site, draft=draft(**changes), now=later(0))
    assert any(path in problem.path for problem in refusal.value.problems)
    assert not Offer.objects.exists()


def test_an_offer_past_its_window_leaves_the_market():
    site = a_site("north", online=True)
    until = later(100)
    offers.offer_submit(site=site, draft=draft(valid_until=until), now=later(0))
    assert current_offers(a_venue(), later(99)).exists()
    assert not current_offers(a_venue(), later(101)).exists()
    assert len(offers.offers_expire(now=until + timedelta(seconds=1))) == 1
    assert Offer.objects.filter(site=site, state="expired").count() == 1


def test_measured_speed_moves_what_is_believed_and_both_stay_visible():
    tenant = a_tenant("ann")
    site = a_site("north", gpus=1, speeds={"cnn": 2000.0})
    job = a_job(tenant, samples=10**6)
    agent = SimAgent(site)
    a_round(later(20))
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(live_lease(job), later(25), samples=5_000, speed=1000.0)
    [(pool, job_class, speed)] = affinity_refit(now=later(26))
    assert (pool, job_class, speed) == ("north.gpu", "cnn", pytest.approx(1000.0))
    assert affinity_refit(now=later(27)) == []  # nothing new: nothing to do
    [cell] = believed_cells(current_offers(a_venue(), later(27))).values()
    assert (cell.declared, cell.measured, cell.source) == (2000.0, pytest.approx(1000), "blended")
    blend = 2000 ** (2 / 3) * 1000 ** (1 / 3)
    assert 1000 < cell.low < cell.samples_per_s < blend < cell.high  # a newcomer, with caution
    a_round(later(31))
    lease = Lease.objects.get()
    assert lease.predicted_samples_per_s == pytest.approx(cell.samples_per_s)
    assert MeasuredAffinity.objects.get().leases == 1


def test_a_round_can_be_decided_again_from_its_snapshot(capsys):
    a_job(a_tenant("ann"))
    a_site("north")
    a_round(later(20))
    [round] = Round.objects.filter(state="published")
    call_command("replay_round", str(round.number))
    assert round.clearing_sha256 in capsys.readouterr().out
    with pytest.raises(CommandError, match="no round 99"):
        call_command("replay_round", "99")
