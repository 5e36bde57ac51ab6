"""Where a forecast leaves what was measured, what that costs in width, and what it may be used for.

A network that was measured up to four replicas says little about sixteen: forecasts of the plain
formula miss by 14 to 49 % there. So a forecast outside the sampled range says so, has a wider band,
and no price may rest on it before a probe at that size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

import numpy as np

from federation.affinity.samples import Configuration
from federation.affinity.step_time import (
    LOCAL_GROWTH,
    NODE_GROWTH,
    Array,
    Runs,
    Times,
    growth,
)
from federation.affinity.tally import POINT, Tally, cells, three

AXES = ("nodes", "replicas", "local batch")
#: log seconds of doubt for each doubling beyond, by axis. Nodes most: past the switch that was
#: measured the links are others, and nothing in the samples tells of it
PER_DOUBLING = (0.25, 0.12, 0.12)
CLOSE = 1e-6  #: relative, within which two numbers are one
WIDER = 1.5  #: at least so many times the deviation that it would have inside


@dataclass(frozen=True, slots=True)
class SampledRange:
    """Least and greatest nodes, replicas and local batch that were measured."""

    lowest: tuple[float, float, float]
    highest: tuple[float, float, float]


def range_of(tally: Tally) -> SampledRange:
    return SampledRange(tally.lowest, tally.highest)


def doublings_beyond(sampled: SampledRange, asked: Configuration) -> tuple[float, float, float]:
    """How far the configuration lies outside on each axis, in doublings; 0 inside."""
    values = (float(asked.nodes), float(asked.replicas), float(asked.local_batch))
    beyond = [
        max(log2(low / value), log2(value / high), 0.0)
        for value, low, high in zip(values, sampled.lowest, sampled.highest, strict=True)
    ]
    return beyond[0], beyond[1], beyond[2]


def why_outside(sampled: SampledRange, asked: Configuration) -> str:
    """A sentence that names the axes that were left; empty inside the range."""
    values = (asked.nodes, asked.replicas, asked.local_batch)
    parts = [
        f"{values[axis]:g} {AXES[axis]} where {_span(sampled, axis)} was measured"
        for axis, beyond in enumerate(doublings_beyond(sampled, asked))
        if beyond > 0
    ]
    return "extrapolated: " + ", ".join(parts) if parts else ""


def _span(sampled: SampledRange, axis: int) -> str:
    low, high = sampled.lowest[axis], sampled.highest[axis]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def spans_of(tally: Tally) -> dict[bool, SampledRange]:
    """What was measured on one node (False) and on several (True): nodes, replicas, GPUs a node.

    Where cells were merged, a mean stands for what it was merged of: the spans are widened by that.
    """
    known = cells(tally)
    slack = 2.0 ** (2.0 ** (tally.shift - POINT)) if tally.shift else 1.0
    values = np.stack([known.nodes, known.replicas, known.replicas / known.nodes], axis=1)
    several = known.nodes > 1.5
    return {
        way: SampledRange(
            three(values[several == way].min(axis=0) / slack),
            three(values[several == way].max(axis=0) * slack),
        )
        for way in (False, True)
        if (several == way).any()
    }


def why_unlike(spans: dict[bool, SampledRange], asked: Configuration) -> str:
    """A sentence for nodes and replicas that lie within the range, but unlike all measured ones.

    One node and several are apart in the formula: 16 replicas on one node were not measured by 16
    on four nodes and 2 on one. Empty when there is nothing to say.
    """
    several = asked.nodes > 1
    where = "over several nodes" if several else "on one node"
    if several not in spans:
        return f"unlike what was measured: nothing was {where}"
    values = (asked.nodes, asked.replicas, asked.replicas / asked.nodes)
    for axis, name in enumerate(("nodes", "replicas", "GPUs on a node")):
        low, high = spans[several].lowest[axis], spans[several].highest[axis]
        if not low * (1.0 - CLOSE) <= values[axis] <= high * (1.0 + CLOSE):
            return (
                f"unlike what was measured: {values[axis]:g} {name} {where}, where "
                f"{_span(spans[several], axis)} was measured"
            )
    return ""


def between_ring_and_tree(runs: Runs, at: Times, highest: float, power: float) -> Array:
    """Half the distance of log step seconds between the two ends of the growth, (n,).

    Both ends leave the measured range with the slope that the fit has at its greatest size: with k
    times as many replicas the tree adds log k of it, the ring 1 - 1/k. 0 within the range.
    """
    most = max(highest, 2.0)
    ratio = np.maximum(runs.replicas, most) / most
    apart = np.log(ratio) - (1.0 - 1.0 / ratio)
    slope = most**-power / np.log(2.0)
    shape = np.maximum(growth(runs.replicas, power), 1e-12)
    grown = at.step_gradient[:, LOCAL_GROWTH] + at.step_gradient[:, NODE_GROWTH]
    return np.asarray(0.5 * grown / shape * slope * apart)


def widened(inside: Array, beyond: Array, ends: Array) -> Array:
    """Deviation of log seconds outside the range, (n,); `beyond` (n, 3) in doublings."""
    doubt = np.sum((beyond * np.array(PER_DOUBLING)) ** 2, axis=1)
    outside = beyond.max(axis=1) > 0
    wide = np.maximum(np.sqrt(inside**2 + doubt + ends**2), WIDER * inside)
    return np.where(outside, wide, inside)
