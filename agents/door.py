"""Who comes in now: the site's policy as its file last said, and the operator's drain.

A drain begins when the broker has the offer of nothing: what it awarded before is taken.

Both files are looked at again whenever they change. A policy that cannot be read leaves the last
good one in force; where there was none since the start, nothing new is taken.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agents import drain, policy
from agents.clock import Clock, rfc3339
from agents.config import Config, Pool
from agents.drain import Drain
from agents.errors import ConfigError
from agents.log import event, trouble
from agents.orders import wish
from agents.policy import Policy, Veto
from agents.protocol import LeaseOrder, SitePolicy

UNREADABLE = Veto("policy_unreadable", "this site's own rules cannot be read; its operator is told")
CLOSING = timedelta(minutes=1)
NOTICE_S = 60.0  #: for which awards on their way are taken when the broker does not hear of a drain
Mark = tuple[int, int, int]  #: time of the last change in ns, bytes, inode


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy and where it stands."""

    policy: Policy | None  #: None: never read
    digest: str = ""  #: of the file's text
    read_at: str = ""
    trouble: str = ""  #: why the file as it is now could not be read


class Door:
    """Without a policy and a drain file it is open."""

    def __init__(self, *, config: Config, clock: Clock, drain_file: Path | None = None) -> None:
        self._config = config
        self._clock = clock
        self._drain_file = drain_file
        self._marks: dict[Path, Mark | None] = {}
        self._drain: Drain | None = None
        self._drain_seen = 0.0  # boottime
        self._drain_told = True  # the broker has had the offer of nothing
        self._rules = Rules(Policy() if config.policy is None else None)
        self.look()
        self._drain_told = True  # a restart: who drained before has told it before

    def look(self) -> None:
        """Read again what has changed; a look costs one `stat` for each file."""
        if self._config.policy is not None and self._changed(self._config.policy):
            self._read_policy(self._config.policy)
        if self._drain_file is not None and self._changed(self._drain_file):
            self._read_drain(self._drain_file)

    def _changed(self, path: Path) -> bool:
        try:
            found = path.stat()
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            mark = None
        changed = path not in self._marks or self._marks[path] != mark
        self._marks[path] = mark
        return changed

    def _read_policy(self, path: Path) -> None:
        try:
            text = policy.text_of(path)
            found = policy.read(text, str(path))
        except ConfigError as error:
            self._rules = replace(self._rules, trouble=str(error))
            kept = "the last good one stands" if self._rules.policy else "no new lease is taken"
            trouble("policy.unreadable", why=str(error), until_mended=kept)
            return
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._rules = Rules(found, digest, rfc3339(self._clock.wall()))
        event("policy.read", file=str(path), digest=digest[:12])

    def _read_drain(self, path: Path) -> None:
        found = drain.read(path)
        if found != self._drain:
            what = "open" if found is None else "leave" if found.leave else "drain"
            event(f"site.{what}", reason="" if found is None else found.reason)
        if self._drain is None:
            self._drain_seen, self._drain_told = self._clock.boottime(), False
        self._drain = found

    def told(self) -> None:
        """The broker has the offer as it is now: what it awards from here on, it could know."""
        self._drain_told = True

    # -- what it says -----------------------------------------------------------------------------

    @property
    def leaving(self) -> Drain | None:
        """The operator's word to hand back what runs and end."""
        return self._drain if self._drain is not None and self._drain.leave else None

    @property
    def untold(self) -> bool:
        """Drained, and the broker may not have heard of it."""
        return self._drain is not None and not self._drain_told

    @property
    def closed(self) -> bool:
        """Drained, and the broker was told or could not be reached for a while."""
        patience = self._clock.boottime() - self._drain_seen >= NOTICE_S
        return self._drain is not None and (self._drain_told or patience)

    def veto(self, lease: LeaseOrder) -> Veto | None:
        """Why this lease may not start now, or None. The pool is one of the site's."""
        if self._drain is not None and self.closed:
            return Veto("draining", f"this site takes nothing new: {self._drain.reason}")
        if self._rules.policy is None:
            return UNREADABLE
        pool = self._config.pool(lease.pool)
        if pool is None:
            return None
        return policy.veto(self._rules.policy, wish(lease, pool), self._now())

    def room(self, pool: Pool) -> int:
        """GPUs of a pool that federated jobs may hold at once, whatever the time."""
        rules = self._rules.policy
        return 0 if rules is None else rules.offered(pool.name, pool.gpus)

    def offered(self, pool: Pool) -> int:
        """GPUs of a pool that new leases may have now; what runs there is left alone.

        The offer closes CLOSING before the hours end, so that no award comes too late.
        """
        rules, now = self._rules.policy, self._now()
        if self._drain is not None or rules is None:
            return 0
        return self.room(pool) if rules.open_at(now) and rules.open_at(now + CLOSING) else 0

    @property
    def notice(self) -> str:
        """What to say with an offer of nothing."""
        return "" if self._drain is None else f"draining: {self._drain.reason}"

    def published(self) -> SitePolicy | None:
        """The rules as they go with the offer; None where there is no policy."""
        rules = self._rules.policy
        if self._config.policy is None or rules is None:
            return None
        if not rules.publish:
            return SitePolicy(self._rules.digest)
        return SitePolicy(
            digest=self._rules.digest,
            tenants_allow=rules.tenants.allow,
            tenants_deny=rules.tenants.deny,
            classes_allow=rules.classes.allow,
            classes_deny=rules.classes.deny,
            max_gpus=rules.max_gpus,
            max_runtime_s=rules.max_walltime_s,
            hours=tuple(hours.text for hours in rules.hours),
            time_zone=rules.time_zone if rules.hours else "",
        )

    def status(self) -> dict[str, Any]:
        """For `hanse agent status`; changes only when something does."""
        rules, path = self._rules, self._config.policy
        return {
            "policy": None if path is None else str(path),
            "read_at": rules.read_at,
            "trouble": rules.trouble,
            "in_force": rules.policy is not None,
            "draining": None if self._drain is None else self._drain.reason,
            "leaving": self.leaving is not None,
        }

    def _now(self) -> datetime:
        return self._clock.wall()
