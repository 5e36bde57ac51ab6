"""What public results and data sheets say of a speed nobody here measured.

A rate is taken as an efficiency times what the device can attain on so many GPUs:

    log rate = log(attainable x GPUs / operations) + log efficiency
    attainable = peak^(1 - s) x (bandwidth / BALANCE)^s

Between the two roofs of the roofline model (Williams, Waterman and Patterson, CACM 52(4), 2009) a
training step spends part of its time under each; in logarithms that is a weighted mean, s its
memory part. A data-parallel gang is never faster than the ring all-reduce of its gradient over the
device's link, where the model's parameters are known. The efficiency is learnt from public results:
one part for the work, its edition, its batch, what it loses by the GPUs, how peak and bandwidth
count otherwise than assumed, how much faster links help a gang, and one for device and generation.
A generation without results so has the spread that generations have. The band is widened until it
holds 90 % of the results whose whole generation is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from federation.affinity.allreduce import BITS, ring
from federation.affinity.coldstart.blend import Prior, prior_or_none
from federation.affinity.coldstart.components import Array, Effects, Kernel, learn
from federation.affinity.coldstart.devices import DEVICES, Device
from federation.affinity.coldstart.kinship import GPUS_REACH, SIZE_REACH, same

MEMORY_PART = 0.3  #: s; 0.3 to 0.7 made little difference
BALANCE = 6.0  #: GB/s of memory per 10^12 operations/s: about that of V100 and A100
EFFICIENCY = 0.3  #: median of the attainable, where no result is at hand
EFFICIENCY_SD = 0.7  #: of its logarithm: a factor of 3 either way holds 90 %
BOTH_WAYS = 2.0  #: a device's link is the sum of both directions
GRADIENT_BYTES = {"half": 2.0, "single": 4.0}  #: of one parameter
LINK = 300.0  #: GB/s of the V100, which others are compared with
MOST = 800  #: results that variances are learnt from


@dataclass(frozen=True, slots=True)
class Query:
    """A speed to be told."""

    work: str  #: model or benchmark
    device: str  #: key of DEVICES
    gpus: int = 1
    batch: float | None = None  #: per GPU
    edition: str = ""  #: what may be compared directly: a round of results, a precision
    precision: str = "half"  #: or "single"
    operations: float | None = None  #: per sample, forward and backward; None when unknown
    parameters: float | None = None  #: of the model; None when unknown

    def __post_init__(self) -> None:
        for name in ("batch", "operations", "parameters"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"The {name} of {self.work} is {value}: it must be positive.")
        if self.gpus < 1:
            raise ValueError(f"{self.work} is asked for on {self.gpus} GPUs: at least one.")


@dataclass(frozen=True, slots=True)
class Result:
    """A published speed; all of one table are in one unit, or say their operations."""

    query: Query
    rate: float  #: samples/s of all GPUs together

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(
                f"The rate of {self.query.work} on {self.query.device} is {self.rate}: "
                "a rate is a positive, finite number."
            )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What was learnt from a table of results."""

    effects: Effects[Query]
    works: frozenset[str]
    counted: bool  #: True when the results say their operations

    def prior(self, query: Query) -> Prior | None:
        """The speed in the table's unit; None when the device's peak is unknown, or the work was
        never seen and its operations are unknown."""
        return self.priors([query])[0]

    def priors(self, queries: Sequence[Query]) -> list[Prior | None]:
        """As `prior`, for many queries at once, in their order."""
        levels = {query: level for query in queries if (level := self._level(query)) is not None}
        if not levels:
            return [None] * len(queries)
        n = len(self.effects.items)
        means, spreads = self.effects.predict(list(levels))
        found = {
            query: prior_or_none(_held(query, levels[query] + mean), spread, "catalogue", n)
            for query, mean, spread in zip(levels, means.tolist(), spreads.tolist(), strict=True)
        }
        return [found.get(query) for query in queries]

    def _level(self, query: Query) -> float | None:
        """Logarithm of the rate at full efficiency, where something can be said."""
        reach = attainable(query)
        known = query.work in self.works and self.counted == (query.operations is not None)
        if reach is None or not (known or (self.counted and query.operations)):
            return None
        return math.log(reach)


def attainable(query: Query) -> float | None:
    """Samples/s at full efficiency (without operations: 10^12 operations/s); None when the
    device, or its peak at this precision, is unknown."""
    device = DEVICES.get(query.device)
    peak = None if device is None else _peak(device, query.precision)
    if device is None or peak is None:
        return None
    memory = peak if device.bandwidth is None else device.bandwidth / BALANCE
    reach = float(peak ** (1 - MEMORY_PART) * memory**MEMORY_PART * query.gpus)
    return reach if query.operations is None else reach * 1e12 / query.operations


def roofline(query: Query) -> Prior | None:
    """What the data sheet alone says, without any result; None when operations or peak are
    unknown."""
    reach = attainable(query)
    if reach is None or query.operations is None:
        return None
    log_rate = _held(query, math.log(reach * EFFICIENCY))
    return prior_or_none(log_rate, EFFICIENCY_SD, "roofline", 0)


def roof(query: Query) -> float | None:
    """Samples/s that nothing passes: the peak of all its GPUs over the operations of a sample.
    None where operations, the device or its peak at this precision are unknown."""
    device = DEVICES.get(query.device)
    peak = None if device is None else _peak(device, query.precision)
    if peak is None or query.operations is None:
        return None
    return peak * 1e12 * query.gpus / query.operations


def most_by_link(query: Query) -> float | None:
    """Samples/s that no data-parallel gang passes: a step is not shorter than the ring all-reduce
    of the gradient over the device's link, however well it overlaps. None for one GPU, and where
    parameters, batch or operations (and with them the unit of the rate) are unknown."""
    device = DEVICES.get(query.device)
    if device is None or query.gpus < 2 or query.operations is None:
        return None
    if query.parameters is None or query.batch is None:
        return None
    size = GRADIENT_BYTES[query.precision] * query.parameters
    seconds = ring(size, query.gpus, BITS * device.link / BOTH_WAYS, 0.0)
    return query.gpus * query.batch / seconds


def _held(query: Query, log_rate: float) -> float:
    """The logarithm of a rate, no higher than the link allows."""
    most = most_by_link(query)
    return log_rate if most is None else min(log_rate, math.log(most))


def study(results: Sequence[Result]) -> Catalogue:
    """Learn from one table of results; equal whatever their order.

    Results on devices whose peak is unknown are left out. ValueError when none remains, or only
    some say their operations.
    """
    usable = [result for result in results if attainable(result.query) is not None]
    if not usable:
        raise ValueError("No result is on a device whose peak is known: nothing can be learnt.")
    counted = {result.query.operations is not None for result in usable}
    if len(counted) > 1:
        raise ValueError("Some results say their operations and some do not: separate them.")
    usable.sort(key=lambda result: (_key(result.query), result.rate))
    queries = [result.query for result in usable]
    values = np.array([math.log(result.rate / _reach(result.query)) for result in usable])
    sample = list(range(0, len(queries), math.ceil(len(queries) / MOST)))
    groups = [_generation(query) for query in queries]
    effects = learn(_KERNELS, queries, values, groups=groups, sample=sample)
    return Catalogue(effects, frozenset(query.work for query in queries), counted.pop())


def _peak(device: Device, precision: str) -> float | None:
    return device.half if precision == "half" else device.single


def _reach(query: Query) -> float:
    reach = attainable(query)
    if reach is None:
        raise ValueError(f"The peak of {query.device} is unknown.")
    return reach


def _key(query: Query) -> tuple[str, str, str, str, int, float]:
    batch = -1.0 if query.batch is None else query.batch
    return query.work, query.edition, query.precision, query.device, query.gpus, batch


def _generation(query: Query) -> str:
    return DEVICES[query.device].generation


def _log_peak(query: Query) -> float:
    return math.log((_peak(DEVICES[query.device], query.precision) or 1.0) / 100.0)


def _log_bandwidth(query: Query) -> float:
    bandwidth = DEVICES[query.device].bandwidth
    return _log_peak(query) if bandwidth is None else math.log(bandwidth / (100 * BALANCE))


def _log_gpus(query: Query) -> float:
    return math.log2(query.gpus)


def _log_link(query: Query) -> float:
    """0 for one GPU, which sends nothing."""
    return 0.0 if query.gpus == 1 else math.log(DEVICES[query.device].link / LINK)


def _log_batch(query: Query) -> float:
    return 0.0 if query.batch is None else math.log2(query.batch)


def _same(of: Callable[[Query], object]) -> Kernel[Query]:
    """An effect for each value of a property."""

    def between(own: Sequence[Query], other: Sequence[Query]) -> Array:
        return same([of(query) for query in own], [of(query) for query in other])

    return between


def _slope(of: Callable[[Query], float]) -> Kernel[Query]:
    """A straight line in a property."""

    def between(own: Sequence[Query], other: Sequence[Query]) -> Array:
        return np.outer([of(query) for query in own], [of(query) for query in other])

    return between


def _near(of: Callable[[Query], float], reach: float) -> Kernel[Query]:
    """A curve in a property."""

    def between(own: Sequence[Query], other: Sequence[Query]) -> Array:
        rows = np.array([of(query) for query in own])
        columns = np.array([of(query) for query in other])
        return np.asarray(np.exp(-np.abs(rows[:, None] - columns[None, :]) / reach))

    return between


def _times(*kernels: Kernel[Query]) -> Kernel[Query]:
    """The effect of a combination."""

    def between(own: Sequence[Query], other: Sequence[Query]) -> Array:
        found = np.ones((len(own), len(other)))
        for kernel in kernels:
            found *= kernel(own, other)
        return found

    return between


_WORK = _same(lambda query: query.work)
_EDITION = _same(lambda query: (query.work, query.edition))
_PRECISION = _same(lambda query: (_generation(query), query.precision))
_DEVICE = _same(lambda query: query.device)
_GENERATION = _same(_generation)
_CURVE = _near(_log_gpus, 4 * GPUS_REACH)
_BATCH = _near(_log_batch, SIZE_REACH)

_KERNELS: tuple[Kernel[Query], ...] = (
    _WORK,
    _EDITION,
    _slope(_log_peak),
    _slope(_log_bandwidth),
    _slope(_log_gpus),
    _slope(_log_link),
    _CURVE,
    _times(_WORK, _CURVE),
    _times(_EDITION, _CURVE),
    _BATCH,
    _times(_WORK, _BATCH),
    _DEVICE,
    _GENERATION,
    _PRECISION,
    _times(_GENERATION, _WORK),
    _times(_DEVICE, _WORK),
)
