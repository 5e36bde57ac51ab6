"""How much of a Ray cluster its own users leave free. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.drivers.ray.server import Node, RayJob, Usage

OWNER = "hanse_owner"  #: of a job's metadata: names the driver that sent it
POOL = "hanse_pool"
GPUS = "hanse_gpus"


@dataclass(frozen=True, slots=True)
class PoolSupply:
    """GPUs of one pool of the configuration."""

    nodes: int  #: that are alive
    gpus: int  #: on them
    gpus_per_node: int  #: most on one
    used: int  #: by anybody
    ours: int  #: of these, by jobs of this agent
    waiting: int  #: asked for by local users' work that waits

    @property
    def left(self) -> int:
        """GPUs for the federation when the local users' wishes come first."""
        return max(self.gpus - max(self.used - self.ours, 0) - self.waiting, 0)


@dataclass(frozen=True, slots=True)
class Supply:
    pools: dict[str, PoolSupply]


def supply(
    nodes: Sequence[Node],
    usage: Usage,
    jobs: Sequence[RayJob],
    *,
    pools: Mapping[str, Mapping[str, float]],
    owner: str,
) -> Supply:
    """`pools`: what a job of each asks for beside its GPUs."""
    own = [job for job in jobs if job.metadata.get(OWNER) == owner]
    return Supply(
        {name: _pool(name, resources, nodes, usage, own) for name, resources in pools.items()}
    )


def _pool(
    name: str,
    resources: Mapping[str, float],
    nodes: Sequence[Node],
    usage: Usage,
    own: Sequence[RayJob],
) -> PoolSupply:
    fitting = [node for node in nodes if node.has(resources)]
    wanted = sum(
        demand.get("GPU", 0.0) * count
        for demand, count in usage.waiting
        if any(node.has(demand) for node in fitting)
    )
    return PoolSupply(
        nodes=len(fitting),
        gpus=sum(node.gpus for node in fitting),
        gpus_per_node=max((node.gpus for node in fitting), default=0),
        used=round(sum(usage.gpus.get(node.identity, 0.0) for node in fitting)),
        ours=_held(own, name, "RUNNING"),
        waiting=max(round(wanted) - _held(own, name, "PENDING"), 0),
    )


def _held(own: Sequence[RayJob], pool: str, status: str) -> int:
    """GPUs of our own jobs in this state."""
    return sum(
        int(job.metadata.get(GPUS, "0"))
        for job in own
        if job.status == status and job.metadata.get(POOL) == pool
    )
