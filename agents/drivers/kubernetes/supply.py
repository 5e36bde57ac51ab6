"""What local users leave of the cluster's GPUs, by pool. Pure reading of the API's JSON.

A local user's pod counts with what it holds and, while it waits for a node, with what it wishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.drivers.kubernetes.nodes import held, quantity, takes_jobs
from agents.drivers.kubernetes.terms import SITE

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NodesSupply:
    """GPUs of one pool."""

    gpus: int = 0  #: of nodes that take jobs
    local: int = 0  #: held by pods that are not this site's jobs
    wished: int = 0  #: for local pods that wait for a node

    @property
    def left(self) -> int:
        return max(self.gpus - self.local - self.wished, 0)


@dataclass(frozen=True, slots=True)
class ClusterSupply:
    pools: dict[str, NodesSupply] = field(default_factory=dict)


def supply(
    nodes: Iterable[Json],
    pods: Iterable[Json],
    *,
    selectors: Mapping[str, Mapping[str, str]],
    resource: str,
    site: str,
) -> ClusterSupply:
    """`selectors`: the labels of each pool's nodes; `site`: the label's value on our own pods."""
    usable = [node for node in nodes if takes_jobs(node)]
    others = [pod for pod in pods if _labels(pod).get(SITE) != site]
    return ClusterSupply(
        {
            name: _pool([node for node in usable if _fits(node, selector)], others, resource)
            for name, selector in selectors.items()
        }
    )


def _pool(nodes: list[Json], others: list[Json], resource: str) -> NodesSupply:
    names = {node["metadata"]["name"] for node in nodes}
    local = wished = 0
    for pod in others:
        node = pod["spec"].get("nodeName")
        if node in names:
            local += held(pod, resource)
        elif not node and any(_fits(one, pod["spec"].get("nodeSelector") or {}) for one in nodes):
            wished += held(pod, resource)  # in every pool that it may get: its wish comes first
    return NodesSupply(sum(_gpus(node, resource) for node in nodes), local, wished)


def _gpus(node: Json, resource: str) -> int:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return int(quantity(allocatable.get(resource, 0)))


def _fits(node: Json, selector: Mapping[str, str]) -> bool:
    return selector.items() <= _labels(node).items()


def _labels(value: Json) -> dict[str, str]:
    return value["metadata"].get("labels") or {}
