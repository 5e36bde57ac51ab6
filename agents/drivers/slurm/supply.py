"""What the cluster has, and how much of it its own users leave free. Asked, never guessed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agents.drivers.slurm import answers
from agents.drivers.slurm.answers import JobSeen, NodeSeen
from agents.drivers.slurm.command import Commands, SlurmRefused
from agents.drivers.slurm.queue import Questions
from agents.drivers.slurm.settings import PoolSettings, SlurmSettings
from agents.drivers.slurm.submission import attempt_of


@dataclass(frozen=True, slots=True)
class PoolSupply:
    """GPUs of one pool of the configuration."""

    nodes: int  #: that are up
    gpus: int  #: on them
    gpus_per_node: int  #: most on one
    used: int  #: by any job
    ours: int  #: of these, by jobs of this federation
    waiting: int  #: asked for by local users whose jobs wait in the same partition

    @property
    def left(self) -> int:
        """GPUs for the federation when the local users' wishes come first."""
        return max(self.gpus - (self.used - self.ours) - self.waiting, 0)


@dataclass(frozen=True, slots=True)
class Supply:
    pools: dict[str, PoolSupply]
    kinds: dict[str, dict[str, int]]  #: partition -> kind of GPU -> count, on nodes that are up
    cores: int
    memory_mb: int


def nodes(commands: Commands) -> list[NodeSeen]:
    """By JSON where there is some; raises SlurmSilent or SlurmRefused."""
    for name, *question in (("scontrol", "show", "node", "--json"), ("sinfo", "--json")):
        try:
            found = answers.nodes(commands.ask(name, *question))
        except (ValueError, SlurmRefused):
            continue
        if any(node.gpus_used for node in found) or not any(node.gpus for node in found):
            return found
    return answers.nodes_of_text(
        commands.ask("scontrol", "--details", "--oneliner", "show", "node")
    )


def discover(commands: Commands, questions: Questions, settings: SlurmSettings) -> Supply:
    found, jobs = nodes(commands), questions.jobs()
    ready = [node for node in found if node.available]
    return Supply(
        pools={name: pool_supply(pool, ready, jobs) for name, pool in settings.pools.items()},
        kinds=kinds(ready),
        cores=sum(node.cores for node in ready),
        memory_mb=sum(node.memory_mb for node in ready),
    )


def pool_supply(
    pool: PoolSettings, ready: Iterable[NodeSeen], jobs: Iterable[JobSeen]
) -> PoolSupply:
    """Of the nodes that are up and whose partition and kind of GPU are the pool's."""
    kind = pool.gres.partition(":")[2]
    mine = [
        node
        for node in ready
        if (not pool.partition or pool.partition in node.partitions) and _of(kind, node.gpus)
    ]
    partitions = {name for node in mine for name in node.partitions}
    if pool.partition:
        partitions = {pool.partition}
    near = [job for job in jobs if job.partition in partitions]
    return PoolSupply(
        nodes=len(mine),
        gpus=sum(_of(kind, node.gpus) for node in mine),
        gpus_per_node=max((_of(kind, node.gpus) for node in mine), default=0),
        used=sum(_of(kind, node.gpus_used) for node in mine),
        ours=sum(job.gpus for job in near if _holds(job) and attempt_of(job.name) is not None),
        waiting=sum(job.gpus for job in near if _waits(job) and attempt_of(job.name) is None),
    )


def kinds(ready: Iterable[NodeSeen]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for node in ready:
        for partition in node.partitions:
            here = found.setdefault(partition, {})
            for kind, count in node.gpus.items():
                here[kind] = here.get(kind, 0) + count
    return found


def _of(kind: str, counts: dict[str, int]) -> int:
    return counts.get(kind, 0) if kind else sum(counts.values())


def _holds(job: JobSeen) -> bool:
    return bool(job.states & {"RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING"})


def _waits(job: JobSeen) -> bool:
    """Held jobs and those that can never start are no wish for now."""
    held = job.reason.startswith(("JobHeld", "Dependency", "BeginTime", "BadConstraints"))
    return "PENDING" in job.states and not held
