"""Which measurements nothing may be learned from, and why. Pure: no row is read or written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from federation.affinity.alarms import SLACK
from federation.affinity.samples import Sample, sample_problem

INT_32 = 2**31  #: columns of 32 bits
INT_63 = 2**63
TOO_FAST = "too_fast"


@dataclass(frozen=True, slots=True)
class SampleIn:
    """One measurement as it came with report `seq`. None is what the job did not say."""

    lease_id: UUID
    seq: int
    line: int  #: of the job's progress lines
    lines: int  #: that the job had written by then
    step_s: float | None
    local_batch: float | None
    replicas: int | None = None
    nodes: int | None = None
    accumulation: int | None = None
    sync_s: float | None = None
    gpu: str = ""
    grad_sqr: float | None = None
    grad_var: float | None = None
    memory_peak: int | None = None  #: bytes on one GPU
    problem: str = ""  #: what the agent could not read

    def body(self) -> dict[str, Any]:
        """As JSON values: a number that JSON has no word for as text."""
        values = asdict(self)
        values.pop("lease_id")
        return {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where it was measured: the lease's class, kind of GPU and GPUs."""

    job_class: UUID
    gpu: str
    gpus: int

    @property
    def pair(self) -> tuple[str, UUID]:
        return self.gpu, self.job_class


@dataclass(frozen=True, slots=True)
class Held:
    """Why a measurement is held back: a word for a machine, a sentence for a person."""

    code: str
    why: str


def held_back(sample: SampleIn, place: Place, fastest: float | None) -> Held | None:
    """The first thing that is wrong with it, or None.

    `fastest`: highest speed known of the class on one GPU of that kind, samples/s; None = unknown.
    """
    for check in CHECKS:
        why = check(sample, place)
        if why is not None:
            return why
    whole = _as_sample(sample, place)
    return _times(whole) or _extras(sample) or _too_fast(whole, place, fastest)


def _unread(sample: SampleIn, place: Place) -> Held | None:
    if sample.problem:
        return Held("unreadable", sample.problem)
    for name, value in (("step_time_s", sample.step_s), ("local_batch", sample.local_batch)):
        if value is None:
            return Held("incomplete", f"{name} is missing.")
    return None


def _line(sample: SampleIn, place: Place) -> Held | None:
    if not 1 <= sample.line < INT_32:
        return Held("out_of_range", f"line is {sample.line}: lines are counted from 1.")
    if sample.line > sample.lines:
        return Held("future", f"Line {sample.line} of {sample.lines} lines: not yet written.")
    return None


def _extras(sample: SampleIn) -> Held | None:
    for name, value in (("grad_sqr", sample.grad_sqr), ("grad_var", sample.grad_var)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            return Held("out_of_range", f"{name} is {value:g}: finite and not negative is right.")
    peak = sample.memory_peak
    if peak is not None and not 0 <= peak < INT_63:
        return Held("out_of_range", f"memory_peak_bytes is {peak:g}.")
    return None


def _gang(sample: SampleIn, place: Place) -> Held | None:
    if sample.replicas is not None and sample.replicas != place.gpus:
        return Held("wrong_gpus", f"{sample.replicas} replicas on a lease of {place.gpus} GPUs.")
    if sample.gpu and not same_kind(sample.gpu, place.gpu):
        return Held("other_gpu", f"{sample.gpu} was measured where the pool has {place.gpu}.")
    return None


def _times(whole: Sample) -> Held | None:
    why = sample_problem(whole)
    if why is None:
        return None
    # a step that is right by itself is at odds with what was said of its waiting
    at_odds = whole.nodes > whole.replicas or sample_problem(replace(whole, sync_s=None)) is None
    return Held("inconsistent" if at_odds else "out_of_range", f"{why}.")


CHECKS: tuple[Callable[[SampleIn, Place], Held | None], ...] = (
    _unread,
    _line,
    _gang,
)


def _too_fast(whole: Sample, place: Place, fastest: float | None) -> Held | None:
    if fastest is None:
        return None
    speed = whole.configuration.samples_per_step / whole.step_s
    if speed <= SLACK * fastest * place.gpus:
        return None
    return Held(
        TOO_FAST,
        f"{speed:.6g} samples/s, where nobody has shown or claimed more than {fastest:.6g} "
        "on one GPU of the kind.",
    )


def _as_sample(sample: SampleIn, place: Place) -> Sample:
    return Sample(
        nodes=1 if sample.nodes is None else sample.nodes,
        replicas=place.gpus if sample.replicas is None else sample.replicas,
        local_batch=sample.local_batch or 0.0,
        accumulation=sample.accumulation or 0,
        step_s=sample.step_s or 0.0,
        sync_s=sample.sync_s,
    )


@lru_cache(maxsize=1024)
def same_kind(said: str, kind: str) -> bool:
    """Whether a framework's name of a GPU can be the pool's kind.

    "NVIDIA A100-SXM4-80GB" is an "A100" and an "a100-80gb", and no "V100".
    """
    words, own = _words(said), _words(kind)
    joined, short = "".join(words), "".join(own)
    return short in joined or joined in short or bool(_models(words) & _models(own))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def _models(words: list[str]) -> set[str]:
    """Words such as a100: a letter, then a digit; not a size of memory."""
    return {word for word in words if re.fullmatch(r"[a-z]+\d+[a-z]*", word)} - {"sxm2", "sxm4"}
