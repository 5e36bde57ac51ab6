"""What GPU time given to others earns, and what unused credits lose, by the record alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import Q, Sum
from django.db.models.functions import Coalesce

from federation.models import Contract, Entry, EntryGroup, Rules
from federation.selectors.figures import gpu_ms_reported

MILLION = 1_000_000
MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one contract's GPU time earns its seller: GPU-milliseconds, micro-credits."""

    gpu_ms: int
    per_gpu_hour_micro: int
    amount_micro: int


def contribution_of(
    contract: Contract, rules: Rules | None, *, until: datetime | None = None
) -> Contribution:
    """The credits of a contract under some rules, rounded down; none without rules.

    GPU time is that of the stored reports, or of those received until then: the running total
    depends on the order in which they came. More than was contracted is not counted, as it is not
    paid.
    """
    gpu_ms = gpu_ms_reported(contract, until=until)
    if gpu_ms is None:
        gpu_ms = int(contract.gpu_seconds * 1000)
    if contract.price_micro:
        gpu_ms = min(gpu_ms, contract.payment_micro * MS_PER_HOUR // contract.price_micro)
    rate = rules.issue_per_gpu_hour_micro if rules else 0
    return Contribution(gpu_ms, rate, gpu_ms * rate // MS_PER_HOUR)


def week_of(now: datetime, time_zone: str) -> tuple[datetime, str]:
    """When the week of `now` began in a time zone, and its name as in ISO 8601."""
    local = now.astimezone(ZoneInfo(time_zone))
    year, week, day = local.isocalendar()
    monday = local.date() - timedelta(days=day - 1)
    begun = datetime(monday.year, monday.month, monday.day, tzinfo=ZoneInfo(time_zone))
    return begun, f"{year}-W{week:02}"


def faded_micro(carried_micro: int, decay_ppm: int) -> int:
    """What unused credits lose in a week, rounded down."""
    return max(0, carried_micro) * decay_ppm // MILLION


def issue_again(group: EntryGroup) -> int:
    """What a group that issued credits for a contract should have issued, micro-credits."""
    contract = group.contract
    if contract is None:
        raise ValueError("credits that were issued for no contract follow from nothing")
    rules = contract.rules
    if rules is None:
        versions = Rules.objects.filter(venue=contract.lease.job.venue_id)
        rate = group.facts.get("per_gpu_hour_micro")
        rules = _said(versions.filter(issue_per_gpu_hour_micro=rate), group)
    return contribution_of(contract, rules, until=group.created_at).amount_micro


def decay_again(group: EntryGroup, purse: UUID) -> int:
    """What should have faded of a purse at a group's place in the order of its entries."""
    ppm = group.facts.get("decay_ppm")
    rules = _said(Rules.objects.filter(venue__currency=group.currency, decay_ppm=ppm), group)
    if rules is None:
        return 0
    begun, week = week_of(group.created_at, rules.time_zone)
    if group.key != f"decay:{purse}:{week}":
        return 0
    own = Entry.objects.filter(group=group, account=purse).values("pk")[:1]
    before = Entry.objects.filter(account=purse, pk__lt=own)
    since = Sum("amount_micro", filter=Q(group__created_at__gte=begun))
    sums = before.aggregate(held=Coalesce(Sum("amount_micro"), 0), since=Coalesce(since, 0))
    return faded_micro(min(sums["held"], sums["held"] - sums["since"]), rules.decay_ppm)


def _said(versions: Any, group: EntryGroup) -> Rules | None:
    """The version that a group's facts name; of an older group, the newest that there was."""
    if "rules" in group.facts:
        versions = versions.filter(version=group.facts["rules"])
    else:
        versions = versions.filter(created_at__lte=group.created_at)
    found: Rules | None = versions.order_by("-version").first()
    return found
