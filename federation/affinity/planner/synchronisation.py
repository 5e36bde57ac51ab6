"""How the variables of a job are kept alike on all its GPUs: by servers, by all-reduce, or both.

Four strategies, built as AutoDist builds them (Zhang et al., "AutoSync", 2020, and its builders):

- `all_reduce`: every variable, in groups of 128;
- `parameter_server`: each variable on the server that has the fewest bytes so far;
- `partitioned_server`: each variable cut along its first axis by the smallest divisor above 1, or
  into as many pieces as there are servers if those are fewer, on the servers that have the fewest
  bytes so far;
- `sparse_to_server`: dense variables by all-reduce, sparse ones on servers (Parallax, Kim et al.,
  2019).

AutoDist's learned estimate of their times is not public. Ours: bytes over the slowest link, and the
hops one after the other. A server receives from every worker and sends to every worker; a ring of d
moves 2 (d-1)/d of the bytes in 2 (d-1) hops; sparse rows in a ring are gathered from everybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from economics.errors import Problem
from federation.affinity.planner.checks import NOT_NEGATIVE, POSITIVE, SHARE, count, refuse_any
from federation.affinity.planner.plan import DIGITS
from federation.affinity.planner.pool import Pool
from federation.affinity.planner.splits import divisors

GROUP = 128  #: variables that are reduced in one message
LATENCY_S = 2e-5  #: of one hop
ALL_REDUCE = "all_reduce"
SERVER = "parameter_server"


@dataclass(frozen=True, slots=True)
class Variable:
    """A trainable tensor of the job."""

    name: str
    rows: int  #: length of its first axis
    size: float  #: bytes
    touched: float = 1.0  #: share of the rows that a worker updates in a step; below 1 is sparse

    def __post_init__(self) -> None:
        path = f"variables.{self.name}"
        refuse_any(
            [
                count(1e12).problem(f"{path}.rows", self.rows),
                POSITIVE.problem(f"{path}.size", self.size),
                SHARE.problem(f"{path}.touched", self.touched),
            ]
        )

    @property
    def sparse(self) -> bool:
        """Whether a step leaves most rows alone."""
        return self.touched < 1.0

    @property
    def moved(self) -> float:
        """Bytes that one worker has to hand on in a step."""
        return self.size * self.touched


@dataclass(frozen=True, slots=True)
class Resources:
    """The resource specification: who computes, who serves, and their links in bytes/s."""

    workers: int
    servers: int
    worker_bytes_s: float  #: of one worker, one way
    server_bytes_s: float  #: of one server, one way
    latency_s: float = LATENCY_S

    def __post_init__(self) -> None:
        refuse_any(
            [
                count(1e6).problem("workers", self.workers),
                count(1e6).problem("servers", self.servers),
                POSITIVE.problem("worker_bytes_s", self.worker_bytes_s),
                POSITIVE.problem("server_bytes_s", self.server_bytes_s),
                NOT_NEGATIVE.problem("latency_s", self.latency_s),
            ]
        )


def resources_of(pool: Pool, gpus: int) -> Resources:
    """A server on each node, with the links of all the GPUs that the job has there."""
    nodes = math.ceil(gpus / pool.gpus_per_node)
    link = pool.device.inter if nodes > 1 else pool.device.intra
    return Resources(gpus, nodes, link, link * min(gpus, pool.gpus_per_node))


@dataclass(frozen=True, slots=True)
class Synchroniser:
    """How one variable is kept alike."""

    variable: str
    by: str  #: all_reduce or parameter_server
    group: int | None = None  #: of the all-reduce
    servers: tuple[int, ...] = ()  #: of each piece

    def document(self) -> dict[str, Any]:
        """For the launched command."""
        if self.by == ALL_REDUCE:
            return {"variable": self.variable, "by": self.by, "group": self.group}
        return {"variable": self.variable, "by": self.by, "servers": list(self.servers)}


@dataclass(frozen=True, slots=True)
class Synchronisation:
    """The quickest strategy, and what each of the four would take."""

    strategy: str
    seconds: float  #: of one step
    variables: tuple[Synchroniser, ...]  #: in the order given
    considered: tuple[tuple[str, float], ...]  #: seconds of a step, by strategy

    def document(self) -> dict[str, Any]:
        """For the launched command."""
        return {
            "strategy": self.strategy,
            "seconds": round(self.seconds, DIGITS),
            "variables": [one.document() for one in self.variables],
            "considered": {name: round(seconds, DIGITS) for name, seconds in self.considered},
        }


Build = Callable[[Sequence[Variable], Resources], list[Synchroniser]]


def synchronise(variables: Sequence[Variable], resources: Resources) -> Synchronisation:
    """The quickest of the four; of equals the first. BadDescription without variables."""
    if not variables:
        refuse_any([Problem("variables", "there is none to keep alike")])
    names = [variable.name for variable in variables]
    twice = sorted({name for name in names if names.count(name) > 1})
    refuse_any(Problem("variables", f"{name!r} stands twice") for name in twice)
    built = {name: build(variables, resources) for name, build in STRATEGIES.items()}
    seconds = {
        name: synchronisation_seconds(variables, chosen, resources)
        for name, chosen in built.items()
    }
    best = min(STRATEGIES, key=lambda name: seconds[name])
    return Synchronisation(best, seconds[best], tuple(built[best]), tuple(seconds.items()))


def _all_reduce(variables: Sequence[Variable], resources: Resources) -> list[Synchroniser]:
    return [
        Synchroniser(variable.name, ALL_REDUCE, group=at // GROUP)
        for at, variable in enumerate(variables)
    ]


def _parameter_server(variables: Sequence[Variable], resources: Resources) -> list[Synchroniser]:
    return _served(variables, resources, lambda variable: 1)


def _partitioned_server(variables: Sequence[Variable], resources: Resources) -> list[Synchroniser]:
    if resources.servers == 1:  # pieces on one server are only more messages
        return _parameter_server(variables, resources)
    return _served(variables, resources, pieces_of)


def _sparse_to_server(variables: Sequence[Variable], resources: Resources) -> list[Synchroniser]:
    served = {
        one.variable: one
        for one in _parameter_server([v for v in variables if v.sparse], resources)
    }
    reduced = _all_reduce(variables, resources)
    return [served.get(one.variable, one) for one in reduced]


STRATEGIES: dict[str, Build] = {
    ALL_REDUCE: _all_reduce,
    SERVER: _parameter_server,
    "partitioned_server": _partitioned_server,
    "sparse_to_server": _sparse_to_server,
}


def pieces_of(variable: Variable) -> int:
    """The smallest divisor above 1 of its first axis."""
    found = divisors(variable.rows)
    return int(found[1]) if len(found) > 1 else 1


def _served(
    variables: Iterable[Variable], resources: Resources, pieces: Callable[[Variable], int]
) -> list[Synchroniser]:
    loads = [0.0] * resources.servers
    found = []
    for variable in variables:
        cut = min(pieces(variable), resources.servers)  # more would share servers again
        chosen = sorted(range(len(loads)), key=loads.__getitem__)[:cut]
        for server in chosen:
            loads[server] += variable.size / cut
        found.append(Synchroniser(variable.name, SERVER, servers=tuple(chosen)))
    return found


def synchronisation_seconds(
    variables: Sequence[Variable], chosen: Sequence[Synchroniser], resources: Resources
) -> float:
    """Seconds of one step, nothing overlapped; 0 with one worker."""
    if resources.workers == 1:
        return 0.0
    pairs = list(zip(variables, chosen, strict=True))
    reduced = [(v, how) for v, how in pairs if how.by == ALL_REDUCE]
    served = [(v, how) for v, how in pairs if how.by == SERVER]
    return _ring_seconds(reduced, resources) + _server_seconds(served, resources)


Pairs = Sequence[tuple[Variable, Synchroniser]]


def _ring_seconds(pairs: Pairs, resources: Resources) -> float:
    others = resources.workers - 1
    dense = sum(variable.size for variable, _ in pairs if not variable.sparse)
    rows = sum(variable.moved for variable, _ in pairs if variable.sparse)
    moved = 2.0 * others / resources.workers * dense + others * rows
    groups = len({how.group for _, how in pairs})
    return moved / resources.worker_bytes_s + 2 * others * groups * resources.latency_s


def _server_seconds(pairs: Pairs, resources: Resources) -> float:
    if not pairs:
        return 0.0
    loads = [0.0] * resources.servers
    for variable, how in pairs:
        for server in how.servers:
            loads[server] += variable.moved / len(how.servers)
    busiest = resources.workers * max(loads) / resources.server_bytes_s
    own = sum(variable.moved for variable, _ in pairs) / resources.worker_bytes_s
    return 2.0 * (max(busiest, own) + resources.latency_s)
