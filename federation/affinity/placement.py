"""What it costs a job to be spread over nodes instead of standing on one."""

from __future__ import annotations

from dataclasses import dataclass

from federation.affinity.samples import BadSamples, Configuration
from federation.affinity.throughput import Forecast, ThroughputModel


@dataclass(frozen=True, slots=True)
class Spread:
    """One number of nodes for the same replicas and batch, against the fewest nodes."""

    nodes: int
    forecast: Forecast
    penalty: float  #: step seconds over those of the fewest nodes; 1 for these


def penalties(
    model: ThroughputModel, replicas: int, local_batch: float, gpus_per_node: int, most_nodes: int
) -> tuple[Spread, ...]:
    """The cost of each number of nodes that can hold the replicas, fewest first.

    Raises `BadSamples` when no number of nodes up to `most_nodes` holds them.
    """
    least = -(-replicas // gpus_per_node)
    if replicas < 1 or gpus_per_node < 1 or least > most_nodes:
        raise BadSamples(
            (f"{replicas} replicas do not fit {most_nodes} nodes of {gpus_per_node} GPUs",)
        )
    counts = range(least, min(most_nodes, replicas) + 1)
    found = model.forecasts([Configuration(nodes, replicas, local_batch) for nodes in counts])
    base = found[0].step_s
    return tuple(
        Spread(nodes, forecast, forecast.step_s / base)
        for nodes, forecast in zip(counts, found, strict=True)
    )


def one_node_penalty(
    model: ThroughputModel, replicas: int, local_batch: float, nodes: int
) -> float:
    """Step seconds over `nodes` nodes divided by those on one node."""
    one, several = model.forecasts(
        [Configuration(count, replicas, local_batch) for count in (1, nodes)]
    )
    return several.step_s / one.step_s
