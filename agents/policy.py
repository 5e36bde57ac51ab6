"""What a site lets the federation do on its machines: the owner's last word. Pure.

A YAML file of its own, read strictly and read again when it changes, so that an administrator can
close the door without a restart. A whole example; every key may be left out:

    tenants: {allow: [vision-lab, chem-*], deny: [vision-lab-guests]}   # names; * stands for a part
    classes: {deny: [crypto-*]}
    hours: [mon-fri 18:00-08:00, sat-sun 00:00-24:00]   # when federated jobs may start
    time_zone: Europe/Berlin           # of the hours; default UTC
    keep: {a100: 2, v100: 25%}         # GPUs of a pool, or a part of it, kept for local users
    max_walltime_hours: 24             # longest a job may ask for
    max_gpus: 16                       # of one job
    publish: true       # say tenants, classes, hours and the two limits with the offer; default
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml

from agents.errors import ConfigError
from agents.reading import a_flag, a_list, a_mapping, a_positive, a_text, a_whole

KNOWN = "tenants classes hours time_zone keep max_walltime_hours max_gpus publish"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES = 24 * 60
_HOURS = re.compile(
    r"(?P<first>[a-z]{3})(-(?P<last>[a-z]{3}))? "
    r"(?P<from>[0-2][0-9]:[0-5][0-9])-(?P<to>[0-2][0-9]:[0-5][0-9])"
)
_PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._*-]{0,63}")
MAX_LIST = 1000


@dataclass(frozen=True, slots=True)
class Names:
    """Names that are let in: one of `allow` (none = every name) and none of `deny`."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def refuse(self, name: str) -> bool:
        """True when the name stays outside."""
        if any(fnmatchcase(name, pattern) for pattern in self.deny):
            return True
        return bool(self.allow) and not any(fnmatchcase(name, one) for one in self.allow)


@dataclass(frozen=True, slots=True)
class Hours:
    """A daily time on some days of the week; one that ends before it begins ends the next day."""

    days: tuple[int, ...]  #: 0 = Monday, of its beginning
    begin: int  #: minutes since midnight
    end: int
    text: str  #: as written

    def hold(self, local: datetime) -> bool:
        """True when the moment, in the site's own zone, lies inside."""
        day, minute = local.weekday(), local.hour * 60 + local.minute
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        yesterday = (day - 1) % len(DAYS)
        return (day in self.days and minute >= self.begin) or (
            yesterday in self.days and minute < self.end
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one site; an empty one forbids nothing."""

    tenants: Names = Names()
    classes: Names = Names()
    hours: tuple[Hours, ...] = ()
    time_zone: str = "UTC"
    keep_gpus: Mapping[str, int] = field(default_factory=dict)
    keep_part: Mapping[str, float] = field(default_factory=dict)  #: 0 to 1
    max_walltime_s: float | None = None
    max_gpus: int | None = None
    publish: bool = True  #: a refusal by a rule that was published with the offer costs nothing

    def open_at(self, now: datetime) -> bool:
        """Whether federated jobs may start at an aware moment."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        return not self.hours or any(hours.hold(local) for hours in self.hours)

    def offered(self, pool: str, gpus: int) -> int:
        """GPUs of a pool of so many that the federation may have."""
        kept = self.keep_gpus.get(pool, 0) + math.ceil(self.keep_part.get(pool, 0.0) * gpus)
        return max(0, gpus - kept)


@dataclass(frozen=True, slots=True)
class Wish:
    """A lease as far as a policy looks at it."""

    tenant: str  #: "" = the broker does not say
    job_class: str
    pool: str
    pool_gpus: int
    gpus: int
    max_runtime_s: float


@dataclass(frozen=True, slots=True)
class Veto:
    """Why a site does not take a lease: a code the market learns from, a sentence to read."""

    code: str
    why: str


def veto(policy: Policy, wish: Wish, now: datetime) -> Veto | None:
    """The first rule that the lease breaks at an aware moment, or None."""
    if policy.tenants.refuse(wish.tenant):
        who = wish.tenant or "a tenant that is not named"
        return Veto("tenant_not_admitted", f"this site takes no jobs of {who}")
    if policy.classes.refuse(wish.job_class):
        return Veto("class_not_admitted", f"this site takes no jobs of class {wish.job_class}")
    return _size(policy, wish) or _time(policy, wish, now)


def _size(policy: Policy, wish: Wish) -> Veto | None:
    most = policy.offered(wish.pool, wish.pool_gpus)
    if wish.gpus > most:
        why = (
            f"of the {wish.pool_gpus} GPUs of {wish.pool} the site's own users keep all but {most}"
        )
        return Veto("kept_for_local_users", why)
    if policy.max_gpus is not None and wish.gpus > policy.max_gpus:
        return Veto("too_many_gpus", f"this site gives a job at most {policy.max_gpus} GPUs")
    return None


def _time(policy: Policy, wish: Wish, now: datetime) -> Veto | None:
    longest = policy.max_walltime_s
    if longest is not None and wish.max_runtime_s > longest:
        why = (
            f"this site runs a job for at most {longest / 3600:g} h, "
            f"it asks for {wish.max_runtime_s / 3600:g} h: lower its max_runtime_s"
        )
        return Veto("walltime_too_long", why)
    if not policy.open_at(now):
        when = ", ".join(hours.text for hours in policy.hours)
        return Veto("outside_hours", f"this site starts federated jobs {when} {policy.time_zone}")
    return None


# --- reading ------------------------------------------------------------------------------------


def load(path: Path) -> Policy:
    """Read a policy file; raises ConfigError with the path of the first bad key."""
    return read(text_of(path), str(path))


def text_of(path: Path) -> str:
    """The file's text; raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None


def read(text: str, name: str) -> Policy:
    """Read the text of the file called `name`; raises ConfigError."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, say
        raise ConfigError(name, f"is not YAML: {error}") from None
    return parse({} if value is None else value)


def parse(value: Any) -> Policy:
    """Check plain values; raises ConfigError."""
    top = a_mapping(value, "config", KNOWN)
    gpus, parts = _keep(top.get("keep", {}))
    walltime = top.get("max_walltime_hours")
    most = top.get("max_gpus")
    return Policy(
        tenants=_names(top.get("tenants", {}), "tenants"),
        classes=_names(top.get("classes", {}), "classes"),
        hours=tuple(
            _hours(item, f"hours[{at}]") for at, item in enumerate(_some(top, "hours", "hours"))
        ),
        time_zone=_zone(top.get("time_zone", "UTC")),
        keep_gpus=gpus,
        keep_part=parts,
        max_walltime_s=None
        if walltime is None
        else a_positive(walltime, "max_walltime_hours") * 3600,
        max_gpus=None if most is None else a_whole(most, "max_gpus", least=1),
        publish=a_flag(top.get("publish", True), "publish"),
    )


def _some(mapping: dict[str, Any], key: str, path: str) -> list[Any]:
    found = a_list(mapping.get(key, []), path)
    if len(found) > MAX_LIST:
        raise ConfigError(path, f"at most {MAX_LIST} entries")
    return found


def _names(value: Any, path: str) -> Names:
    item = a_mapping(value, path, "allow deny")
    return Names(_patterns(item, "allow", path), _patterns(item, "deny", path))


def _patterns(item: dict[str, Any], key: str, path: str) -> tuple[str, ...]:
    here = f"{path}.{key}"
    found = []
    for at, one in enumerate(_some(item, key, here)):
        if not isinstance(one, str) or not _PATTERN.fullmatch(one):
            raise ConfigError(f"{here}[{at}]", "a name is expected, * for any part of it")
        found.append(one)
    return tuple(found)


def _hours(value: Any, path: str) -> Hours:
    text = a_text(value, path)
    found = _HOURS.fullmatch(text)
    ends = [found["first"], found["last"] or found["first"]] if found else []
    if found is None or any(day not in DAYS for day in ends):
        raise ConfigError(path, "days and times are expected: mon-fri 18:00-08:00")
    begin, end = _minutes(found["from"], path), _minutes(found["to"], path)
    if begin == end:
        raise ConfigError(path, "begins when it ends; 00:00-24:00 is the whole day")
    first, last = (DAYS.index(day) for day in ends)
    days = [(first + n) % len(DAYS) for n in range((last - first) % len(DAYS) + 1)]
    return Hours(tuple(sorted(days)), begin, end, text)


def _minutes(text: str, path: str) -> int:
    hour, minute = (int(part) for part in text.split(":"))
    if hour * 60 + minute > MINUTES:
        raise ConfigError(path, f"{text} is no time of the day")
    return hour * 60 + minute


def _zone(value: Any) -> str:
    name = a_text(value, "time_zone")
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigError("time_zone", f"{name[:80]} is no time zone") from None
    return name


def _keep(value: Any) -> tuple[dict[str, int], dict[str, float]]:
    if not isinstance(value, dict):
        raise ConfigError("keep", "a mapping of pool names is expected")
    gpus: dict[str, int] = {}
    parts: dict[str, float] = {}
    for pool, kept in value.items():
        path = f"keep.{pool}"
        if isinstance(kept, str) and re.fullmatch(r"(100|[0-9]{1,2})%", kept):
            parts[str(pool)] = int(kept[:-1]) / 100
        elif isinstance(kept, str):
            raise ConfigError(path, "a number of GPUs or a part such as 25% is expected")
        else:
            gpus[str(pool)] = a_whole(kept, path, least=0)
    return gpus, parts
