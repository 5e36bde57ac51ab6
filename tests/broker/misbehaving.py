"""Works that do what a solver should not: hang, eat memory, die. For a real child process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from broker.solving import works
from broker.solving.errand import Errand, PartWork, Work
from broker.solving.regions import Fringes, Regions
from economics.book import read_book
from economics.clearing.tiers.fringes import Fringe, decide
from economics.clearing.tiers.grouping import group_market
from economics.clearing.tiers.regions import coordinate, regions_of
from economics.clearing.tiers.search import tiers_of
from economics.errors import NotCleared
from tests.economics.large import large_book

_calls: list[str] = []


def echo(errand: Errand) -> dict[str, Any]:
    """What it was given, who it is and how often it was asked: a child that lived on counts up."""
    _calls.append("echo")
    given = {name: errand.document(name) for name in errand.inputs}
    return {**given, **errand.parameters, "pid": os.getpid(), "calls": len(_calls)}


def hang(errand: Errand) -> dict[str, Any]:
    """Never end; a file says that it has begun."""
    if "mark" in errand.parameters:
        Path(errand.parameters["mark"]).touch()
    threading.Event().wait()
    raise AssertionError


def eat(errand: Errand) -> dict[str, Any]:
    """Take memory piece by piece and touch it, for ever."""
    held = []
    while True:
        held.append(np.ones(2**20))


def eat_at_once(errand: Errand) -> dict[str, Any]:
    np.ones(2**36)
    raise AssertionError


def die(errand: Errand) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def crash(errand: Errand) -> dict[str, Any]:
    """As a solver written in C++ dies when an allocation fails beneath it."""
    sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
    sys.stderr.flush()
    os.abort()


def leave(errand: Errand) -> dict[str, Any]:
    os._exit(3)


def stumble(errand: Errand) -> dict[str, Any]:
    raise IndexError("index 7 is out of bounds")


def give_up(errand: Errand) -> dict[str, Any]:
    raise NotCleared("infeasible")


def chatter(errand: Errand) -> dict[str, Any]:
    """A solver that prints on standard output, from Python and beneath it."""
    sys.stdout.write("Running HiGHS\n")
    os.write(1, b"\x00\x00\x00\x02{}")
    return {"said": True}


def not_a_number(errand: Errand) -> dict[str, Any]:
    return {"welfare": float("nan")}


def shared_out(errand: Errand) -> dict[str, Any]:
    """Sums of squares, computed in parts, twice over."""
    first = errand.spread("square", [str(n).encode() for n in errand.parameters["numbers"]])
    second = errand.spread("square", first)
    return {"squares": [int(x) for x in first], "total": sum(int(x) for x in second)}


def coordinated(errand: Errand) -> dict[str, Any]:
    """A market of many groups, cleared by regions whose answers are shared out."""
    market = read_book(large_book(errand.parameters["jobs"], pools=20, classes=8)).market
    grouping = group_market(market)
    asked = Regions(errand)
    found = coordinate(
        grouping.demand,
        market.capacity,
        tolerance=0.0,
        regions=regions_of(grouping.demand, grouping.home, errand.parameters["regions"]),
        apply=asked.apply,
        kept=asked.kept,
    )
    alone = tiers_of(grouping.demand, market.capacity, tolerance=0.0)
    return {
        "value": found.tiers.value,
        "bound": found.tiers.bound,
        "alone": alone.value,
        "rounds": found.rounds,
    }


def decided(errand: Errand) -> dict[str, Any]:
    """Programmes of whole gangs, decided apart and here."""
    asks = [Fringe(**ask) for ask in errand.parameters["fringes"]]
    return {
        "apart": Fringes(errand).apply(decide, asks),
        "here": [decide(ask) for ask in asks],
    }


def square(body: bytes, shelf: Path) -> bytes:
    return str(int(body) ** 2).encode()


def a_round(errand: Errand) -> dict[str, Any]:
    """A round that is decided as MISBEHAVIOUR says."""
    return WORKS[os.environ["MISBEHAVIOUR"]](errand)


WORKS: Mapping[str, Work] = {
    "round": a_round,
    **{
        work.__name__: work
        for work in (
            *(echo, hang, eat, eat_at_once, die, crash, leave, stumble, give_up, chatter),
            *(not_a_number, shared_out, coordinated, decided),
        )
    },
}
PARTS: Mapping[str, PartWork] = {**works.PARTS, "square": square}
