"""Reads of a venue's rules: versions, consents, and what other rules would have paid."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from economics.settlement import PPM
from federation.affinity.reputation import bond_rate
from federation.machines.contract import ContractState
from federation.models import Consent, Contract, Member, Rules, SiteRecord, Venue
from federation.selectors.figures import figures_of

LAST = 200  #: settled contracts that a preview looks at
#: fields that a change of the rules may name
FIELDS = (
    *("alpha_ppm", "dividend_cap_ppm", "kappa_ppm", "dead_band_ppm", "bond_ppm", "non_start_ppm"),
    *("tolerance_ppm", "earnest_ppm", "decay_ppm", "window_s", "start_allowance_s"),
    *("member_credit_micro", "issue_per_gpu_hour_micro", "price_caps", "time_zone"),
)
#: fields that move no settled contract's money -> what their change does instead
ELSEWHERE = {
    "alpha_ppm": "takes effect in the dividends of the epochs that are proposed from now on",
    "dividend_cap_ppm": "takes effect in the dividends of the epochs that are proposed from now on",
    "earnest_ppm": "takes effect when a job is submitted",
    "decay_ppm": "takes effect in the credits that lie unused",
    "window_s": "takes effect in the time for objections to contracts made from now on",
    "member_credit_micro": "takes effect when a bond is held: how far earnings may go below zero",
    "issue_per_gpu_hour_micro": "takes effect in the credits issued for contracts made from now on",
    "price_caps": "takes effect in the prices of the next rounds",
    "time_zone": "takes effect in the weeks and days of statements and of the decay of credits",
}


@dataclass(frozen=True, slots=True)
class Effect:
    """What one member gained net from the contracts looked at, micro-credits: as a seller and as
    the owner of tenants together."""

    member: str
    before_micro: int
    after_micro: int

    @property
    def difference_micro(self) -> int:
        return self.after_micro - self.before_micro


@dataclass(frozen=True, slots=True)
class Preview:
    """What the last settled contracts would have paid under other rules."""

    venue: str
    version: int  #: of the rules that stand
    at: datetime
    changes: dict[str, Any]
    contracts: int  #: looked at
    affected: int  #: of these, with another payment or penalty
    bonds_before_micro: int
    bonds_after_micro: int
    effects: tuple[Effect, ...]
    notes: tuple[str, ...] = ()  #: sentences: what changes that the figures cannot show

    @property
    def sha256(self) -> str:
        """Digest of all that was shown."""
        return digest({**asdict(self), "at": self.at.isoformat()})


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a document's canonical text."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def rules_newest(venue: Venue) -> Rules | None:
    """The rules that stand in a venue; None before its first contract or change."""
    return Rules.objects.filter(venue=venue).order_by("-version").first()


def rules_history(venue: Venue) -> QuerySet[Rules]:
    """Every version of a venue's rules, the newest first."""
    return Rules.objects.filter(venue=venue).order_by("-version")


def rules_values(rules: Rules) -> dict[str, Any]:
    """The settings of a version, by name."""
    return {name: getattr(rules, name) for name in FIELDS}


def bond_rates(rules: Rules, sites: Collection[UUID]) -> dict[UUID, int]:
    """Site -> rate of its bonds, in parts per million: the rules' own, as its record's score moves
    it. A site of which nothing is known yet has the rules' own."""
    records = SiteRecord.objects.filter(site_id__in=sites, bond_ppm__isnull=False)
    known = dict(records.values_list("site_id", "score"))
    return {
        site: bond_rate(rules.bond_ppm, known[site]) if site in known else rules.bond_ppm
        for site in sites
    }


def bond_micro(payment_micro: int, rate_ppm: int) -> int:
    """The bond of a contract, micro-credits, rounded down."""
    return payment_micro * rate_ppm // PPM


def members_of(venue: Venue) -> QuerySet[Member]:
    """Members that have a site in a venue: those whose consent its rules want."""
    return Member.objects.filter(sites__venue=venue).distinct().order_by("name")


def consent_missing(rules: Rules) -> list[str]:
    """Names of the venue's members that have not agreed to a version, sorted."""
    agreed = Consent.objects.filter(rules=rules).values("member")
    return list(members_of(rules.venue).exclude(pk__in=agreed).values_list("name", flat=True))


def rules_compared(venue: Venue, standing: Rules, changed: Rules, now: datetime) -> Preview:
    """The last settled contracts of a venue under `changed`, beside what they did pay.

    Bonds are taken at the changed rate where that changes, each site's by its record, else as they
    were held. Contracts that a decision has settled stay as decided. What the rules say of
    dividends, credit and windows moves no contract's money: the notes say where it takes effect.
    """
    before: dict[str, int] = defaultdict(int)
    after: dict[str, int] = defaultdict(int)
    affected = bonds_before = bonds_after = 0
    contracts = _last_settled(venue)
    rates = bond_rates(changed, {contract.lease.site_id for contract in contracts})
    for contract in contracts:
        was = (contract.paid_micro or 0, contract.penalty_micro or 0)
        bonds_before += contract.bond_micro
        if changed.bond_ppm != standing.bond_ppm:
            rate = rates[contract.lease.site_id]
            contract.bond_micro = bond_micro(contract.payment_micro, rate)
        bonds_after += contract.bond_micro
        would = was if _decided(contract) else _would(contract, changed)
        affected += would != was
        seller = contract.lease.site.member.name
        buyer = contract.lease.job.tenant.member.name
        for (pay, penalty), sums in ((was, before), (would, after)):
            sums[seller] += pay - penalty
            sums[buyer] -= pay - penalty
    names = sorted({*before, *after})
    values = rules_values(standing)
    changes = {name: new for name, new in rules_values(changed).items() if new != values[name]}
    return Preview(
        venue=venue.name,
        version=standing.version,
        at=now,
        changes=changes,
        contracts=len(contracts),
        affected=affected,
        bonds_before_micro=bonds_before,
        bonds_after_micro=bonds_after,
        effects=tuple(Effect(name, before[name], after[name]) for name in names),
        notes=_notes(changes),
    )


def _notes(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence for each changed field that moves no settled contract's money."""
    return tuple(
        f"{name} {ELSEWHERE[name]}; it moves no settled contract's money."
        for name in changes
        if name in ELSEWHERE
    )


def _last_settled(venue: Venue) -> list[Contract]:
    rows = Contract.objects.filter(
        lease__job__venue=venue,
        rules__isnull=False,
        state__in=[ContractState.SETTLED, ContractState.FINAL],
    )
    rows = rows.select_related("lease__job__tenant__member", "lease__site__member", "rules")
    return list(rows.prefetch_related("disputes").order_by("-settled_at", "pk")[:LAST])


def _would(contract: Contract, rules: Rules) -> tuple[int, int]:
    outcome = figures_of(contract, rules=rules).outcome
    return outcome.pay_micro, outcome.penalty_micro


def _decided(contract: Contract) -> bool:
    return any(dispute.accepted is not None for dispute in contract.disputes.all())
