"""What a job reports about its speed, and what may be asked of a model of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from federation.errors import FederationError

LONGEST_S = 1e9  #: longer than any step; what is beyond is a wrong unit
SHORTEST_S = 1e-9
MOST = 1e9  #: nodes, replicas, batch, accumulation
LEAST_BATCH = 1e-6


class BadSamples(FederationError):
    """Samples or configurations that nothing can be learned from; one sentence for each."""

    code = "bad_samples"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[BadSamples], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to run a data-parallel job.

    `nodes`: machines that hold at least one replica each. `replicas`: GPUs. `local_batch`: samples
    on one GPU in one pass. `accumulation`: passes before the one that ends with the all-reduce, so
    a step has `replicas * local_batch * (accumulation + 1)` samples.
    """

    nodes: int
    replicas: int
    local_batch: float
    accumulation: int = 0

    @property
    def samples_per_step(self) -> float:
        return self.replicas * self.local_batch * (self.accumulation + 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured step, or the mean of some: seconds of the step, and of its all-reduce if known.

    `sync_s` is the time that the step waited for other replicas, as a training loop sees it.
    """

    nodes: int
    replicas: int
    local_batch: float
    accumulation: int
    step_s: float
    sync_s: float | None = None

    @property
    def configuration(self) -> Configuration:
        return Configuration(self.nodes, self.replicas, self.local_batch, self.accumulation)


def configuration_problem(asked: Configuration) -> str | None:
    """Why this cannot be run, or None."""
    for name in ("nodes", "replicas"):
        value = getattr(asked, name)
        if not (math.isfinite(value) and value >= 1 and value == int(value)):
            return f"{name} is {value:g}: it must be a whole number of at least 1"
    if not (math.isfinite(asked.local_batch) and LEAST_BATCH <= asked.local_batch <= MOST):
        return f"local_bsz is {asked.local_batch:g}: it must lie between 1e-6 and 1e9"
    steps = asked.accumulation
    if not (math.isfinite(steps) and steps >= 0 and steps == int(steps)):
        return f"accum_steps is {steps:g}: it must be a whole number of at least 0"
    if asked.nodes > asked.replicas:
        return f"{asked.replicas:g} replicas cannot stand on {asked.nodes:g} nodes"
    if max(asked.replicas, steps) > MOST:
        return "replicas and accum_steps must be at most 1e9"
    return None


def sample_problem(sample: Sample) -> str | None:
    """Why nothing can be learned from this sample, or None."""
    if why := configuration_problem(sample.configuration):
        return why
    if not (math.isfinite(sample.step_s) and SHORTEST_S <= sample.step_s <= LONGEST_S):
        return f"step_time_s is {sample.step_s:g}: a time is above 0, finite and below 1e9 seconds"
    sync = sample.sync_s
    if sync is None:
        return None
    if not (math.isfinite(sync) and sync >= 0):
        return f"sync_time_s is {sync:g}: a time is finite and not negative"
    if sync >= sample.step_s:
        return f"sync_time_s {sync:g} is not below step_time_s {sample.step_s:g}"
    return None
