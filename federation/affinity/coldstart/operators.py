"""Step times of a network from a list of its operators: the regression of Ceer.

Per device, the kinds of operators that take most of the time (heavy) get a regression on input
size, linear or quadratic, whichever errs less on networks left out in turn; all other GPU
operators (light) one median, and CPU operators another. Communication is a straight line in the
number of parameters, one per device and GPU count. The step is the sum (Hafeez and Gandhi, IISWC
2020, as their abstract describes it; batch per GPU fixed). Times are noisy by factors, so errors
are relative: every regression is weighted by 1 / time, with non-negative coefficients, so that no
size gives a negative time. The spread is that of whole networks left out in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np
from scipy.optimize import nnls

from federation.affinity.coldstart.blend import Prior, prior_or_none
from federation.affinity.coldstart.components import Array

HEAVY_SHARE = 0.01  #: a kind is heavy when it takes this part of a device's GPU time
LEAST_SD = 0.01  #: of the logarithm of a step: nobody predicts better than 1 %
PER_DOUBLING = 0.35  #: log seconds of doubt: half of what a wrong degree misses in a doubling
FEWEST_NETS = 3  #: networks without which nothing is left to check on
TURNS = 8  #: networks are left out one by one, or so many groups of them where there are more

Thing = TypeVar("Thing")
Group = TypeVar("Group")


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a network's step."""

    kind: str  #: "Conv2D", "Conv2DBackpropFilter", "MatMul"
    size: float  #: elements of its inputs; of a convolution, activations and filter
    on_cpu: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.size) and self.size >= 0):
            raise ValueError(f"The size of a {self.kind} is {self.size}: a count of elements.")


@dataclass(frozen=True, slots=True)
class Network:
    """A summary that a tenant can send of a model that never ran."""

    name: str
    operators: tuple[Operator, ...]
    parameters: float
    memory: float = 0.0  #: GB on one GPU; 0 when unknown

    def __post_init__(self) -> None:
        if not self.operators:
            raise ValueError(f"{self.name or 'A network'} has no operators: send at least one.")
        _positive(self.parameters, f"The number of parameters of {self.name}")
        if not (math.isfinite(self.memory) and self.memory >= 0):
            raise ValueError(f"The memory of {self.name} is {self.memory} GB: 0 when unknown.")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that one operator of a profiled network took on a device."""

    network: str
    device: str
    operator: Operator
    seconds: float

    def __post_init__(self) -> None:
        _checked(self.seconds, f"{self.operator.kind} of {self.network} on {self.device}")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Seconds per step that a network spent in communication on so many GPUs."""

    network: str
    device: str
    gpus: int
    parameters: float
    seconds: float

    def __post_init__(self) -> None:
        what = f"communication of {self.network} on {self.gpus} {self.device}"
        if self.gpus < 1:
            raise ValueError(f"The {what}: at least one GPU is needed.")
        _positive(self.parameters, f"The number of parameters of the {what}")
        _checked(self.seconds, what)


class Unpredictable(ValueError):
    """What was not profiled, so that nothing can be said."""


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """Operator times of one device, in seconds."""

    heavy: Mapping[str, tuple[float, ...]]  #: kind -> coefficients of 1, size, size^2
    known: Mapping[str, float]  #: kinds that were timed, with their greatest size
    light: float | None
    on_cpu: float | None

    def seconds(self, operator: Operator) -> float:
        """Time of one operator. Unpredictable when nothing like it was timed."""
        if operator.on_cpu:
            return _present(self.on_cpu, "CPU operators")
        if operator.kind in self.heavy:
            powers = (operator.size**power for power in range(3))
            return math.fsum(c * p for c, p in zip(self.heavy[operator.kind], powers, strict=False))
        if operator.kind not in self.known:
            raise Unpredictable(f"{operator.kind} was never timed here: profile it once.")
        return _present(self.light, "light operators")

    def doublings_beyond(self, operator: Operator) -> float:
        """How far a heavy operator is larger than any that was timed; 0 within, or when light."""
        if operator.on_cpu or operator.kind not in self.heavy:
            return 0.0
        greatest = self.known[operator.kind]
        return math.log2(operator.size / greatest) if operator.size > greatest > 0 else 0.0


@dataclass(frozen=True, slots=True)
class OperatorModel:
    """Step times by device and GPU count."""

    devices: Mapping[str, DeviceModel]
    exchanges: Mapping[tuple[str, int], tuple[float, ...]]  #: coefficients of 1, parameters
    spread: float  #: of the logarithm of a step of a network left out
    networks: int

    def seconds(self, network: Network, device: str, gpus: int) -> float:
        """One step. Unpredictable when the device, the count or an operator was never timed."""
        if device not in self.devices:
            raise Unpredictable(f"No operator was ever timed on {device}.")
        compute = math.fsum(map(self.devices[device].seconds, network.operators))
        if gpus == 1 and (device, 1) not in self.exchanges:
            return compute
        if (device, gpus) not in self.exchanges:
            raise Unpredictable(f"Communication of {gpus} {device} was never timed.")
        base, slope = self.exchanges[device, gpus]
        return compute + base + slope * network.parameters

    def prior(self, network: Network, device: str, gpus: int, batch: float) -> Prior | None:
        """Samples/s with `batch` per GPU; None when the network cannot be predicted there.

        Where heavy operators are larger than any that was timed the prior is marked, and wider by
        each doubling beyond, weighed by their part of the computing.
        """
        _positive(batch, f"The batch of {network.name}")
        try:
            step = self.seconds(network, device, gpus)
        except Unpredictable:
            return None
        if step <= 0:
            return None
        beyond = self._beyond(network, device)
        spread = math.hypot(self.spread, PER_DOUBLING * beyond)
        rate = math.log(batch * gpus / step)
        return prior_or_none(rate, spread, "operators", self.networks, extrapolated=beyond > 0)

    def _beyond(self, network: Network, device: str) -> float:
        """Mean doublings beyond what was timed, weighed by seconds."""
        of = self.devices[device]
        seconds = [of.seconds(operator) for operator in network.operators]
        weighed = (
            s * of.doublings_beyond(o) for s, o in zip(seconds, network.operators, strict=True)
        )
        return math.fsum(weighed) / (math.fsum(seconds) or 1.0)


def fit_operators(timings: Sequence[Timing], exchanges: Sequence[Exchange]) -> OperatorModel:
    """Learn from profiled networks. Unpredictable for fewer than FEWEST_NETS of them: with no
    network to leave out, nothing would say how far to trust the prediction."""
    networks = sorted({timing.network for timing in timings})
    if len(networks) < FEWEST_NETS:
        raise Unpredictable(
            f"{len(networks)} networks were profiled: at least {FEWEST_NETS} are needed."
        )
    gaps: list[float] = []
    for left in _turns(networks):
        kept = _fit([timing for timing in timings if timing.network not in left])
        for network in sorted(left):
            gaps += _gaps(kept, [timing for timing in timings if timing.network == network])
    if not gaps:
        raise Unpredictable("Each network has operators that no other has: nothing can be checked.")
    spread = max(LEAST_SD, math.sqrt(math.fsum(gap**2 for gap in gaps) / len(gaps)))
    return OperatorModel(_fit(timings), _lines(exchanges), spread, len(networks))


def _turns(networks: Sequence[str]) -> list[frozenset[str]]:
    """Which networks are left out together: each alone, or TURNS groups that differ by one."""
    many = min(len(networks), TURNS)
    return [frozenset(networks[at::many]) for at in range(many)]


def _fit(timings: Sequence[Timing]) -> dict[str, DeviceModel]:
    by_device = _grouped(timings, lambda timing: timing.device)
    return {device: _device(of_device) for device, of_device in by_device.items()}


def _gaps(models: Mapping[str, DeviceModel], left: Sequence[Timing]) -> list[float]:
    """Log error of the step of one network left out, by device where it can be predicted."""
    gaps = []
    for device, timings in _grouped(left, lambda timing: timing.device).items():
        try:
            told = math.fsum(models[device].seconds(timing.operator) for timing in timings)
        except (KeyError, Unpredictable):
            continue
        taken = math.fsum(timing.seconds for timing in timings)
        if told > 0:
            gaps.append(math.log(told / taken))
    return gaps


def _device(timings: Sequence[Timing]) -> DeviceModel:
    on_gpu = [timing for timing in timings if not timing.operator.on_cpu]
    kinds = _grouped(on_gpu, lambda timing: timing.operator.kind)
    total = {kind: math.fsum(one.seconds for one in own) for kind, own in kinds.items()}
    least = HEAVY_SHARE * math.fsum(total.values())
    heavy = {kind: _curve(kinds[kind]) for kind in sorted(kinds) if total[kind] >= least}
    light = [timing.seconds for timing in on_gpu if timing.operator.kind not in heavy]
    on_cpu = [timing.seconds for timing in timings if timing.operator.on_cpu]
    return DeviceModel(
        heavy,
        {kind: max(one.operator.size for one in own) for kind, own in sorted(kinds.items())},
        median(light) if light else None,
        median(on_cpu) if on_cpu else None,
    )


def _curve(timings: Sequence[Timing]) -> tuple[float, ...]:
    """Coefficients of 1, size and, when that errs less on networks left out, size^2."""
    sizes = np.array([timing.operator.size for timing in timings])
    seconds = np.array([timing.seconds for timing in timings])
    distinct = len(set(sizes.tolist()))
    degrees = [degree for degree in (1, 2) if degree < distinct]
    if not degrees:
        return (float(np.median(seconds)),)
    networks = [timing.network for timing in timings]
    errors = {degree: _error(sizes, seconds, networks, degree) for degree in degrees}
    return _weighted(sizes, seconds, min(degrees, key=lambda degree: (errors[degree], degree)))


def _error(sizes: Array, seconds: Array, networks: Sequence[str], degree: int) -> float:
    """Mean relative error of the networks left out in turn; 0 when there is only one."""
    turns = _turns(sorted(set(networks)))
    turn_of = {network: turn for turn, left in enumerate(turns) for network in left}
    owners = np.array([turn_of[network] for network in networks])
    missed: list[float] = []
    for left in range(len(turns)):
        kept, out = owners != left, owners == left
        if len(set(sizes[kept].tolist())) <= degree:
            continue
        told = np.polynomial.polynomial.polyval(
            sizes[out], _weighted(sizes[kept], seconds[kept], degree)
        )
        missed += (np.abs(told - seconds[out]) / seconds[out]).tolist()
    return math.fsum(missed) / len(missed) if missed else 0.0


def _lines(exchanges: Sequence[Exchange]) -> dict[tuple[str, int], tuple[float, ...]]:
    found = {}
    groups = _grouped(exchanges, lambda exchange: (exchange.device, exchange.gpus))
    for key, group in groups.items():
        parameters = np.array([exchange.parameters for exchange in group])
        seconds = np.array([exchange.seconds for exchange in group])
        if len(set(parameters.tolist())) < 2:
            raise Unpredictable(
                f"Communication of {key[1]} {key[0]} was timed for one model size: time another."
            )
        found[key] = _weighted(parameters, seconds, 1)
    return found


def _weighted(sizes: Array, seconds: Array, degree: int) -> tuple[float, ...]:
    """Non-negative coefficients of least squared relative error."""
    scale = float(np.max(np.abs(sizes))) or 1.0
    powers = np.vander(sizes / scale, degree + 1, increasing=True) / seconds[:, None]
    found, _ = nnls(powers, np.ones(len(seconds)))
    return tuple(float(value) / scale**power for power, value in enumerate(found))


def _grouped(things: Sequence[Thing], key: Callable[[Thing], Group]) -> dict[Group, list[Thing]]:
    found: dict[Group, list[Thing]] = {}
    for thing in things:
        found.setdefault(key(thing), []).append(thing)
    return found


def _present(value: float | None, what: str) -> float:
    if value is None:
        raise Unpredictable(f"No {what} were ever timed here.")
    return value


def _positive(value: float, what: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what} is {value}: a positive, finite number is needed.")


def _checked(seconds: float, what: str) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{what} took {seconds} s: a time is a positive, finite number.")
