"""What is known of a job class before anybody runs it: strict reading of its profile.

A profile is a JSON object; every key may be left out:

    work        name of the model, as public tables write it; classes of one work are kin
    operations  of one sample, forward and backward
    parameters  of the model
    batch       samples of a step on one GPU
    precision   "half" (16 bit) or "single" (32 bit)
    operators   [{"kind", "size", "on_cpu"}]: those of one step on one GPU, size in elements
    timings     [{"device", "seconds": [...]}]: what each operator took there, in their order
    exchanges   [{"device", "gpus", "seconds"}]: communication of one step on so many GPUs

Operators, timings and exchanges are the summary that the regression of `operators` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from economics.errors import Problem
from federation.affinity.coldstart.devices import recognise
from federation.affinity.coldstart.operators import Exchange, Network, Operator, Timing

KEYS = (
    *("work", "operations", "parameters", "batch", "precision"),
    *("operators", "timings", "exchanges"),
)
PRECISIONS = ("half", "single")
#: the least and the largest number that each may be: what lies outside is no work of this world,
#: and its logarithms and quotients would not be numbers that anybody can reckon with
BETWEEN = {"operations": (1.0, 1e24), "parameters": (1.0, 1e15), "batch": (1e-3, 1e9)}
WORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9 ._/-]{0,62}\Z")
KIND = re.compile(r"[a-zA-Z0-9_.:-]{1,63}\Z")
#: of the lists: a profile of them all is smaller than what one request may send
MOST_OPERATORS = 1000
MOST_TIMINGS = 20
MOST_TIMES = 3000  #: operators times devices that they were timed on
MOST_EXCHANGES = 40
MOST_ELEMENTS = 1e18
SECONDS = (1e-9, 1e6)  #: the least and the longest time
MOST_GPUS = 1_000_000


class BadProfile(ValueError):
    """A profile that does not fit; a problem for each field."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.path}: {problem.why}" for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as it is worked with; None and empty = not said."""

    work: str = ""
    operations: float | None = None  #: per sample
    parameters: float | None = None
    batch: float | None = None  #: samples of a step on one GPU
    precision: str = "half"
    operators: tuple[Operator, ...] = ()
    seconds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  #: device -> of each
    exchanges: Mapping[tuple[str, int], float] = field(default_factory=dict)  #: seconds

    @property
    def times(self) -> int:
        """How many times of operators it tells."""
        return len(self.operators) * len(self.seconds)

    def network(self, name: str) -> Network | None:
        """Its summary of operators under a name; None where it sent none."""
        if not self.operators:
            return None
        return Network(name, self.operators, self.parameters or 0.0)

    def timings(self, name: str) -> list[Timing]:
        """What its operators were timed at."""
        return [
            Timing(name, device, operator, taken)
            for device, seconds in self.seconds.items()
            for operator, taken in zip(self.operators, seconds, strict=True)
        ]

    def exchanged(self, name: str) -> list[Exchange]:
        """What its communication was timed at."""
        return [
            Exchange(name, device, gpus, self.parameters or 0.0, seconds)
            for (device, gpus), seconds in self.exchanges.items()
        ]


def read_profile(document: object) -> Profile:
    """A profile from JSON. Raises `BadProfile` with a sentence for each field that does not fit."""
    if not isinstance(document, dict):
        raise BadProfile([Problem("profile", "a JSON object is expected")])
    known = ", ".join(KEYS)
    problems = [
        Problem(str(key), f"unknown field; a profile may hold {known}")
        for key in sorted(set(document) - set(KEYS), key=str)
    ]
    problems += [*_words(document), *_numbers(document), *_needed(document)]
    problems += _operators(document.get("operators", []))
    if not problems:
        problems += _timings(document) + _exchanges(document)
    if problems:
        raise BadProfile(problems)
    return _profile(document)


def _words(document: Mapping[str, Any]) -> list[Problem]:
    problems = []
    work = document.get("work", "x")
    if not (isinstance(work, str) and WORK.match(work)):
        why = "the model's name: letters, digits, space, dot, dash, underscore, slash; at most 63"
        problems.append(Problem("work", why))
    if document.get("precision", "half") not in PRECISIONS:
        problems.append(Problem("precision", '"half" (16 bit) or "single" (32 bit)'))
    return problems


def _numbers(document: Mapping[str, Any]) -> list[Problem]:
    return [
        Problem(name, f"a number above 0: at least {least:g} and at most {most:g}")
        for name, (least, most) in BETWEEN.items()
        if name in document and not _fits(document[name], least, most)
    ]


def _needed(document: Mapping[str, Any]) -> list[Problem]:
    """What a list of operators says nothing without."""
    wanted = {
        "operators": (("batch", "the samples of the step"), ("parameters", "the model's size")),
        "timings": (("operators", "the operators that were timed, in their order"),),
        "exchanges": (("operators", "the operators of the step"),),
    }
    return [
        Problem(missing, f"{name} need {what}: say {missing} too")
        for name, others in wanted.items()
        for missing, what in others
        if name in document and missing not in document
    ]


def _operators(rows: object) -> list[Problem]:
    if not isinstance(rows, list) or len(rows) > MOST_OPERATORS:
        return [Problem("operators", f"a list of at most {MOST_OPERATORS} operators")]
    problems: list[Problem] = []
    for at, row in enumerate(rows):
        problems += _operator(row, f"operators[{at}]")
    return problems


def _operator(row: object, path: str) -> list[Problem]:
    if not isinstance(row, dict) or not {"kind", "size"} <= set(row) <= {"kind", "size", "on_cpu"}:
        return [Problem(path, "an object with kind and size, and on_cpu if it runs there")]
    problems = []
    if not (isinstance(row["kind"], str) and KIND.match(row["kind"])):
        why = 'what it is, such as "Conv2D": letters, digits and _ . : -, at most 63'
        problems.append(Problem(f"{path}.kind", why))
    if not (_fits(row["size"], 0.0, 0.0) or _fits(row["size"], 1.0, MOST_ELEMENTS)):
        why = f"elements of its input: 0, or from 1 to {MOST_ELEMENTS:g}"
        problems.append(Problem(f"{path}.size", why))
    if not isinstance(row.get("on_cpu", False), bool):
        problems.append(Problem(f"{path}.on_cpu", "true or false"))
    return problems


def _timings(document: Mapping[str, Any]) -> list[Problem]:
    rows = document.get("timings", [])
    if not isinstance(rows, list) or len(rows) > MOST_TIMINGS:
        return [Problem("timings", f"a list of at most {MOST_TIMINGS} devices")]
    problems, seen = [], set[object]()
    many = len(document.get("operators", []))
    if many * len(rows) > MOST_TIMES:
        why = (
            f"at most {MOST_TIMES} times in all: these are {many} operators on {len(rows)} devices"
        )
        return [Problem("timings", why)]
    for at, row in enumerate(rows):
        path = f"timings[{at}]"
        if not isinstance(row, dict) or set(row) != {"device", "seconds"}:
            problems.append(Problem(path, "an object with device and seconds"))
            continue
        problems += _device(row["device"], f"{path}.device")
        taken = row["seconds"]
        if not (isinstance(taken, list) and len(taken) == many and all(map(_is_time, taken))):
            why = f"{many} times in seconds, one for each operator, each from {_times_allowed()}"
            problems.append(Problem(f"{path}.seconds", why))
        problems += _twice(path, _known(row["device"]), seen)
    return problems


def _exchanges(document: Mapping[str, Any]) -> list[Problem]:
    rows = document.get("exchanges", [])
    if not isinstance(rows, list) or len(rows) > MOST_EXCHANGES:
        return [Problem("exchanges", f"a list of at most {MOST_EXCHANGES} rows")]
    problems, seen = [], set[object]()
    for at, row in enumerate(rows):
        path = f"exchanges[{at}]"
        if not isinstance(row, dict) or set(row) != {"device", "gpus", "seconds"}:
            problems.append(Problem(path, "an object with device, gpus and seconds"))
            continue
        problems += _device(row["device"], f"{path}.device")
        gpus = row["gpus"]
        if isinstance(gpus, bool) or not isinstance(gpus, int) or not 1 <= gpus <= MOST_GPUS:
            problems.append(Problem(f"{path}.gpus", f"a whole number of GPUs, 1 to {MOST_GPUS}"))
        if not _is_time(row["seconds"]):
            problems.append(
                Problem(f"{path}.seconds", f"a time in seconds, from {_times_allowed()}")
            )
        problems += _twice(path, (_known(row["device"]), str(gpus)), seen)
    return problems


def _device(text: object, path: str) -> list[Problem]:
    if _known(text):
        return []
    return [Problem(path, 'no accelerator of the catalogue, such as "A100 80GB", is named')]


def _known(text: object) -> str:
    """The catalogue's name of an accelerator; empty when it has none."""
    device = recognise(text) if isinstance(text, str) and len(text) < 100 else None
    return "" if device is None else device.name


def _twice(path: str, key: object, seen: set[object]) -> list[Problem]:
    known = key in seen
    seen.add(key)
    return [Problem(path, "this device stands twice")] if known else []


def _is_time(value: object) -> bool:
    return _fits(value, *SECONDS)


def _times_allowed() -> str:
    return f"{SECONDS[0]:g} to {SECONDS[1]:g}"


def _fits(value: object, least: float, most: float) -> bool:
    """True for a number of JSON from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return least <= value <= most


def _profile(document: Mapping[str, Any]) -> Profile:
    numbers = {name: float(document[name]) for name in BETWEEN if name in document}
    operators = tuple(
        Operator(row["kind"], float(row["size"]), row.get("on_cpu", False))
        for row in document.get("operators", [])
    )
    seconds = {
        _known(row["device"]): tuple(map(float, row["seconds"]))
        for row in document.get("timings", [])
    }
    exchanges = {
        (_known(row["device"]), row["gpus"]): float(row["seconds"])
        for row in document.get("exchanges", [])
    }
    return Profile(
        work=document.get("work", ""),
        precision=document.get("precision", "half"),
        operators=operators,
        seconds=seconds,
        exchanges=exchanges,
        **numbers,
    )
