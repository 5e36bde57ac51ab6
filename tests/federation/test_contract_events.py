"""Ten thousand random events of contracts, with repeats, in any order, with workers that die.

What each contract must come to is worked out here from the script alone, with fractions, without
the product's own settlement.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from fractions import Fraction

import pytest

from federation.machines.contract import ContractState
from federation.models import Account, Contract, Dispute, EntryGroup, Job
from federation.selectors.contracts import job_differences, recompute
from federation.services.contracts import (
    contracts_finalise,
    contracts_measure,
    contracts_settle,
)
from federation.services.counts import count_add
from federation.services.disputes import dispute_decide, dispute_open, dispute_withdraw
from federation.services.leases import Ending
from federation.services.reports import reports_accept
from tests.federation.contract_scene import Scene, a_scene, purse, the_ledger_holds
from tests.federation.crashes import Crash, crash_at
from tests.support.world import SimAgent, a_member, a_site, a_tenant, later

pytestmark = pytest.mark.django_db
EVENTS = 10_000
LEASES = 110
CREDITS = 1_000_000
FAR = 10**7  #: seconds, after every window
KAPPA, BAND, BOND, TOLERANCE = (Fraction(n, 100) for n in (50, 5, 20, 2))
ALLOWANCE = 60
ENDS = ("exited", "exited", "cancelled", "outbid", "driver_failed", "declined", "withdrawn")


@dataclass
class Sold:
    """One contract of the script, and what is decided of it."""

    terms: dict[str, int]
    opened: float
    planned: float
    delivered: int = 0
    counted: int | None = None
    gpu_ms: int = 0  #: highest total under it
    over: float | None = None  #: when the market ended it
    word: tuple[int, str] | None = None


@dataclass
class Play:
    """One lease of the script: what will happen to it, and what has yet to be heard of it."""

    scene: Scene
    sold: list[Sold]
    rounds: int  #: contracts in all
    finish: str  #: how it ends
    unheard: list = field(default_factory=list)  #: reports under way
    stuck: list = field(default_factory=list)  #: those that the next contract's overtake
    heard: list = field(default_factory=list)
    counts: list = field(default_factory=list)  #: (contract's place, seq, samples, last)
    over: bool = False


def terms_drawn(draw):
    price = draw.randint(1, 10**7)
    return {
        "payment_micro": draw.choice([0, draw.randint(1, 999), draw.randint(10**6, 10**8)]),
        "contracted": draw.choice([1, draw.randint(2, 999), draw.randint(10**4, 10**6)]),
        "price_micro": price,
        "reserve_micro": draw.randint(0, price),
    }


def a_play(draw, tenant, site, finish):
    terms, planned = terms_drawn(draw), draw.randint(1000, 60_000)
    scene = a_scene(tenant=tenant, site=site, taken=False, **terms, ends_at=later(planned))
    rounds = 1 if finish in ("declined", "withdrawn") else draw.randint(1, 4)
    return Play(scene, [Sold(terms, 0.0, planned)], rounds, finish)


def works(play, draw):
    """The agent works under the newest contract: some more reports are under way."""
    sold, scene = play.sold[-1], play.scene
    for _ in range(draw.randint(1, 9)):
        sold.delivered += draw.randint(
            0, max(1, sold.terms["contracted"] // draw.choice([4, 12, 40]))
        )
        sold.gpu_ms = max([s.gpu_ms for s in play.sold]) + draw.randint(0, 3000) * 5_000
        play.unheard.append(
            scene.report(
                sold.delivered,
                total=sum(s.delivered for s in play.sold),
                gpu_seconds=sold.gpu_ms / 1000,
            )
        )


def counts(play, draw):
    """The tenant's trainer counts under the newest contract, more or less what the agent does."""
    sold, place = play.sold[-1], len(play.sold) - 1
    if draw.random() < 0.4:
        return
    off = draw.choice([0, 0, 0.01, 0.015, 0.2])
    last = (
        int(sold.delivered * (1 - off)) if draw.random() < 0.7 else int(sold.delivered * (1 + off))
    )
    steps = sorted(draw.randint(0, last) for _ in range(draw.randint(0, 3)))
    play.counts += [(place, at, n, False) for at, n in enumerate(steps, 1)]
    play.counts.append((place, len(steps) + 1, last, True))
    sold.counted = last


def goes_on(play, draw, at):
    """The next turn of a lease: the next round's contract, or its end."""
    late, play.stuck = play.stuck, []
    if play.finish not in ("declined", "withdrawn"):
        works(play, draw)
        counts(play, draw)
        if draw.random() < 0.6:
            play.stuck = [play.unheard.pop(), *play.stuck]
    play.unheard += late
    sold = play.sold[-1]
    if len(play.sold) < play.rounds:
        terms, planned = terms_drawn(draw), draw.randint(1000, 60_000)
        play.scene.next(at, **terms, ends_at=later(at + planned))
        sold.over = at
        play.sold.append(Sold(terms, at, planned))
        return
    if play.finish in ("cancelled", "outbid", "withdrawn"):
        play.scene.ask_back(at, "cancelled" if play.finish == "cancelled" else "outbid")
        sold.over = at
    if play.finish != "withdrawn":
        reason = "revoked" if play.finish in ("cancelled", "outbid") else play.finish
        play.unheard.append(
            play.scene.report(
                sold.delivered,
                total=sum(s.delivered for s in play.sold),
                gpu_seconds=max(s.gpu_ms for s in play.sold) / 1000,
                ending=Ending(reason, 1 if reason == "exited" else None),
            )
        )
        sold.gpu_ms = max(s.gpu_ms for s in play.sold)
    play.over = True


def hears(play, draw, at):
    """Some reports arrive in one batch: new ones and old ones, in any order; or are lost."""
    new = draw.sample(play.unheard, min(len(play.unheard), draw.randint(0, 4)))
    old = draw.choices(play.heard, k=draw.randint(0, 5)) if play.heard else []
    batch = new + old + (new[:1] if draw.random() < 0.2 else [])
    draw.shuffle(batch)
    reports_accept(site=play.scene.agent.site, reports=batch, now=later(at))
    play.unheard = [r for r in play.unheard if r not in new]
    play.heard += new
    return len(batch)


def counted(play, draw, at):
    """One count arrives, perhaps again."""
    place, seq, samples, last = draw.choice(play.counts)
    contract = play.scene.contracts[place]
    count_add(
        contract=contract, seq=seq, samples=samples, last=last, actor="trainer", now=later(at)
    )


def an_objection(plays, draw, at):
    """Somebody objects to a settled contract that nobody of its side has objected to."""
    by = draw.choice(["tenant", "site"])
    settled = Contract.objects.filter(state="settled", rules__isnull=False)
    rows = list(settled.exclude(disputes__by=by).order_by("created_at", "pk"))
    if rows:
        contract = draw.choice(rows)
        dispute_open(
            contract=contract, by=by, actor=by, code="x", why="x", claimed=None, now=later(at)
        )


def a_decision(plays, draw, at):
    """One dispute ends; the other contracts' money stays where it is."""
    rows = list(Dispute.objects.filter(state="open").order_by("created_at", "pk"))
    if not rows:
        return
    dispute = draw.choice(rows)
    own = Contract.objects.select_related("lease__job").get(pk=dispute.contract_id)
    others = EntryGroup.objects.exclude(contract=own).count()
    sold = next(
        play.sold[[c.pk for c in play.scene.contracts].index(own.pk)]
        for play in plays
        if own.pk in [c.pk for c in play.scene.contracts]
    )
    if dispute.by != "broker" and draw.random() < 0.3 and not differs(sold, own):
        dispute_withdraw(dispute=dispute, why="", actor="x", now=later(at))
    else:
        word = (
            draw.randint(0, own.contracted * 2),
            draw.choice(["site", "tenant", "market", "none"]),
        )
        dispute_decide(
            dispute=dispute, accepted=word[0], cause=word[1], why="x", actor="x", now=later(at)
        )
        sold.word = word
    assert EntryGroup.objects.exclude(contract=own).count() == others


def differs(sold, contract):
    """The two counters, as far as they were heard, are too far apart and nobody has decided."""
    if sold.word is not None or contract.counted is None:
        return False
    both = contract.delivered, contract.counted
    return Fraction(max(both) - min(both)) > TOLERANCE * max(both)


# --- what each contract must come to -----------------------------------------------------------


def due_of(play, place, accepted, cause):
    """Samples due, and whose doing a shortfall is, by the script. A decision names the cause."""
    sold, newest = play.sold[place], place == len(play.sold) - 1
    total = sold.terms["contracted"]
    by = {"exited": "tenant", "cancelled": "tenant", "outbid": "market"}
    who = by.get(play.finish, "site") if newest else "market"
    if who == "site" or (who == "tenant" and cause == "site"):
        return total, cause or "site"
    if who == "tenant":
        return total, cause or "tenant"
    ran = Fraction(sold.over) - Fraction(sold.opened) - (ALLOWANCE if place == 0 else 0)
    share = min(max(ran, Fraction(0)), Fraction(sold.planned)) / Fraction(sold.planned)
    due = math.floor(total * share)
    return due, cause or ("site" if accepted < due else "market")


def expected(play, place):
    """(pay, penalty) of a contract."""
    if play.finish == "withdrawn":
        return 0, 0  # void
    sold = play.sold[place]
    total, price = sold.terms["contracted"], sold.terms["payment_micro"]
    bond = math.floor(BOND * price)
    if sold.word is not None:
        accepted, cause = sold.word
    else:
        heard = [sold.delivered] if sold.counted is None else [sold.delivered, sold.counted]
        accepted, cause = min(heard), None
    due, cause = due_of(play, place, accepted, cause)
    rate = Fraction(price, total)
    pay = math.floor(rate * min(accepted, total))
    if cause == "tenant" and (sold.word is not None or accepted < total):
        reserve, earlier = sold.terms["reserve_micro"], [s.gpu_ms for s in play.sold[:place]]
        used = Fraction(max(0, sold.gpu_ms - max(earlier, default=0)), 3_600_000)
        bought = Fraction(price, sold.terms["price_micro"])
        cost = min(math.floor(reserve * used), math.floor(reserve * bought), price)
        pay = max(pay, cost)
    if play.finish == "declined" and cause == "site" and accepted == 0:
        return 0, bond
    if cause != "site":
        return pay, 0
    missing = max(0, math.ceil((1 - BAND) * due) - accepted)
    return pay, min(bond, math.ceil(KAPPA * rate * missing))


# --- the walk ------------------------------------------------------------------------------------


def stage(draw):
    """Tenants of three members, sites of two, one of these on both sides. All leases are at their
    agents but those that no agent ever gets."""
    tenants = [a_tenant(member=a_member(m), credits=CREDITS) for m in ("alder", "birch", "clover")]
    sites = [a_site(member=a_member(m), gpus=8) for m in ("alder", "dill")]
    ends = draw.choices(ENDS, k=LEASES)
    plays = [
        a_play(draw, draw.choice(tenants), draw.choice(sites), end)
        for end in ends
        if end != "withdrawn"
    ]
    for site in sites:
        agent = SimAgent(site)
        agent.sync(later(1))
        agent.sync(later(1))
    plays += [
        a_play(draw, draw.choice(tenants), draw.choice(sites), "withdrawn")
        for _ in range(ends.count("withdrawn"))
    ]
    return tenants, sites, plays


def settles(at):
    contracts_measure(now=later(at))
    contracts_settle(now=later(at))


def something(draw, plays, play, at):
    """One step of the walk; how many events it was."""
    step = draw.choices(
        [hears, counted, settles, an_objection, a_decision], weights=[75, 10, 5, 3, 3]
    )[0]
    if step is hears:
        return 1 + hears(play, draw, at)
    if step is counted and play.counts:
        counted(play, draw, at)
    elif step is settles:
        settles(at)
    elif step is not counted:
        step(plays, draw, at)
    return 1


def walk(draw, plays):
    """Events until there were enough; every tenth step dies before one of its statements."""
    events, at = 0, 2.0
    while events < EVENTS:
        at += draw.choice([0, 1, 30])
        play = draw.choice(plays)
        if draw.random() < 0.05 and not play.over:
            goes_on(play, draw, at)  # the script's own turn does not die
            events += 1
            continue
        fatal = draw.randint(0, 40) if draw.random() < 0.1 else 10**9
        try:
            with crash_at(fatal):
                events += something(draw, plays, play, at)
        except Crash:
            events += 1
    return at


def comes_to_an_end(draw, plays, at):
    """All that is under way arrives; all is settled, decided and final."""
    for play in plays:
        while not play.over:
            at += 50
            goes_on(play, draw, at)
        reports_accept(
            site=play.scene.agent.site, reports=[*play.unheard, *play.stuck], now=later(at)
        )
        for place, seq, samples, last in play.counts:
            count_add(
                contract=play.scene.contracts[place],
                seq=seq,
                samples=samples,
                last=last,
                actor="trainer",
                now=later(at),
            )
    contracts_measure(now=later(at))
    contracts_settle(now=later(at))
    while Dispute.objects.filter(state="open").exists():
        a_decision(plays, draw, at)
    the_ledger_holds()
    contracts_finalise(now=later(FAR))


@pytest.mark.slow
def test_ten_thousand_events_come_to_what_the_script_says():
    draw = random.Random(20261121)
    tenants, sites, plays = stage(draw)
    at = walk(draw, plays)
    the_ledger_holds()
    comes_to_an_end(draw, plays, at)
    paid: dict[object, int] = {}
    for play in plays:
        for place, opened in enumerate(play.scene.contracts):
            contract = Contract.objects.select_related("lease").get(pk=opened.pk)
            assert contract.state in (ContractState.FINAL, ContractState.VOIDED)
            pay, penalty = expected(play, place)
            assert (contract.paid_micro, contract.penalty_micro) == (pay, penalty), (play, place)
            assert recompute(contract).differences == ()
            buyer, seller = play.scene.job.tenant_id, contract.lease.site_id
            paid[buyer] = paid.get(buyer, 0) - pay + penalty
            paid[seller] = paid.get(seller, 0) + pay - penalty
    for tenant in tenants:
        assert purse("tenant_cash", tenant) == CREDITS * 10**6 + paid[tenant.pk]
    for site in sites:
        assert purse("member_earnings", site.member) == paid[site.pk]
    held = Account.objects.filter(kind__in=["tenant_escrow", "member_bond"])
    assert not held.exclude(balance_micro=0).exists()
    for job in Job.objects.all():
        assert (job.held_micro, job_differences(job)) == (0, ())
    states = set(Contract.objects.values_list("cause", "state"))
    assert {"site", "tenant", "market", "none"} <= {cause for cause, _ in states}
    assert "voided" in {state for _, state in states}
    assert Dispute.objects.filter(by="broker").exists()
    assert Contract.objects.filter(postings__gt=2).exists()
    the_ledger_holds()
