"""The rows of a `hanse.book/1` document as values, read strictly. Units as in formats.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from economics.schema import Fields, Problems, read_number, read_text, read_whole

Row = TypeVar("Row")

POOL_KEYS = ("id", "site", "gpu", "gpus", "reserve")
AFFINITY_KEYS = ("pool", "class", "samples_per_s", "gpus")
TRANSFER_KEYS = ("from", "to", "per_gpu_hour")
FLOOR_KEYS = ("job", "demand")
JOB_KEYS = (
    *("id", "site", "class", "value", "demand", "max_gpus", "gang", "pools", "budget"),
    *("running_on", "move_cost", "extra"),
    *("weight", "attained_gpu_s", "deadline_h", "tenant"),
)
RULE_KEYS = (
    *("policy", "parameters", "epsilon", "core_repair", "seller_share", "price_cap", "nodes"),
)
# What `rules.parameters` may hold under each policy.
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "surplus": (),
    "max_min": (),
    "proportional": (),
    "finish_time": (),
    "makespan": (),
    "allox": ("alpha",),
    "las": ("thresholds",),
    "gittins": ("quantum", "samples"),
}
POLICIES = tuple(PARAMETERS)
DEFAULT_NODES = 20_000


@dataclass(frozen=True, slots=True)
class PoolRow:
    id: str
    site: str
    gpu: str
    gpus: int
    reserve: float  # credits per GPU-hour


@dataclass(frozen=True, slots=True)
class AffinityRow:
    pool: str
    job_class: str
    samples_per_s: float  # on `gpus` GPUs together
    gpus: int


@dataclass(frozen=True, slots=True)
class TransferRow:
    home: str
    site: str
    per_gpu_hour: float  # credits


@dataclass(frozen=True, slots=True)
class FloorRow:
    job: str
    demand: float  # Msamples
    path: str


class JobRow(NamedTuple):
    """A tuple, because a book may hold a million of them."""

    id: str
    site: str
    job_class: str
    value: float  # credits per Msample
    demand: float  # Msamples; inf = as much as fits
    max_gpus: float  # inf = unlimited
    gang: tuple[int, ...]  # GPUs, any one of the sizes; empty = divisible
    pools: frozenset[str] | None  # None = everywhere
    budget: float  # credits; inf = unlimited
    running_on: str | None
    move_cost: float  # credits
    extra: Mapping[str, float]  # {pool: credits per GPU-hour}
    # For policies and reports
    weight: float = 1.0  # > 0
    attained_gpu_s: float = 0.0  # GPU-seconds it has run so far
    deadline_h: float = math.inf  # hours from now
    tenant: str = ""

    @property
    def wanted(self) -> float:
        """Msamples a divisible job asks for, as far as its budget pays for them at its own bid."""
        if math.isinf(self.budget) or self.value == 0.0:
            return self.demand
        return min(self.demand, self.budget / self.value)


@dataclass(frozen=True, slots=True)
class Rules:
    policy: str
    parameters: Mapping[str, object]  # {name: a number, or a tuple of numbers}; the policy's own
    epsilon: float  # share of the welfare that price smoothing may cost in regret
    core_repair: bool
    seller_share: float  # 0 = lowest supporting price, 1 = highest
    price_cap: Mapping[str, float]  # {pool: credits per GPU-hour}
    nodes: int  # MILP node limit


def read_pools(book: Fields, problems: Problems) -> tuple[PoolRow, ...]:
    def one(raw: object, path: str) -> PoolRow:
        row = Fields(raw, path, problems, POOL_KEYS)
        gpu = row.text("gpu")
        return PoolRow(
            row.text("id"), row.text("site"), gpu, row.whole("gpus"), row.number("reserve")
        )

    return _unique_rows(book, "pools", one, lambda row: row.id, problems)


def read_affinity(
    book: Fields, pools: Collection[str], problems: Problems
) -> tuple[AffinityRow, ...]:
    def one(raw: object, path: str) -> AffinityRow:
        row = Fields(raw, path, problems, AFFINITY_KEYS)
        pool, job_class = _known(row, "pool", pools), row.text("class")
        return AffinityRow(pool, job_class, row.number("samples_per_s"), row.whole("gpus", 1, 1))

    return _unique_rows(
        book, "affinity", one, lambda row: (row.pool, row.job_class, row.gpus), problems
    )


def read_transfer(book: Fields, problems: Problems) -> tuple[TransferRow, ...]:
    def one(raw: object, path: str) -> TransferRow:
        row = Fields(raw, path, problems, TRANSFER_KEYS)
        return TransferRow(row.text("from"), row.text("to"), row.number("per_gpu_hour"))

    return _unique_rows(book, "transfer", one, lambda row: (row.home, row.site), problems, False)


def read_jobs(book: Fields, pools: Collection[str], problems: Problems) -> tuple[JobRow, ...]:
    def one(raw: object, path: str) -> JobRow:
        return _read_job(Fields(raw, path, problems, JOB_KEYS), pools, problems)

    return _unique_rows(book, "jobs", one, lambda row: row.id, problems)


def read_floors(
    book: Fields, jobs: Mapping[str, JobRow], problems: Problems
) -> tuple[FloorRow, ...]:
    def one(raw: object, path: str) -> FloorRow:
        row = Fields(raw, path, problems, FLOOR_KEYS)
        job = jobs.get(_known(row, "job", jobs))
        if job is not None and job.gang:
            row.refuse("job", f"{job.id} is a gang; only a divisible job can have a floor")
        if job is not None and math.isfinite(job.budget):
            row.refuse("job", f"{job.id} has a budget; a job has a floor or a budget, not both")
        return FloorRow(job.id if job else "", row.number("demand"), path)

    return _unique_rows(book, "floors", one, lambda row: row.job, problems, False)


def read_rules(book: Fields, pools: Mapping[str, PoolRow], problems: Problems) -> Rules:
    row = Fields(book.raw.get("rules", {}), "rules", problems, RULE_KEYS)
    policy = row.text("policy") if "policy" in row else "surplus"
    if policy and policy not in POLICIES:
        row.refuse("policy", f"unknown policy {policy!r}; known: {', '.join(POLICIES)}")
    caps = row.amounts("price_cap", pools, "pool")
    for pool, cap in caps.items():
        if pool in pools and cap < pools[pool].reserve:
            row.refuse(f"price_cap.{pool}", f"is below the pool's reserve {pools[pool].reserve:g}")
    return Rules(
        policy=policy,
        parameters=_read_parameters(row, policy, problems),
        epsilon=row.number("epsilon", 0.005, most=1.0),
        core_repair=row.flag("core_repair", True),
        seller_share=row.number("seller_share", 0.5, most=1.0),
        price_cap=caps,
        nodes=row.whole("nodes", DEFAULT_NODES, 1),
    )


def _read_parameters(rules: Fields, policy: str, problems: Problems) -> Mapping[str, object]:
    """Numbers and lists of numbers under the names the policy knows."""
    raw = rules.raw.get("parameters", {})
    if not isinstance(raw, Mapping):
        rules.refuse("parameters", "must be an object")
        return {}
    known = PARAMETERS.get(policy)
    row = Fields(raw, rules.at("parameters"), problems, raw)
    found: dict[str, object] = {}
    for name, value in raw.items():
        if known is not None and name not in known:
            names = ", ".join(known) or "none"
            row.refuse(name, f"unknown parameter of policy {policy!r}; known: {names}")
        elif isinstance(value, list | tuple):
            items = row.rows(name)
            found[name] = tuple(read_number(item, path, problems) for path, item in items)
        else:
            found[name] = row.number(name)
    return found


def _read_job(row: Fields, pools: Collection[str], problems: Problems) -> JobRow:
    gang = _read_gang(row, problems)
    if gang and "max_gpus" in row:
        row.refuse("max_gpus", "is for divisible jobs; this one is a gang")
    if not gang and "demand" not in row and "max_gpus" not in row:
        row.refuse("demand", "a divisible job needs a demand, max_gpus or both")
    weight = row.number("weight", 1.0)
    if row.raw.get("weight") == 0 and row.raw["weight"] is not False:
        row.refuse("weight", "must be a positive number")
    return JobRow(
        id=row.text("id"),
        site=row.text("site"),
        job_class=row.text("class"),
        value=row.number("value"),
        demand=row.number("demand") if "demand" in row else math.inf,
        max_gpus=row.whole("max_gpus") if "max_gpus" in row else math.inf,
        gang=gang,
        pools=_read_allowed(row, pools, problems),
        budget=row.number("budget") if "budget" in row else math.inf,
        running_on=_known(row, "running_on", pools) if "running_on" in row else None,
        move_cost=row.number("move_cost", 0.0),
        extra=row.amounts("extra", pools, "pool"),
        weight=weight,
        attained_gpu_s=row.number("attained_gpu_s", 0.0),
        deadline_h=row.number("deadline_h") if "deadline_h" in row else math.inf,
        tenant=row.text("tenant") if "tenant" in row else "",
    )


def _read_gang(row: Fields, problems: Problems) -> tuple[int, ...]:
    """Sizes of a gang, ascending: one whole number, or a list of them for an elastic job."""
    if "gang" not in row:
        return ()
    if not isinstance(row.raw["gang"], list | tuple):
        return (row.whole("gang", least=1),)
    sizes = [read_whole(size, path, problems, 1) for path, size in row.rows("gang")]
    if not sizes:
        row.refuse("gang", "must name at least one size")
    if len(set(sizes)) < len(sizes):
        row.refuse("gang", "names a size twice")
    return tuple(sorted(sizes)) or (1,)


def _read_allowed(row: Fields, pools: Collection[str], problems: Problems) -> frozenset[str] | None:
    if "pools" not in row:
        return None
    named = [(path, read_text(pool, path, problems)) for path, pool in row.rows("pools")]
    for at, (path, pool) in enumerate(named):
        if pool and pool not in pools:
            problems.note(path, f"unknown pool {pool!r}")
        elif pool and pool in [earlier for _, earlier in named[:at]]:
            problems.note(path, f"duplicate {pool!r}")
    return frozenset(pool for _, pool in named)


def _known(row: Fields, key: str, ids: Collection[str]) -> str:
    name = row.text(key)
    if name and name not in ids:
        row.refuse(key, f"unknown {'job' if key == 'job' else 'pool'} {name!r}")
    return name


def _unique_rows(
    book: Fields,
    key: str,
    read: Callable[[object, str], Row],
    identity: Callable[[Row], Hashable],
    problems: Problems,
    required: bool = True,
) -> tuple[Row, ...]:
    """The rows of a list in the order of the document; a second one of the same id is refused."""
    found: dict[Hashable, Row] = {}
    for path, raw in book.rows(key, required=required):
        row = read(raw, path)
        name = identity(row)
        if name in found:
            twice = ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
            problems.note(path, f"duplicate {twice}")
        found[name] = row
    return tuple(found.values())
