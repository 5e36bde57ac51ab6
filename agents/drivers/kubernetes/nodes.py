"""What the cluster's nodes have for jobs, and what is free of it. Pure reading of the API's JSON.

Local users' pods count: what they hold is not ours to offer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from agents.drivers.base import Capacity
from agents.drivers.kubernetes.terms import SITE

Json = dict[str, Any]
QUANTITY = re.compile(r"([0-9.]+)([eE][+-]?[0-9]+)?([KMGTPE]i|[numkMGTPE])?")
SCALES = {
    **{f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
    **{letter: Fraction(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{"m": Fraction(1, 1000), "u": Fraction(1, 10**6), "n": Fraction(1, 10**9), "": Fraction(1)},
}
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class GpuKind:
    """The GPUs of one product, over all nodes that take jobs."""

    product: str  #: the label's value, "" where a node has none
    nodes: int
    gpus: int
    free: int  #: not held by anybody's pods
    local: int  #: held by pods that are not this site's jobs
    largest_node: int  #: GPUs of the node that has most


def quantity(text: str | int | float) -> Fraction:
    """A Kubernetes quantity: "4", "250m", "16Gi"; 0 when it cannot be read."""
    match = QUANTITY.fullmatch(str(text))
    if match is None:
        return Fraction(0)
    number, exponent, suffix = match.groups()
    try:
        return Fraction(number + (exponent or "")) * SCALES[suffix or ""]
    except ValueError:
        return Fraction(0)


def takes_jobs(node: Json) -> bool:
    """Ready and not cordoned."""
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
    return ready and not (node.get("spec") or {}).get("unschedulable")


def capacity(nodes: Iterable[Json]) -> Capacity:
    """CPU cores and memory of all nodes that take jobs."""
    allocatable = [
        (node.get("status") or {}).get("allocatable") or {} for node in nodes if takes_jobs(node)
    ]
    return Capacity(
        cores=int(sum(quantity(item.get("cpu", 0)) for item in allocatable)),
        memory_bytes=int(sum(quantity(item.get("memory", 0)) for item in allocatable)),
    )


def kinds(
    nodes: Iterable[Json],
    pods: Iterable[Json],
    *,
    resource: str,
    product_label: str,
    site: str,
) -> tuple[GpuKind, ...]:
    """By product, sorted; `pods` of all namespaces, `site` is the label's value on our own."""
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName") or ""
        whose = ours if (pod["metadata"].get("labels") or {}).get(SITE) == site else theirs
        whose[node] = whose.get(node, 0) + held(pod, resource)
    found: dict[str, list[tuple[int, int, int]]] = {}
    for node in nodes:
        gpus = int(quantity(((node.get("status") or {}).get("allocatable") or {}).get(resource, 0)))
        if gpus and takes_jobs(node):
            name = node["metadata"]["name"]
            product = (node["metadata"].get("labels") or {}).get(product_label, "")
            local = theirs.get(name, 0)
            free = max(gpus - local - ours.get(name, 0), 0)
            found.setdefault(product, []).append((gpus, free, local))
    return tuple(
        GpuKind(
            product,
            nodes=len(sizes),
            gpus=sum(gpus for gpus, _, _ in sizes),
            free=sum(free for _, free, _ in sizes),
            local=sum(local for _, _, local in sizes),
            largest_node=max(gpus for gpus, _, _ in sizes),
        )
        for product, sizes in sorted(found.items())
    )


def held(pod: Json, resource: str) -> int:
    """GPUs of a pod that is not over; the larger of its containers and its set-up's."""
    if (pod.get("status") or {}).get("phase") in ENDED:
        return 0
    spec = pod.get("spec") or {}

    def asked(containers: Iterable[Json]) -> list[int]:
        limits = ((item.get("resources") or {}).get("limits") or {} for item in containers)
        return [int(quantity(limit.get(resource, 0))) for limit in limits]

    return max(
        sum(asked(spec.get("containers") or [])),
        max(asked(spec.get("initContainers") or []), default=0),
    )
