"""Write side of offers: a site's document becomes an immutable version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max

from federation.admission import Published
from federation.affinity.planner.sheets import SAID_RULES
from federation.errors import BadInput, FieldProblem
from federation.machines.offer import OfferState
from federation.models import JobClass, Offer, OfferAffinity, OfferPool, Pool, Site
from federation.models.base import name_validator
from federation.money import MAX_MICRO, to_micro
from federation.services.forgetting import hardware_forget, same_hardware
from federation.services.story import move, tell

MAX_POOLS = 200
MAX_AFFINITIES = 20_000
MAX_GPUS = 1_000_000
MAX_SPEED = 1e12
MAX_PATTERNS = 1000  #: names in one list of a site's rules
MAX_PATTERN = 64  #: characters of one of them


@dataclass(frozen=True, slots=True)
class PoolLine:
    name: str
    gpu: str
    gpus: int
    reserve: str  #: credits per GPU-hour, decimal text
    device: Mapping[str, float] = field(default_factory=dict)  #: what the site says of a GPU


@dataclass(frozen=True, slots=True)
class AffinityLine:
    pool: str
    job_class: str
    gpus: int
    samples_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class OfferDraft:
    """What a site puts on offer, as its agent sent it."""

    digest: str
    pools: Sequence[PoolLine]
    affinities: Sequence[AffinityLine]
    valid_from: datetime | None
    valid_until: datetime | None
    note: str
    rules: Published | None = None  #: what the site says of jobs that it does not take


def offer_submit(*, site: Site, draft: OfferDraft, now: datetime) -> Offer:
    """Put a site's offer on the market as its next version; the earlier one is superseded.

    The same document again returns the current version. Raises BadInput with one problem for each
    field that does not fit; nothing is stored then.
    """
    current = _current(site)
    if current is not None and current.digest == draft.digest:
        return current
    problems = [
        *_pool_problems(draft),
        *_affinity_problems(draft),
        *_window_problems(draft, now),
        *(_rules_problems(draft.rules) if draft.rules else ()),
    ]
    if problems:
        raise BadInput(*problems[:50])
    with transaction.atomic():
        Site.objects.select_for_update(of=("self",)).get(pk=site.pk)  # one offer at a time
        current = _current(site)
        if current is not None and current.digest == draft.digest:
            return current
        if current is not None:
            move(current, "supersede", now=now, actor=f"agent:{site.name}")
        version = Offer.objects.filter(site=site).aggregate(top=Max("version"))["top"] or 0
        offer = Offer.objects.create(
            site=site,
            version=version + 1,
            digest=draft.digest,
            state=OfferState.ACTIVE,
            valid_from=draft.valid_from or now,
            valid_until=draft.valid_until,
            note=draft.note,
            rules={} if draft.rules is None else draft.rules.document(),
            created_at=now,
        )
        _write_lines(offer, draft, now)
        tell("offer", offer.pk, "submit", now=now, actor=f"agent:{site.name}")
        tell("site", site.pk, "offer", now=now, actor=f"agent:{site.name}", why=f"v{version + 1}")
    return offer


def _current(site: Site) -> Offer | None:
    return Offer.objects.filter(site=site, state__in=[OfferState.ACTIVE, OfferState.PAUSED]).first()


def offers_expire(*, now: datetime, limit: int = 500) -> list[UUID]:
    """End offers whose window is over; their sites are asked for new ones by their next sync."""
    over = Offer.objects.filter(
        state__in=[OfferState.ACTIVE, OfferState.PAUSED], valid_until__lte=now
    )
    return [offer.pk for offer in over[:limit] if move(offer, "expire", now=now, code="window")]


def _write_lines(offer: Offer, draft: OfferDraft, now: datetime) -> None:
    pools = {
        line.name: Pool.objects.get_or_create(
            site=offer.site, name=line.name, defaults={"gpu": line.gpu, "created_at": now}
        )[0]
        for line in draft.pools
    }
    changed = []
    for line in draft.pools:
        pool = pools[line.name]
        if pool.gpu != line.gpu:
            was, pool.gpu = pool.gpu, line.gpu
            pool.save(update_fields=["gpu"])  # and its row is locked: a refit waits, or was before
            if not same_hardware(was, line.gpu):
                changed.append((pool, was))
    if changed:
        hardware_forget(changed=changed, actor=f"agent:{offer.site.name}", now=now)
    OfferPool.objects.bulk_create(
        OfferPool(
            offer=offer,
            pool=pools[line.name],
            gpus=line.gpus,
            reserve_micro=to_micro(Decimal(line.reserve)),
            device=dict(line.device),
        )
        for line in draft.pools
    )
    names = {line.job_class for line in draft.affinities}
    classes = JobClass.objects.in_bulk(names, field_name="name")
    OfferAffinity.objects.bulk_create(
        OfferAffinity(
            offer=offer,
            pool=pools[line.pool],
            job_class=classes[line.job_class],
            gpus=line.gpus,
            samples_per_s=line.samples_per_s,
            source=line.source,
        )
        for line in draft.affinities
    )


def _pool_problems(draft: OfferDraft) -> list[FieldProblem]:
    if not draft.pools or len(draft.pools) > MAX_POOLS:
        return [FieldProblem("pools", f"an offer names 1 to {MAX_POOLS} pools")]
    problems = []
    seen: set[str] = set()
    for i, line in enumerate(draft.pools):
        at = f"pools[{i}]"
        if line.name in seen:
            problems.append(FieldProblem(f"{at}.name", f"{line.name} stands twice"))
        seen.add(line.name)
        problems += _name_problems(f"{at}.name", line.name)
        if "." in line.name:  # "site.pool" must name one pool
            problems.append(FieldProblem(f"{at}.name", "a pool's name has no dot"))
        problems += _name_problems(f"{at}.gpu", line.gpu)
        if not 0 <= line.gpus <= MAX_GPUS:
            problems.append(FieldProblem(f"{at}.gpus", f"0 to {MAX_GPUS} GPUs"))
        problems += _reserve_problems(f"{at}.reserve", line.reserve)
        problems += _device_problems(at, line.device)
    return problems


def _name_problems(path: str, name: str) -> list[FieldProblem]:
    try:
        name_validator(name)
    except ValidationError as error:
        return [FieldProblem(path, str(error.messages[0]))]
    return []


def _reserve_problems(path: str, text: str) -> list[FieldProblem]:
    try:
        value = Decimal(text)
        fits = value.is_finite() and 0 <= value <= MAX_MICRO and to_micro(value) <= MAX_MICRO
    except InvalidOperation:
        fits = False
    if fits:
        return []
    return [FieldProblem(path, "credits per GPU-hour as decimal text, not negative")]


def _device_problems(path: str, device: Mapping[str, float]) -> list[FieldProblem]:
    """Figures that no GPU has; a whole number of GPUs in a node."""
    unknown = [
        FieldProblem(f"{path}.{name}", f"unknown; known are {', '.join(SAID_RULES)}")
        for name in device
        if name not in SAID_RULES
    ]
    found = (
        rule.problem(f"{path}.{name}", device[name])
        for name, rule in SAID_RULES.items()
        if name in device
    )
    return [*unknown, *(FieldProblem(one.path, one.why) for one in found if one is not None)]


def _affinity_problems(draft: OfferDraft) -> list[FieldProblem]:
    if len(draft.affinities) > MAX_AFFINITIES:
        return [FieldProblem("affinities", f"at most {MAX_AFFINITIES} rows")]
    pools = {line.name for line in draft.pools}
    known = set(
        JobClass.objects.filter(name__in={a.job_class for a in draft.affinities}).values_list(
            "name", flat=True
        )
    )
    problems = []
    seen: set[tuple[str, str, int]] = set()
    for i, line in enumerate(draft.affinities):
        cell = (line.pool, line.job_class, line.gpus)
        if cell in seen:
            why = "this pool, class and GPU count stands twice"
            problems.append(FieldProblem(f"affinities[{i}]", why))
        seen.add(cell)
        problems += _line_problems(line, f"affinities[{i}]", pools, known)
    return problems


def _line_problems(
    line: AffinityLine, at: str, pools: set[str], known: set[str]
) -> list[FieldProblem]:
    problems = []
    if line.pool not in pools:
        problems.append(FieldProblem(f"{at}.pool", f"{line.pool} is not a pool of this offer"))
    if line.job_class not in known:
        why = f"{line.job_class} is not a registered job class"
        problems.append(FieldProblem(f"{at}.job_class", why, "unknown_class"))
    if not 1 <= line.gpus <= MAX_GPUS:
        problems.append(FieldProblem(f"{at}.gpus", "at least one GPU"))
    if not 0 < line.samples_per_s <= MAX_SPEED:
        problems.append(FieldProblem(f"{at}.samples_per_s", "a positive speed in samples/s"))
    if line.source not in OfferAffinity.Source.values:
        problems.append(FieldProblem(f"{at}.source", "declared or probed"))
    return problems


def _rules_problems(rules: Published) -> list[FieldProblem]:
    problems = []
    if not 1 <= len(rules.digest) <= MAX_PATTERN:
        problems.append(FieldProblem("policy.digest", f"1 to {MAX_PATTERN} characters"))
    for name in ("tenants_allow", "tenants_deny", "classes_allow", "classes_deny", "hours"):
        words = getattr(rules, name)
        if len(words) > MAX_PATTERNS or any(len(word) > MAX_PATTERN for word in words):
            why = f"at most {MAX_PATTERNS} entries of {MAX_PATTERN} characters"
            problems.append(FieldProblem(f"policy.{name}", why))
    if len(rules.time_zone) > MAX_PATTERN:
        problems.append(FieldProblem("policy.time_zone", f"at most {MAX_PATTERN} characters"))
    if rules.max_gpus is not None and not 1 <= rules.max_gpus <= MAX_GPUS:
        problems.append(FieldProblem("policy.max_gpus", f"1 to {MAX_GPUS}, or left out"))
    if rules.max_runtime_s is not None and not rules.max_runtime_s > 0:
        problems.append(FieldProblem("policy.max_runtime_s", "more than zero, or left out"))
    return problems


def _window_problems(draft: OfferDraft, now: datetime) -> list[FieldProblem]:
    if draft.valid_until and draft.valid_until <= now:
        return [FieldProblem("valid_until", "lies in the past")]
    if draft.valid_from and draft.valid_until and draft.valid_until <= draft.valid_from:
        return [FieldProblem("valid_until", "must be later than valid_from")]
    return []
