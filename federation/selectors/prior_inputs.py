"""What the priors of all cells are learnt from, and which cells want one."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
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
    raw = {str(pk): profile for pk, profile in JobClass.objects.values_list("pk", "profile")}
    measured = _measured()
    claimed = frozenset(
        OfferAffinity.objects.filter(offer__state=OfferState.ACTIVE).values_list(
            "pool_id", "job_class_id", "gpus"
        )
    )
    sizes = _sizes(claimed)
    return PriorInputs(
        pools=pools,
        profiles={name: _profile(document) for name, document in raw.items()},
        sizes=sizes,
        claimed=claimed,
        measured=measured,
        digest=_digest(pools, raw, sizes, claimed, measured, table),
    )


def _pools() -> tuple[PoolOffered, ...]:
    lines = OfferPool.objects.filter(offer__state=OfferState.ACTIVE, gpus__gt=0)
    rows = lines.order_by("pool_id").values_list("pool_id", "pool__gpu", "gpus")
    return tuple(PoolOffered(pool, column_of(gpu), gpus) for pool, gpu, gpus in rows)


def _measured() -> dict[Cell, Measured]:
    """What leases showed, the newest first."""
    rows = MeasuredAffinity.objects.filter(leases__gt=0).order_by("-updated_at", "pk")
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


def _profile(document: object) -> Profile:
    """A stored profile; one that this version cannot read says nothing."""
    with suppress(BadProfile):
        return read_profile(document)
    return Profile()


def _digest(
    pools: tuple[PoolOffered, ...],
    profiles: Mapping[str, object],
    sizes: Mapping[str, tuple[int, ...]],
    claimed: frozenset[Cell],
    measured: Mapping[Cell, Measured],
    table: Sequence[Row],
) -> str:
    """The same for the same inputs, whatever their order; speeds to within STEP."""
    rows = sorted(
        (str(cell), one.column, round(math.log(one.rate) / STEP), min(one.leases, FEW))
        for cell, one in measured.items()
    )
    told = [
        sorted((str(one.pool), one.column, one.gpus) for one in pools),
        sorted(profiles.items()),
        sorted(sizes.items()),
        sorted(map(str, claimed)),
        rows,
        sorted(map(str, table)),
    ]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
