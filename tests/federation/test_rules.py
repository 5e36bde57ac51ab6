"""Rules: versions that succeed each other, none set without the preview that shows its effect."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, transaction

from federation.errors import BadInput, Refused
from federation.models import Contract, Event, Rules, SiteRecord
from federation.selectors.rules import (
    ELSEWHERE,
    FIELDS,
    consent_missing,
    rules_history,
    rules_values,
)
from federation.services.disputes import dispute_decide, dispute_open
from federation.services.rules import (
    PREVIEW_FRESH,
    consent_give,
    rules_of,
    rules_preview,
    rules_set,
)
from tests.federation.contract_scene import HOUR, a_scene
from tests.support.together import together
from tests.support.world import NOW, a_member, a_site, a_venue, later, pay

pytestmark = pytest.mark.django_db


def change(changes, *, at=10_000, preview=True, why="as agreed", **said):
    venue = a_venue()
    if preview:
        shown = rules_preview(venue=venue, changes=changes, now=later(at), actor="user:op")
        said.setdefault("preview_sha256", shown.sha256)
    wanted = {"changes": changes, "why": why, "actor": "user:op", "now": later(at), **said}
    return rules_set(venue=venue, **wanted)


def short_by_eight_percent():
    scene = a_scene()
    scene.say(3600, 2_384_640, gpu_seconds=8 * HOUR)
    scene.next(3660)
    scene.say(3661, 1, total=2_384_641)
    pay(later(3700))
    return Contract.objects.get(pk=scene.contracts[0].pk)


def test_a_venue_s_first_rules_are_the_defaults_and_are_made_once():
    first = rules_of(a_venue(), NOW)
    assert rules_of(a_venue(), later(5)).pk == first.pk
    assert (first.version, first.actor, first.kappa_ppm, first.bond_ppm) == (
        *(1, "broker", 500_000),
        200_000,
    )


def test_the_first_rules_have_an_audit_entry_and_one_only():
    rules_of(a_venue(), NOW)
    rules_of(a_venue(), later(5))
    audit = Event.objects.get(subject="venue", event="rules_first")
    assert (audit.actor, audit.why) == ("broker", "The first version: the defaults.")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("ledger_may_be_flushed")
def test_first_rules_that_many_workers_make_at_once_are_told_once():
    venue = a_venue()
    made = together(6, lambda _: rules_of(venue, NOW).pk)
    assert len(set(made)) == 1
    assert Event.objects.filter(subject="venue", event="rules_first").count() == 1


def test_a_preview_says_in_words_what_its_figures_cannot_show():
    short_by_eight_percent()
    shown = rules_preview(venue=a_venue(), changes={"alpha_ppm": 500_000}, now=later(9000))
    assert (shown.affected, [e.difference_micro for e in shown.effects]) == (0, [0, 0])
    [note] = shown.notes
    assert note.startswith("alpha_ppm takes effect in the dividends")
    other = rules_preview(venue=a_venue(), changes={"kappa_ppm": 0}, now=later(9000))
    assert (other.affected, other.notes) == (1, ())


def test_every_rule_that_moves_no_contract_s_money_has_its_words():
    """Each of the others is read by the settlement itself, or by the bonds."""
    moving = {"kappa_ppm", "dead_band_ppm", "bond_ppm", "non_start_ppm", "tolerance_ppm"}
    assert set(ELSEWHERE) == set(FIELDS) - moving - {"start_allowance_s"}


def test_a_preview_takes_the_bonds_as_each_site_s_record_moves_them():
    contract = short_by_eight_percent()
    SiteRecord.objects.create(site=contract.lease.site, score=0.0, bond_ppm=1, updated_at=NOW)
    shown = rules_preview(venue=a_venue(), changes={"bond_ppm": 100_000}, now=later(9000))
    assert shown.bonds_after_micro == contract.payment_micro * 3 // 10


def test_every_rule_can_be_changed_but_those_that_say_who_and_when():
    others = {"id", "created_at", "venue", "version", "actor", "why", "preview_sha256"}
    assert {f.name for f in Rules._meta.concrete_fields} == set(FIELDS) | others


def test_a_change_is_the_next_version_with_an_audit_entry_and_contracts_keep_theirs():
    contract = short_by_eight_percent()
    made = change({"kappa_ppm": 1_000_000, "bond_ppm": 300_000})
    assert (made.version, made.kappa_ppm, made.bond_ppm, made.dead_band_ppm) == (
        *(2, 1_000_000, 300_000),
        50_000,
    )
    assert rules_of(a_venue(), later(0)).pk == made.pk
    audit = Event.objects.get(subject="venue", event="rules_set")
    assert (audit.actor, audit.code) == ("user:op", made.preview_sha256)
    assert "kappa_ppm 500000 → 1000000" in audit.why
    assert "as agreed" in audit.why
    contract.refresh_from_db()
    assert (contract.rules.version, contract.penalty_micro) == (1, 1_004_880)
    assert [r.version for r in rules_history(a_venue())] == [2, 1]


@pytest.mark.parametrize(
    "field", ["alpha_ppm", "kappa_ppm", "dead_band_ppm", "bond_ppm", "window_s"]
)
def test_no_rule_is_set_without_its_preview(field):
    changes = {field: 123_456}
    with pytest.raises(Refused) as refusal:
        change(changes, preview=False, preview_sha256="")
    assert refusal.value.code == "preview_needed"
    with pytest.raises(Refused):
        change(changes, preview=False, preview_sha256="0" * 64)
    assert not Rules.objects.filter(version__gt=1).exists()
    assert not Event.objects.filter(event="rules_set").exists()
    assert getattr(change(changes), field) == 123_456


def test_a_preview_holds_for_its_change_its_version_and_a_while():
    venue = a_venue()
    shown = rules_preview(venue=venue, changes={"kappa_ppm": 1}, now=later(0))
    fresh = {"preview": False, "preview_sha256": shown.sha256}
    stale = PREVIEW_FRESH.total_seconds()
    for changes, at in (({"kappa_ppm": 2}, 1), ({"kappa_ppm": 1}, stale)):
        with pytest.raises(Refused) as refusal:
            change(changes, at=at, **fresh)
        assert refusal.value.code == "preview_needed"
    change({"bond_ppm": 9}, at=2)
    with pytest.raises(Refused):  # other rules stand by now
        change({"kappa_ppm": 1}, at=3, **fresh)
    shown = rules_preview(venue=venue, changes={"kappa_ppm": 1}, now=later(4))
    assert change({"kappa_ppm": 1}, at=5, preview=False, preview_sha256=shown.sha256).version == 3


def test_a_preview_says_what_the_last_contracts_would_have_paid():
    short_by_eight_percent()
    shown = rules_preview(venue=a_venue(), changes={"kappa_ppm": 1_000_000}, now=later(9000))
    assert (shown.contracts, shown.affected, shown.changes) == (1, 1, {"kappa_ppm": 1_000_000})
    effects = {e.member: (e.before_micro, e.after_micro, e.difference_micro) for e in shown.effects}
    paid, penalty = 61_632_640, 1_004_880
    assert effects == {
        "alder": (paid - penalty, paid - 2 * penalty, -penalty),
        "birch": (penalty - paid, 2 * penalty - paid, penalty),
    }
    assert (shown.bonds_before_micro, shown.bonds_after_micro) == (13_398_400, 13_398_400)
    wide = rules_preview(venue=a_venue(), changes={"dead_band_ppm": 80_000}, now=later(9000))
    assert [e.difference_micro for e in wide.effects] == [penalty, -penalty]
    low = rules_preview(venue=a_venue(), changes={"bond_ppm": 10_000}, now=later(9000))
    assert (low.bonds_after_micro, low.effects[0].difference_micro) == (669_920, penalty - 669_920)
    nothing = rules_preview(venue=a_venue(), changes={"alpha_ppm": 500_000}, now=later(9000))
    assert nothing.affected == 0


def test_what_was_decided_stays_as_decided_in_a_preview():
    contract = short_by_eight_percent()
    dispute = dispute_open(
        contract=contract, by="site", actor="s", code="c", why="w", claimed=None, now=later(4000)
    )
    dispute_decide(dispute=dispute, accepted=0, cause="site", why="w", actor="o", now=later(4001))
    shown = rules_preview(venue=a_venue(), changes={"kappa_ppm": 0}, now=later(9000))
    assert (shown.contracts, shown.affected) == (1, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kappa_ppm", -1),
        ("kappa_ppm", 1_000_001),
        ("kappa_ppm", 0.5),
        ("kappa_ppm", "5"),
        ("kappa_ppm", True),
        ("kappa_ppm", None),
        ("window_s", -1),
        ("window_s", float("nan")),
        ("window_s", float("inf")),
        ("window_s", 10**400),
        ("start_allowance_s", 86_401),
        ("member_credit_micro", 10**16),
        ("price_caps", {"A100": 0}),
        ("price_caps", {"A100": 1.5}),
        ("price_caps", ["A100"]),
        ("price_caps", {"": 1}),
        ("time_zone", "Mars/Olympus"),
        ("time_zone", "../../etc/passwd"),
        ("time_zone", ""),
        ("version", 7),
        ("no_such_rule", 7),
    ],
)
def test_a_change_that_makes_no_sense_is_bad_input(name, value):
    with pytest.raises(BadInput) as refusal:
        rules_preview(venue=a_venue(), changes={name: value}, now=later(0))
    assert [p.path for p in refusal.value.problems] == [name]
    with pytest.raises(BadInput):
        change({name: value}, preview=False, preview_sha256="0" * 64)
    assert Rules.objects.count() == 1


def test_a_change_of_nothing_and_one_without_a_reason_are_bad_input():
    with pytest.raises(BadInput):
        rules_preview(venue=a_venue(), changes={"kappa_ppm": 500_000}, now=later(0))
    with pytest.raises(BadInput):
        change({"kappa_ppm": 1}, why=" ")


def test_all_rules_at_once_keep_what_was_typed():
    wanted = {
        **{name: 7 for name in FIELDS if name.endswith(("_ppm", "_micro"))},
        **{"window_s": 60, "start_allowance_s": 1.5},
        **{"price_caps": {"A100": 9_000_000}, "time_zone": "Europe/Berlin"},
    }
    assert rules_values(change(wanted)) == wanted


def test_the_database_itself_refuses_to_change_a_version():
    rules = rules_of(a_venue(), NOW)
    for act in (
        lambda: Rules.objects.filter(pk=rules.pk).update(kappa_ppm=0),
        lambda: Rules.objects.filter(pk=rules.pk).delete(),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            act()
    assert Rules.objects.get().kappa_ppm == 500_000


def test_members_agree_to_the_rules_that_stand():
    a_site("north", member=a_member("alder"))
    a_site("south", member=a_member("clover"))
    first = rules_of(a_venue(), NOW)
    assert consent_missing(first) == ["alder", "clover"]
    given = consent_give(rules=first, member=a_member("alder"), actor="user:a", now=later(1))
    again = consent_give(rules=first, member=a_member("alder"), actor="user:b", now=later(2))
    assert given.pk == again.pk
    assert Event.objects.filter(event="consent").count() == 1
    assert consent_missing(first) == ["clover"]
    second = change({"alpha_ppm": 500_000})
    assert consent_missing(second) == ["alder", "clover"]
    with pytest.raises(Refused) as refusal:
        consent_give(rules=first, member=a_member("clover"), actor="t", now=later(3))
    assert refusal.value.code == "superseded_rules"
