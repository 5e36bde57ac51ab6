"""Seconds of a synchronous all-reduce from its size and the links: ring, tree, and of two levels.

A ring of K replicas sends 2 (K - 1)/K of the bytes over each link in 2 (K - 1) rounds; a pipelined
double tree sends twice the bytes in 2 log2 K rounds:

    ring = 2 (K - 1)/K S/B + 2 (K - 1) latency          tree = 2 S/B + 2 log2 K latency

(Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009;
Sanders, Speck and Traeff, Two-tree algorithms for full bandwidth broadcast, reduction and scan,
2009.) Over several nodes: a ring in the nodes, then across them, then back; the link between nodes
carries the sum once for each node, so it is the slowest link that counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from federation.affinity.network_prior import NetworkPrior
from federation.affinity.samples import BadSamples, Configuration

BITS = 8.0
GIGA = 1e9
DOUBT = 0.7  #: links reach between half and twice what is written on them
LATENCY_S = 15e-6


@dataclass(frozen=True, slots=True)
class Links:
    """Speed of the links of a pool: between GPUs of a node, and of a node to the network."""

    intra_gbit_s: float
    inter_gbit_s: float
    latency_s: float = LATENCY_S

    def __post_init__(self) -> None:
        for name in ("intra_gbit_s", "inter_gbit_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadSamples((f"{name} is {value:g}: a link is faster than 0, and finite",))
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise BadSamples((f"latency_s is {self.latency_s:g}: it is finite and not below 0",))


def ring(size_bytes: float, members: int, gbit_s: float, latency_s: float) -> float:
    """Seconds of a ring all-reduce; 0 for one member."""
    if members < 2:
        return 0.0
    sent = 2.0 * (members - 1) / members * size_bytes
    return sent * BITS / (gbit_s * GIGA) + 2.0 * (members - 1) * latency_s


def tree(size_bytes: float, members: int, gbit_s: float, latency_s: float) -> float:
    """Seconds of a double-tree all-reduce; 0 for one member."""
    if members < 2:
        return 0.0
    rounds = 2.0 * math.log2(members)
    return 2.0 * size_bytes * BITS / (gbit_s * GIGA) + rounds * latency_s


def faster(size_bytes: float, members: int, gbit_s: float, latency_s: float) -> float:
    """The faster of ring and tree, as collective libraries choose."""
    return min(
        ring(size_bytes, members, gbit_s, latency_s), tree(size_bytes, members, gbit_s, latency_s)
    )


def all_reduce(size_bytes: float, asked: Configuration, links: Links) -> float:
    """Seconds to sum `size_bytes` over all replicas of a configuration."""
    per_node = math.ceil(asked.replicas / asked.nodes)
    inside = faster(size_bytes, per_node, links.intra_gbit_s, links.latency_s)
    return inside + faster(size_bytes, asked.nodes, links.inter_gbit_s, links.latency_s)


def prior_of_links(gradient_bytes: float, links: Links) -> NetworkPrior:
    """What the size of the gradient and the links say before anything was measured.

    Raises `BadSamples` for a gradient of no finite size above 0.
    """
    if not (math.isfinite(gradient_bytes) and gradient_bytes > 0):
        raise BadSamples((f"a gradient of {gradient_bytes:g} bytes: above 0 and finite, please",))
    local = all_reduce(gradient_bytes, Configuration(1, 2, 1), links)
    node = all_reduce(gradient_bytes, Configuration(2, 2, 1), links)
    return NetworkPrior(local_s=(math.log(local), DOUBT), node_s=(math.log(node), DOUBT))
