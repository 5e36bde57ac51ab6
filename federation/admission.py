"""What a site says beforehand of the jobs that it does not take, and what it has refused. Pure.

A site keeps the last word on every lease. So that it is no free choice after the award, a refusal
costs nothing only where the market was told before: see `announced`. Docs: "Set your own rules".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

LEAVING = "leaving"  #: the site hands back what it has, to leave


class Scope(StrEnum):
    """What a refusal is about, at its site."""

    TENANT = "tenant"
    CLASS = "class"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the market learns from a code: whom the site is not offered to, and for how long."""

    scope: Scope
    holds: timedelta
    passing: bool = False  #: of a moment, not of a rule: over with the site's next offer


_LONG, _DAY, _HOUR = timedelta(days=7), timedelta(days=1), timedelta(hours=1)
#: codes of the refusals that are a site's own rules; any other is a lease that it could not keep
LESSONS = {
    "tenant_not_admitted": Lesson(Scope.TENANT, _LONG),
    "class_not_admitted": Lesson(Scope.CLASS, _LONG),
    "too_many_gpus": Lesson(Scope.JOB, _DAY),
    "kept_for_local_users": Lesson(Scope.JOB, _DAY),
    "walltime_too_long": Lesson(Scope.JOB, _DAY),
    "outside_hours": Lesson(Scope.JOB, _HOUR, passing=True),
    "draining": Lesson(Scope.JOB, _HOUR, passing=True),
    "policy_unreadable": Lesson(Scope.JOB, _HOUR, passing=True),
    LEAVING: Lesson(Scope.JOB, _HOUR, passing=True),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """A job as far as a site's rules look at it."""

    tenant: str  #: name
    job_class: str  #: name
    max_runtime_s: float
    gpus: int  #: the least that it asks for


@dataclass(frozen=True, slots=True)
class Published:
    """The rules that a site has put in its offer; an empty one says nothing."""

    digest: str = ""  #: of all its rules, published or not
    tenants_allow: tuple[str, ...] = ()  #: names, * for any part; () = every tenant
    tenants_deny: tuple[str, ...] = ()
    classes_allow: tuple[str, ...] = ()
    classes_deny: tuple[str, ...] = ()
    max_gpus: int | None = None
    max_runtime_s: float | None = None
    hours: tuple[str, ...] = ()  #: for people
    time_zone: str = ""

    def document(self) -> dict[str, Any]:
        """As it is stored; what says nothing is left out."""
        said = ((one.name, getattr(self, one.name)) for one in fields(self))
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in said}
        return {name: value for name, value in plain.items() if value not in (None, "", [])}

    def refuses_tenant(self, name: str) -> bool:
        return _outside(name, self.tenants_allow, self.tenants_deny)

    def refuses_class(self, name: str) -> bool:
        return _outside(name, self.classes_allow, self.classes_deny)

    def refusal(self, wish: Wish) -> str | None:
        """Code of the first rule that a job breaks whatever it is given, or None."""
        if self.refuses_tenant(wish.tenant):
            return "tenant_not_admitted"
        if self.refuses_class(wish.job_class):
            return "class_not_admitted"
        if self.max_gpus is not None and wish.gpus > self.max_gpus:
            return "too_many_gpus"
        if self.max_runtime_s is not None and wish.max_runtime_s > self.max_runtime_s:
            return "walltime_too_long"
        return None


def published(document: Mapping[str, Any]) -> Published:
    """The value of `Published.document`."""
    plain: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in document.items()
    }
    return Published(**plain)


def _outside(name: str, allow: tuple[str, ...], deny: tuple[str, ...]) -> bool:
    if any(fnmatchcase(name, pattern) for pattern in deny):
        return True
    return bool(allow) and not any(fnmatchcase(name, pattern) for pattern in allow)


def announced(*, code: str, rules: Published, offered: int, wish: Wish) -> bool:
    """Whether a site had said a refusal of this code before the lease was made.

    `rules` and `offered`, GPUs of the pool, are those of its offer at that moment; `wish.gpus` are
    those of the lease. The rules count where they forbid this very job, and an offer of fewer GPUs
    says the rest: kept for local users, outside the hours, draining.
    """
    if offered < wish.gpus:
        return True
    said = {
        "tenant_not_admitted": rules.refuses_tenant(wish.tenant),
        "class_not_admitted": rules.refuses_class(wish.job_class),
        "too_many_gpus": rules.max_gpus is not None and wish.gpus > rules.max_gpus,
        "walltime_too_long": rules.max_runtime_s is not None
        and wish.max_runtime_s > rules.max_runtime_s,
    }
    return said.get(code, False)


@dataclass(frozen=True, slots=True)
class Doors:
    """Who is not let in where, as the sites' offers and refusals of today say.

    An empty one is what a federation without rules has: nothing is looked up then.
    """

    rules: Mapping[UUID, Published] = field(default_factory=dict)  #: by site
    tenants: Mapping[UUID, frozenset[UUID]] = field(default_factory=dict)  #: tenant -> sites
    classes: Mapping[UUID, frozenset[UUID]] = field(default_factory=dict)  #: class -> sites
    jobs: Mapping[UUID, frozenset[UUID]] = field(default_factory=dict)  #: job -> sites
    apart: frozenset[str] = frozenset()  #: text of tenants' ids that some site does not take
    long: Mapping[str, int] = field(default_factory=dict)  #: job -> limits that it is beyond

    @property
    def plain(self) -> bool:
        """No site has said anything."""
        return not (self.rules or self.tenants or self.classes or self.jobs)

    def shut(self, site: UUID, *, tenant: UUID, job_class: UUID, job: UUID, wish: Wish) -> str:
        """Code of why a site does not take a job, "" where it may."""
        if site in self.tenants.get(tenant, ()):
            return "tenant_not_admitted"
        if site in self.classes.get(job_class, ()):
            return "class_not_admitted"
        if site in self.jobs.get(job, ()):
            return "refused_before"
        rules = self.rules.get(site)
        return (rules.refusal(wish) if rules else None) or ""

    def shut_to_class(self, site: UUID, job_class: UUID, name: str) -> bool:
        """Whether a site takes no job of a class, whosever it is."""
        rules = self.rules.get(site)
        learnt = site in self.classes.get(job_class, ())
        return learnt or (rules is not None and rules.refuses_class(name))

    def most(self, site: UUID) -> int | None:
        """GPUs that a site gives one job at most."""
        rules = self.rules.get(site)
        return None if rules is None else rules.max_gpus

    def key(self, job: str, tenant: str, group: str) -> str:
        """Jobs of one key are alike to every site; `group` is that of `federation.grouping`."""
        if self.jobs and UUID(job) in self.jobs:
            return job
        beyond = self.long.get(job, 0)
        if not beyond and tenant not in self.apart:
            return group
        return f"{group}/{tenant if tenant in self.apart else ''}/{beyond}"


OPEN = Doors()
