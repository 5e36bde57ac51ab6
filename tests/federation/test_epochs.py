"""Which rounds an epoch covers, what of them is frozen, and how a period ends without one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.solving import sharing
from broker.solving.errand import Errand
from broker.tasks import run_study
from federation.errors import BadInput, Refused
from federation.models import (
    Contract,
    EntryGroup,
    Epoch,
    Lease,
    Round,
    Rules,
    Snapshot,
    Study,
    Tenant,
)
from federation.selectors.accounts import trial_balance
from federation.selectors.epochs import epoch_shown, missing_consents, settlements
from federation.selectors.replay import replay
from federation.services import rounds as rounds_services
from federation.services.disputes import dispute_decide, dispute_open
from federation.services.epochs import (
    epoch_close,
    epoch_post,
    epoch_propose,
    epoch_refuse,
    epochs_gather,
)
from federation.services.leases import Ending
from federation.services.rules import consent_give, rules_of, rules_preview, rules_set
from federation.snapshot import pack, unpack
from tests.support import world
from tests.support.world import NOW, a_member, a_venue, later

pytestmark = pytest.mark.django_db
MEMBERS = ("alder", "birch", "clover")
GAP = 1000.0  #: seconds from one round of these tests to the next


def new_rules(at: float, **changes) -> Rules:
    venue = a_venue()
    preview = rules_preview(venue=venue, changes=changes, now=later(at), actor="test")
    return rules_set(
        venue=venue,
        changes=changes,
        preview_sha256=preview.sha256,
        why="a consortium",
        actor="test",
        now=later(at),
    )


def agree(at: float, *names: str) -> None:
    for name in names or MEMBERS:
        rules = rules_of(a_venue(), later(at))
        consent_give(rules=rules, member=a_member(name), actor="test", now=later(at))


@pytest.fixture
def sellers(db) -> None:
    """Alder and birch sell; clover and birch will buy."""
    world.a_site("north", gpus=4, speeds={"cnn": 1000.0, "lm": 50.0})
    world.a_site("south", member=a_member("birch"), gpus=2, speeds={"cnn": 900.0})
    world.a_tenant("bob", member=a_member("clover"))
    world.a_tenant("ann", member=a_member("birch"))


@pytest.fixture
def consortium(sellers) -> Rules:
    """All have agreed to half of the way before anything is traded."""
    rules = new_rules(1, alpha_ppm=500_000)
    agree(2)
    return rules


def a_traded_round(number: int, *, parts: tuple[float, float] = (1.0, 1.0)) -> Round:
    """The n-th round of a test: two jobs, of which these parts are delivered, and all is paid."""
    at = number * GAP
    for name, value in (("bob", "400"), ("ann", "300")):
        tenant = Tenant.objects.get(name=name)
        world.a_job(tenant, name=f"{name}-{number}", gpus=[2], value=value, now=later(at))
    for site in {lease.site for lease in Lease.objects.select_related("site")}:
        world.syncs.site_synced(site=site, hello=world.HELLO, attempts=[], now=later(at))
    world.a_round(later(at + 10))
    made = Round.objects.filter(published_at__isnull=False).order_by("-number").first()
    assert made is not None
    leases = Lease.objects.filter(round=made).select_related("site").order_by("job__name")
    agents: dict[str, world.SimAgent] = {}
    for lease, part in zip(leases, parts[::-1], strict=True):  # ann's first by name
        agent = agents.setdefault(lease.site.name, world.SimAgent(lease.site))
        agent.sync(later(at + 15))
        contract = lease.contracts.get()
        done = int(contract.contracted * part)
        ending = Ending("exited", exit_code=0) if done else Ending("declined", message="no")
        agent.report(lease, later(at + 16), samples=done, ending=ending)
    world.pay(later(at + 20))
    return made


def propose(at: float) -> Study:
    return epoch_propose(venue=a_venue(), until=later(at), actor="test", now=later(at))


def an_epoch(at: float) -> Epoch:
    study = propose(at)
    while waiting := Study.objects.filter(state="pending").first():
        run_study(str(waiting.pk))
    study.refresh_from_db()
    assert study.state == "done", study.why
    [epoch] = epochs_gather(now=later(at))
    return epoch


def refused(code: str, at: float) -> None:
    with pytest.raises(Refused) as no:
        propose(at)
    assert no.value.code == code, no.value


def moved(epoch: Epoch) -> dict[str, int]:
    amounts: dict[str, int] = epoch.document["transfers_micro"]
    return {name: micro for name, micro in amounts.items() if micro}


def test_what_was_delivered_is_frozen_and_posted(consortium):
    made = a_traded_round(1, parts=(1.0, 0.5))
    epoch = an_epoch(1100)
    [frozen] = settlements([made])
    contracts = Contract.objects.filter(round=made)
    assert frozen == {
        str(c.lease.job_id): [c.accepted, c.paid_micro, c.penalty_micro] for c in contracts
    }
    paid, penalties = zip(*contracts.values_list("paid_micro", "penalty_micro"), strict=True)
    assert epoch.document["turnover_micro"] == pytest.approx(sum(paid), abs=1)
    assert epoch.document["penalties_micro"] == sum(penalties)
    assert sum(epoch.document["transfers_micro"].values()) == 0
    assert moved(epoch)
    epoch_post(epoch=epoch, actor="test", now=later(1200))
    [group] = EntryGroup.objects.filter(kind="dividend")
    entries = {e.account.member.name: e.amount_micro for e in group.entries.all()}
    assert entries == moved(epoch)
    assert trial_balance().holds
    assert replay().holds


def test_an_epoch_with_nothing_delivered_moves_nothing(consortium):
    a_traded_round(1, parts=(0.0, 0.0))
    assert not Contract.objects.exclude(paid_micro=0).exists()
    epoch = an_epoch(1100)
    assert moved(epoch) == {}
    assert epoch.document["turnover_micro"] == 0
    assert epoch.document["penalties_micro"] > 0  # the sites did not start
    assert epoch_post(epoch=epoch, actor="test", now=later(1200)).state == "posted"
    assert replay().holds


def test_rounds_before_all_had_agreed_are_left_out_and_named(sellers):
    a_traded_round(1)
    new_rules(1100, alpha_ppm=500_000)
    a_traded_round(2)
    agree(2100, "alder", "birch")
    a_traded_round(3)
    refused("nothing_to_share", 3100)
    agree(3200)
    kept = a_traded_round(4)
    epoch = an_epoch(4100)
    assert epoch.document["numbers"] == [kept.number]
    left = {row["round"]: row["why"] for row in epoch_shown(epoch)["left_out"]}
    assert len(left) == 3
    said = [left[number] for number in sorted(left)]
    assert said[0] == "not agreed to rules 1 before it: alder, birch, clover"
    assert said[2] == "not agreed to rules 2 before it: clover"
    assert missing_consents(epoch) == []
    refused("no_rounds", 4100)


def test_an_epoch_follows_one_version_and_the_next_takes_the_rest(consortium):
    first = a_traded_round(1)
    new_rules(1100, alpha_ppm=250_000)
    agree(1100)
    second = a_traded_round(2)
    epochs = [an_epoch(2100), an_epoch(2100)]
    assert [epoch.document["numbers"] for epoch in epochs] == [[first.number], [second.number]]
    assert [epoch.rules.alpha_ppm for epoch in epochs] == [500_000, 250_000]


def test_a_forgotten_book_does_not_stop_later_rounds(consortium):
    lost = a_traded_round(1)
    refused_at = timedelta(days=500)
    Snapshot.objects.filter(round=lost).update(created_at=NOW - refused_at)
    rounds_services.snapshots_forget(now=later(1100))
    refused("nothing_to_share", 1100)
    kept = a_traded_round(2)
    epoch = an_epoch(2100)
    assert epoch.document["numbers"] == [kept.number]
    assert epoch.document["left_out"] == [
        {"round": lost.number, "why": "its book is past its retention"}
    ]


def test_a_round_of_another_policy_is_left_out_by_the_worker(consortium):
    other = a_traded_round(1)
    snapshot = Snapshot.objects.get(round=other)
    book = unpack(bytes(snapshot.body or b""))
    book["rules"]["policy"] = "las"
    Snapshot.objects.filter(pk=snapshot.pk).update(body=pack(book))
    alone = an_epoch(1100)
    assert (alone.document["numbers"], moved(alone)) == ([], {})
    epoch_refuse(epoch=alone, why="nothing in it", actor="test", now=later(1200))
    kept = a_traded_round(2)
    epoch = an_epoch(2100)
    assert epoch.document["numbers"] == [kept.number]
    assert epoch.document["left_out"] == [
        {"round": other.number, "why": "its policy was las, not surplus"}
    ]
    epoch_post(epoch=epoch, actor="test", now=later(2200))


def test_an_epoch_is_not_posted_when_its_contracts_changed(consortium):
    a_traded_round(1)
    epoch = an_epoch(1100)
    contract = Contract.objects.order_by("lease__job__name").first()
    assert contract is not None
    dispute = dispute_open(
        contract=contract,
        by="tenant",
        actor="test",
        code="fewer",
        why="The log shows half.",
        claimed=contract.contracted // 2,
        now=later(1110),
    )
    with pytest.raises(Refused) as no:
        epoch_post(epoch=epoch, actor="test", now=later(1120))
    assert no.value.code == "figures_changed"
    dispute_decide(
        dispute=dispute,
        accepted=contract.contracted // 2,
        cause="site",
        why="The log holds.",
        actor="test",
        now=later(1130),
    )
    epoch.refresh_from_db()
    assert epoch.state == "proposed"
    epoch_refuse(epoch=epoch, why="decided anew", actor="test", now=later(1140))
    again = an_epoch(1150)
    assert again.document["turnover_micro"] < epoch.document["turnover_micro"]
    assert epoch_post(epoch=again, actor="test", now=later(1160)).state == "posted"


def test_the_same_answer_counts_again_after_a_refusal(consortium):
    a_traded_round(1)
    first = an_epoch(1100)
    epoch_refuse(epoch=first, why="too soon", actor="test", now=later(1110))
    again = an_epoch(1120)
    assert (again.number, again.document) == (2, first.document)
    epoch_refuse(epoch=again, why="never", actor="test", now=later(1130), skip=True)
    assert epoch_shown(again)["state"] == "CLOSED"
    refused("no_rounds", 1140)
    later_round = a_traded_round(2)
    assert an_epoch(2100).document["numbers"] == [later_round.number]


def test_a_closed_period_is_over(consortium):
    a_traded_round(1)
    venue = a_venue()
    study = propose(1100)
    closed = epoch_close(
        venue=venue, until=later(1200), why="no consortium yet", actor="test", now=later(1200)
    )
    assert (closed.rounds, epoch_shown(closed)["state"]) == (1, "CLOSED")
    run_study(str(study.pk))
    assert epochs_gather(now=later(1210)) == []
    for until, why, error in ((1300, "", BadInput), (1400, "x", BadInput), (1250, "x", Refused)):
        with pytest.raises(error):
            epoch_close(venue=venue, until=later(until), why=why, actor="t", now=later(1300))
    assert Epoch.objects.count() == 1


def test_an_owner_s_members_are_one_player_and_share_its_dividend(consortium):
    for name in ("alder", "clover"):
        member = a_member(name)
        member.owner = "forest"
        member.save()
    a_traded_round(1)
    epoch = an_epoch(1100)
    assert {row["site"] for row in epoch.document["sites"]} == {"birch", "forest"}
    assert set(epoch.document["transfers_micro"]) == set(MEMBERS)
    assert sum(epoch.document["transfers_micro"].values()) == 0
    shown = {row["member"]: row for row in epoch_shown(epoch)["members"]}
    assert {name: row["owner"] for name, row in shown.items()} == {
        "alder": "forest",
        "birch": "birch",
        "clover": "forest",
    }
    assert shown["alder"]["market"] == shown["clover"]["market"]
    epoch_post(epoch=epoch, actor="test", now=later(1200))
    assert replay().holds


def test_values_that_workers_found_give_the_same_epoch(consortium, monkeypatch, tmp_path):
    made = a_traded_round(1, parts=(0.5, 1.0))
    study = propose(1100)
    whole = an_epoch(1100)
    handed_out = []

    def spread(name, bodies, files=()):
        """Computes parts from their bodies and the shelf alone, as a worker elsewhere does."""
        assert len(files) == len(bodies)
        handed_out.extend(bodies)
        return [sharing.coalitions(body, tmp_path) for body in bodies]

    monkeypatch.setattr(sharing, "FEW", 0)
    made.refresh_from_db()
    inputs = {}
    for name, body in (
        ("book", Snapshot.objects.get(round=made).body),
        ("clearing", made.clearing),
        ("frozen", study.payload),
    ):
        inputs[name] = tmp_path / f"{name}.gz"
        inputs[name].write_bytes(bytes(body or b""))
    errand = Errand(inputs, {**study.parameters, "books": 1}, spread, tmp_path)
    assert sharing.shared(errand) == whole.document
    assert handed_out
