"""How long jobs wait at a site that also serves others, and what the delay costs their tenants.

A site is the queue M/M/c: c alike machines, Poisson arrivals of own and of foreign jobs, and
exponential service of one mean. With a the arrivals in a mean service time, B and C the formulas
of Erlang (loss and delay), and theta the rate at which a full site gets through its queue,

    B(0) = 1,  B(c) = a B(c-1) / (c + a B(c-1))          chance that all machines are busy, no queue
    C = c B / (c - a (1 - B))                            chance of waiting, a < c
    an own job's wait: 0 with chance 1 - C, else exponential with rate theta = c/s - arrivals

where s is the mean service time and `arrivals` are those that are served before a newcomer: all
when the site serves in order of arrival, the own ones alone when own jobs go first (none is
interrupted). The mean of a foreign job's wait follows from Cobham (1954).

A tenant's value falls with the wait: halved every `half_life_hours`, and gone after `limit_hours`.
The mean of what is left is a factor on the values w of a book, which is how a round takes a service
level into account. A book has one value for each job, so the factor is that of the queue at home.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from economics.book import read_book
from economics.errors import EconomicsError


class BadQueue(EconomicsError):
    """A queue or a service level that is not one."""


class Overloaded(EconomicsError):
    """More arrives than is served: the queue grows without end, and has no mean wait."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A site's machines and what arrives there; an hour is the unit of time."""

    machines: int
    own_per_hour: float
    foreign_per_hour: float
    service_hours: float  # mean
    own_first: bool = False

    def __post_init__(self) -> None:
        if self.machines < 1:
            raise BadQueue("a site has at least one machine")
        if not min(self.own_per_hour, self.foreign_per_hour) >= 0:
            raise BadQueue("arrivals are at least zero")
        if not 0 < self.service_hours < math.inf:
            raise BadQueue("a service time is positive and finite")
        if self.load >= self.machines:
            raise Overloaded(f"{self.load:g} machines' work arrives at {self.machines} machines")

    @property
    def load(self) -> float:
        """Machines busy on average."""
        return (self.own_per_hour + self.foreign_per_hour) * self.service_hours

    @property
    def served_per_hour(self) -> float:
        """Jobs an hour that a full site ends."""
        return self.machines / self.service_hours

    @property
    def catching_up(self) -> float:
        """Jobs an hour by which a full site shortens the queue before an own job (theta)."""
        before = self.own_per_hour + (0.0 if self.own_first else self.foreign_per_hour)
        return self.served_per_hour - before


@dataclass(frozen=True, slots=True)
class Waits:
    """Means over all jobs, those that start at once included."""

    chance: float  # that a job waits at all
    own_hours: float
    foreign_hours: float


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """What a wait does to the value of a job; by default nothing."""

    half_life_hours: float = math.inf
    limit_hours: float = math.inf

    def __post_init__(self) -> None:
        if not (self.half_life_hours > 0 and self.limit_hours >= 0):
            raise BadQueue("a half-life is positive and a limit at least zero")

    @property
    def loss_per_hour(self) -> float:
        """Rate at which value decays."""
        return math.log(2.0) / self.half_life_hours


def erlang_b(machines: int, load: float) -> float:
    """Chance that an arrival finds all machines busy when nobody waits (blocking)."""
    blocked = 1.0
    for count in range(1, machines + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


def erlang_c(machines: int, load: float) -> float:
    """Chance that an arrival has to wait; raises Overloaded unless load < machines."""
    if load >= machines:
        raise Overloaded(f"{load:g} machines' work arrives at {machines} machines")
    blocked = erlang_b(machines, load)
    return machines * blocked / (machines - load * (1.0 - blocked))


def waits_of(queue: Queue) -> Waits:
    """Chance and mean of waiting, own and foreign jobs apart."""
    chance = erlang_c(queue.machines, queue.load)
    own = chance / queue.catching_up
    left = 1.0 - queue.load / queue.machines
    return Waits(chance, own, own / left if queue.own_first else own)


def starts_within(queue: Queue, hours: float) -> float:
    """Chance that an own job starts after at most so many hours."""
    chance = erlang_c(queue.machines, queue.load)
    return 1.0 - chance * math.exp(-queue.catching_up * hours)


def value_kept(queue: Queue, level: ServiceLevel) -> float:
    """Mean share of an own job's value that is left when it starts, 0..1."""
    chance = erlang_c(queue.machines, queue.load)
    falling = queue.catching_up + level.loss_per_hour
    in_time = 1.0 - math.exp(-falling * level.limit_hours)
    return 1.0 - chance * (1.0 - queue.catching_up / falling * in_time)


def delayed_values(
    document: Mapping[str, Any], queues: Mapping[str, Queue], level: ServiceLevel
) -> dict[str, Any]:
    """The book with every job's value times what the queue at its home site leaves of it.

    Homes without a queue keep their values. The document is not changed; raises BadBook unless it
    is a book, and BadQueue for a queue at a site that the book does not name.
    """
    book = read_book(document)
    if unknown := sorted(set(queues) - set(book.sites)):
        raise BadQueue(f"the book names no site {', '.join(unknown)}")
    kept = {site: value_kept(queue, level) for site, queue in queues.items()}
    jobs = [{**job, "value": job["value"] * kept.get(job["site"], 1.0)} for job in document["jobs"]]
    return {**document, "jobs": jobs}
