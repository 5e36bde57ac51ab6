"""What the priors of all cells are learnt from, and which cells want one."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from federation.affinity.coldstart.profile import BadProfile, Profile, read_profile
from federation.affinity.coldstart.tables import Row
from federation.affinity.coldstart.voices import Asked, Measured, column_of
from federation.machines.job import JobState
from federation.machines.offer import OfferState
from federation.models import Job, JobClass, MeasuredAffinity, OfferAffinity, OfferPool

LEARNT_FROM = 400  #: measured cells at once: what is learnt costs time by their cube
KIN = 300  #: of them, kin of the classes asked about at most
FEW = 5  #: leases from which on a cell needs no prior: they outweigh any
SIZES = 6  #: gang sizes of a class that priors are made for, the smallest that are asked for
NETWORKS = 30  #: networks whose timings are learnt from: of operators, and as many of a member
TIMES = 3000  #: timings of theirs, of each of the two: leaving networks out in turn costs time
RATES = (1e-18, 1e18)  #: samples/s that a measured cell may have
STEP = 0.02  #: of the logarithm of a speed: much smaller changes are seldom one

Cell = tuple[UUID, UUID, int]  #: pool, class, GPUs


@dataclass(frozen=True, slots=True)
class PoolOffered:
    pool: UUID
    column: str  #: kind of GPU
    gpus: int


@dataclass(frozen=True, slots=True)
class PriorInputs:
    """One reading of the federation; classes go by the text of their ids."""

    pools: tuple[PoolOffered, ...]
    profiles: Mapping[str, Profile]  #: of every class, by id
    sizes: Mapping[str, tuple[int, ...]]  #: gang sizes asked for, by class; one GPU always
    claimed: frozenset[Cell]
    measured: Mapping[Cell, Measured]  #: the newest first
    owners: Mapping[str, str]  #: member of each class; those of the federation have none here
    timed: Mapping[str, tuple[str, ...]]  #: classes with timings, by owner; "" = the federation's
    refused: Mapping[str, str]  #: classes whose profile cannot be read, with why
    digest: str

    @property
    def families(self) -> frozenset[str]:
        """Works that something was measured of; completion speaks of their classes alone."""
        return frozenset(self.family(one.job_class) for one in self.measured.values())

    def learnt(self, classes: Iterable[str]) -> list[Measured]:
        """What priors of some classes are learnt from: the newest of their kin, then of others."""
        asked = {self.family(name) for name in classes}
        kin = [one for one in self.measured.values() if self.family(one.job_class) in asked]
        others = (one for one in self.measured.values() if self.family(one.job_class) not in asked)
        return [*kin[:KIN], *islice(others, LEARNT_FROM - min(KIN, len(kin)))]

    def teachers(self, job_class: str) -> tuple[str, ...]:
        """Classes whose timings its operators are told by: those of the federation and of its own
        member, whom nobody else can move; none where it lists no operators."""
        if not self.profiles[job_class].operators:
            return ()
        owner = self.owners.get(job_class, "")
        own = self.timed.get(owner, ()) if owner else ()
        return (*self.timed.get("", ()), *own)

    def family(self, job_class: str) -> str:
        """What its kin share: its work, or itself."""
        return self.profiles[job_class].work or job_class

    def wanted(self, job_class: str) -> list[tuple[Cell, Asked]]:
        """Cells of a class that want a prior: on offer, not claimed, and hardly measured."""
        found, key = [], UUID(job_class)
        for pool in self.pools:
            if (pool.pool, key, 1) in self.claimed:
                continue  # a claim for one GPU speaks of every gang
            for gpus in self.sizes.get(job_class, (1,)):
                cell = (pool.pool, key, gpus)
                own = self.measured.get(cell)
                settled = own is not None and own.leases >= FEW
                if gpus <= pool.gpus and cell not in self.claimed and not settled:
                    found.append((cell, Asked(job_class, pool.column, gpus, own)))
        return found


def prior_inputs(table: Sequence[Row] = ()) -> PriorInputs:
    """Read all of it, in a fixed number of statements. `table`: speeds measured elsewhere."""
    pools = _pools()
    classes = list(JobClass.objects.order_by("pk").values_list("pk", "owner_id", "profile"))
    raw = {str(pk): profile for pk, _, profile in classes}
    owners = {str(pk): str(owner) for pk, owner, _ in classes if owner is not None}
    profiles, refused = _profiles(raw)
    measured = _measured()
    claimed = frozenset(
        OfferAffinity.objects.filter(offer__state=OfferState.ACTIVE).values_list(
            "pool_id", "job_class_id", "gpus"
        )
    )
    sizes = _sizes(claimed)
    return PriorInputs(
        pools=pools,
        profiles=profiles,
        sizes=sizes,
        claimed=claimed,
        measured=measured,
        owners=owners,
        timed=_timed(profiles, owners),
        refused=refused,
        digest=_digest(pools, (raw, owners), sizes, claimed, measured, table),
    )


def _pools() -> tuple[PoolOffered, ...]:
    lines = OfferPool.objects.filter(offer__state=OfferState.ACTIVE, gpus__gt=0)
    rows = lines.order_by("pool_id").values_list("pool_id", "pool__gpu", "gpus")
    return tuple(PoolOffered(pool, column_of(gpu), gpus) for pool, gpu, gpus in rows)


def _measured() -> dict[Cell, Measured]:
    """What leases showed, the newest first."""
    rows = MeasuredAffinity.objects.filter(leases__gt=0, samples_per_s__range=RATES)
    rows = rows.order_by("-updated_at", "pk")
    return {
        (pool, job_class, gpus): Measured(str(job_class), column_of(gpu), gpus, speed, leases)
        for pool, gpu, job_class, gpus, speed, leases in rows.values_list(
            *("pool_id", "pool__gpu", "job_class_id", "gpus", "samples_per_s", "leases")
        )
    }


def _sizes(claimed: frozenset[Cell]) -> dict[str, tuple[int, ...]]:
    """Gang sizes that waiting jobs and offers name, by class."""
    found: dict[str, set[int]] = defaultdict(lambda: {1})
    waiting = Job.objects.filter(state=JobState.PENDING, kind=Job.Kind.TRAINING).order_by()
    for job_class, sizes in waiting.values_list("job_class_id", "gpus").distinct():
        found[str(job_class)] |= {int(size) for size in sizes}
    for _, job_class, gpus in claimed:
        found[str(job_class)].add(gpus)
    return {name: tuple(sorted(sizes)[:SIZES]) for name, sizes in found.items()}


def _profiles(raw: Mapping[str, object]) -> tuple[dict[str, Profile], dict[str, str]]:
    """Stored profiles; one that this version cannot read says nothing, and why is told."""
    found, refused = dict[str, Profile](), dict[str, str]()
    for name, document in raw.items():
        try:
            found[name] = read_profile(document)
        except BadProfile as bad:
            found[name], refused[name] = Profile(), str(bad.problems[0])
    return found, refused


def _timed(
    profiles: Mapping[str, Profile], owners: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Classes whose timings are learnt from, by owner, in the order of their ids: as many as
    NETWORKS and TIMES allow each owner."""
    found: dict[str, tuple[str, ...]] = defaultdict(tuple)
    times: dict[str, int] = defaultdict(int)
    for name, profile in sorted(profiles.items()):
        owner = owners.get(name, "")
        if not profile.seconds or len(found[owner]) == NETWORKS:
            continue
        if times[owner] + profile.times <= TIMES:
            found[owner] += (name,)
            times[owner] += profile.times
    return dict(found)


def _digest(
    pools: tuple[PoolOffered, ...],
    classes: tuple[Mapping[str, object], Mapping[str, str]],
    sizes: Mapping[str, tuple[int, ...]],
    claimed: frozenset[Cell],
    measured: Mapping[Cell, Measured],
    table: Sequence[Row],
) -> str:
    """The same for the same inputs, whatever their order; speeds to within STEP. `classes`: their
    profiles and their owners."""
    rows = sorted(
        (str(cell), one.column, round(math.log(one.rate) / STEP), min(one.leases, FEW))
        for cell, one in measured.items()
    )
    told = [
        sorted((str(one.pool), one.column, one.gpus) for one in pools),
        *(sorted(said.items()) for said in classes),
        sorted(sizes.items()),
        sorted(map(str, claimed)),
        rows,
        sorted(map(str, table)),
    ]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
