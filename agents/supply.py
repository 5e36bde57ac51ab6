"""How much of the site is on offer: what is configured, what local users leave, what the rules let.

Local users come and go by the second, an offer should not: `damped` shows less at most once a
minute, more only when it has lasted, and nothing at once when nothing is left. Rules and the
operator's drain are people's decisions and hold from the moment they are read.

An offer may shrink below what already runs. Nothing is stopped by that: the broker places nothing
new in such a pool and lets what is there go on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agents.clock import Clock
from agents.config import Config
from agents.door import Door
from agents.drivers.base import Driver
from agents.errors import AgentError
from agents.journal import Journal
from agents.log import event, trouble

ASK_S = 10.0  #: between two questions to the scheduler
QUIET_S = 60.0  #: between two changes of a pool's offer that local users cause
LASTING_S = 60.0  #: for which more must be left before more is offered
FIRST_WORD_S = 5.0  #: that an agent waits after its start for the scheduler's first answer


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of a pool that local users share. Times are boottime."""

    gpus: int
    changed_at: float
    more: int | None = None  #: the least that was left since `more_since`, above `gpus`
    more_since: float = 0.0


def damped(last: Shown | None, left: int, now: float) -> Shown:
    """What to show of a pool with so many GPUs left for the federation."""
    if last is None:
        return Shown(left, now)
    if left == last.gpus:
        return replace(last, more=None)
    if left > last.gpus:
        return _rise(last, left, now)
    if left == 0 or now - last.changed_at >= QUIET_S:
        return Shown(left, now)
    return replace(last, more=None)


def _rise(last: Shown, left: int, now: float) -> Shown:
    """More, as much of it as was left throughout."""
    since = now if last.more is None else last.more_since
    more = left if last.more is None else min(last.more, left)
    if now - since >= LASTING_S and now - last.changed_at >= QUIET_S:
        return Shown(more, now)
    return replace(last, more=more, more_since=since)


class Room:
    """GPUs of each pool that are on offer now."""

    def __init__(
        self, *, config: Config, door: Door, driver: Driver, journal: Journal, clock: Clock
    ) -> None:
        self.door = door
        self._config = config
        self._driver = driver
        self._journal = journal
        self._clock = clock
        self._shown: dict[str, Shown] = {}
        self._began = clock.boottime()
        self._heard = False  # an answer of the scheduler, or why there is none
        self._why = ""
        self._next_ask = 0.0
        self._told = ""

    # -- the scheduler, asked by a courier ---------------------------------------------------------

    def due(self) -> bool:
        """Whether the scheduler is to be asked again."""
        return self._clock.boottime() >= self._next_ask

    def ask(self, request: object = None) -> Mapping[str, int] | None:
        """GPUs left by pool, None where no local users share them. In the courier's thread."""
        found = self._driver.supply()
        return None if found is None else {name: pool.left for name, pool in found.pools.items()}

    def hear(self, left: Mapping[str, int] | None) -> None:
        """The scheduler's answer."""
        now = self._clock.boottime()
        self._heard, self._next_ask = True, now + ASK_S
        if self._why:
            event("supply.known_again")
        self._why = ""
        for name, gpus in (left or {}).items():
            before = self._shown.get(name)
            after = damped(before, gpus, now)
            if before is None or before.gpus != after.gpus:
                event("supply.changed", pool=name, left=after.gpus)
            self._shown[name] = after

    def miss(self, error: Exception) -> None:
        """It could not be known: what was shown last still stands."""
        self._heard, self._next_ask = True, self._clock.boottime() + ASK_S
        why = str(error) if isinstance(error, AgentError) else repr(error)
        if why != self._why:
            trouble("supply.unknown", why=why)
        self._why = why

    # -- what is on offer --------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """False for a moment after the start, in which the first answer may come."""
        return self._heard or self._clock.boottime() - self._began >= FIRST_WORD_S

    def gpus(self) -> dict[str, int]:
        """By pool; 0 where nothing new may start now."""
        return {
            pool.name: min(self.door.offered(pool), self._left(pool.name, pool.gpus))
            for pool in self._config.pools
        }

    def _left(self, pool: str, configured: int) -> int:
        shown = self._shown.get(pool)
        return configured if shown is None else shown.gpus

    def tell(self) -> None:
        """Keep for `hanse agent status` what is in force, when it has changed."""
        value = {**self.door.status(), "offered": self.gpus(), "supply_trouble": self._why}
        text = json.dumps(value, sort_keys=True)
        if text != self._told:
            self._told = text
            self._journal.note(NOTE, text)


NOTE = "room"  #: name of the journal's note that `Room.tell` writes
