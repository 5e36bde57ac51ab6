"""What the nodes of a Ray cluster have, and whether a job finds a place on one of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agents.drivers.base import Capacity, Task
from agents.drivers.ray.server import Node

UNNAMED = "GPU"  #: of nodes where Ray has found no accelerator's name


def capacity(nodes: Sequence[Node]) -> Capacity:
    """Of all living nodes together."""
    return Capacity(
        cores=int(sum(node.resources.get("CPU", 0.0) for node in nodes)),
        memory_bytes=int(sum(node.resources.get("memory", 0.0) for node in nodes)),
    )


def kinds(nodes: Sequence[Node]) -> dict[str, tuple[int, int]]:
    """GPUs by Ray's name of the accelerator: all together, and on the largest node."""
    found: dict[str, tuple[int, int]] = {}
    for node in nodes:
        name = node.kinds[0] if node.kinds else UNNAMED
        total, largest = found.get(name, (0, 0))
        if node.gpus:
            found[name] = (total + node.gpus, max(largest, node.gpus))
    return found


def misfit(nodes: Sequence[Node], task: Task, resources: Mapping[str, float]) -> str | None:
    """Why no node could ever take the job, busy or not; None when one could.

    Without this Ray would keep the job waiting for its whole start timeout.
    """
    fitting = [node for node in nodes if node.has(resources)]
    if not fitting:
        wanted = ", ".join(f"{name}: {amount:g}" for name, amount in sorted(resources.items()))
        return (
            f"no living node of Ray has what driver.pools.{task.pool} asks for ({wanted or 'any'})"
        )
    largest = max(node.gpus for node in fitting)
    if task.gpus > largest:
        return (
            f"the lease asks for {task.gpus} GPUs of pool {task.pool}, the largest node that Ray "
            f"has for it holds {largest}: a job through Ray's Jobs API has one node; offer "
            "speeds of this pool for fewer GPUs"
        )
    return None
