"""Networks with known operator times: what a regression on operators can be held against.

Four devices and eight kinds of heavy operators, six light ones and CPU operators, each with its own
coefficients drawn once. Measured times are the true ones times log-normal noise of 5 %, once for
each operator and once for the whole run of a network on a device, which no averaging removes.
Networks are random stacks of such operators, small and large. Nothing of it was measured anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from federation.affinity.coldstart.operators import Exchange, Network, Operator, Timing

HEAVY = ("Conv2D", "ConvFilterGrad", "ConvInputGrad", "MatMul", "Pool", "Norm", "Relu", "Add")
QUADRATIC = "ConvFilterGrad"
LIGHT = ("Reshape", "Concat", "Slice", "Cast", "Shape", "Identity")
DEVICES = {"V100": (1.0, 3.06), "T4": (0.42, 0.526), "M60": (0.22, 0.75), "K80": (0.16, 0.9)}
COUNTS = (1, 2, 3, 4)
NOISE = 0.05


@dataclass(frozen=True, slots=True)
class Truth:
    """The true coefficients in seconds."""

    heavy: dict[tuple[str, str], tuple[float, float, float]]  # of 1, size, size^2
    light: dict[tuple[str, str], float]
    on_cpu: float
    links: dict[tuple[str, int], tuple[float, float]]  # of 1, parameters

    def operator(self, device: str, operator: Operator) -> float:
        """Seconds of one operator."""
        if operator.on_cpu:
            return self.on_cpu
        if operator.kind in LIGHT:
            return self.light[device, operator.kind]
        base, line, square = self.heavy[device, operator.kind]
        return base + line * operator.size + square * operator.size**2

    def step(self, network: Network, device: str, gpus: int) -> float:
        """Seconds of one step of a network."""
        base, slope = self.links[device, gpus]
        compute = sum(self.operator(device, operator) for operator in network.operators)
        return compute + base + slope * network.parameters


def prices() -> dict[tuple[str, int], float]:
    """Credits per hour of each configuration."""
    return {(name, k): hourly * k for name, (_, hourly) in DEVICES.items() for k in COUNTS}


def truth(seed: int) -> Truth:
    """Coefficients drawn once."""
    drawn = np.random.default_rng(seed)
    heavy, links = {}, {}
    for device, (speed, _) in DEVICES.items():
        for kind in HEAVY:
            line = drawn.uniform(0.5, 2.0) * 1e-9 / speed
            square = drawn.uniform(0.5, 1.5) * 1e-16 / speed if kind == QUADRATIC else 0.0
            heavy[device, kind] = (drawn.uniform(1, 4) * 1e-5, line, square)
        for count in COUNTS:
            line = drawn.uniform(0.8, 1.2) * (0.1 + 0.25 * (count - 1)) * 1e-9
            links[device, count] = (drawn.uniform(1, 3) * 1e-3, line)
    light = {(device, kind): drawn.uniform(0.5, 2) * 1e-5 for device in DEVICES for kind in LIGHT}
    return Truth(heavy, light, drawn.uniform(1, 3) * 1e-4, links)


def networks(seed: int, count: int) -> list[Network]:
    """Random networks of 60 to 240 operators."""
    drawn = np.random.default_rng(seed)
    found = []
    for place in range(count):
        scale = 10 ** drawn.uniform(5.8, 7.2)
        sizes = scale * 10 ** drawn.uniform(-1, 0.5, int(drawn.integers(40, 160)))
        kinds = drawn.choice(HEAVY, len(sizes))
        operators = [Operator(str(k), float(s)) for k, s in zip(kinds, sizes, strict=True)]
        lights = drawn.choice(LIGHT, len(sizes) // 2)
        operators += [Operator(str(kind), float(drawn.uniform(1, 1e4))) for kind in lights]
        operators += [Operator("Input", 1.0, on_cpu=True)] * int(drawn.integers(2, 6))
        parameters = float(10 ** drawn.uniform(6.6, 8.2))
        found.append(Network(f"net{place}", tuple(operators), parameters))
    return found


def profile(
    true: Truth, profiled: list[Network], seed: int, noise: float = NOISE
) -> tuple[list[Timing], list[Exchange]]:
    """Every operator of the networks timed once on every device, with noise."""
    drawn = np.random.default_rng(seed)
    timings, exchanges = [], []
    for network in profiled:
        for device in DEVICES:
            run = noise * drawn.normal()
            for operator in network.operators:
                off = np.exp(run + noise * drawn.normal())
                seconds = true.operator(device, operator) * off
                timings.append(Timing(network.name, device, operator, float(seconds)))
            for count in COUNTS:
                base, slope = true.links[device, count]
                seconds = (base + slope * network.parameters) * np.exp(noise * drawn.normal())
                exchanges.append(
                    Exchange(network.name, device, count, network.parameters, float(seconds))
                )
    return timings, exchanges
