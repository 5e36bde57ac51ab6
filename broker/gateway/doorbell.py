"""Long polls wait here. One watcher for each process reads the sites' order versions.

A held sync costs a row in one shared query instead of a query of its own: the watcher reads the
versions of all the sites that somebody waits for and wakes those whose version moved.
"""

from __future__ import annotations

import asyncio
import contextvars
from uuid import UUID
from weakref import WeakKeyDictionary

import structlog
from asgiref.sync import sync_to_async
from django.db import connection
from django.db.utils import Error as DatabaseError

from federation.models import Site

LOOK_EVERY_S = 0.2
log = structlog.get_logger("hanse.gateway")


class Doorbell:
    """Wakes waiters when their site's orders change. One for each event loop."""

    def __init__(self) -> None:
        self._waiters: dict[UUID, list[tuple[int, asyncio.Future[None]]]] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def wait(self, site_id: UUID, version: int, timeout_s: float) -> bool:
        """True as soon as the site's orders are newer than `version`; False after the timeout."""
        bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (version, bell)
        self._waiters.setdefault(site_id, []).append(entry)
        if self._watcher is None or self._watcher.done():
            # a context of its own: the one of the request that came first ends with that request
            self._watcher = asyncio.create_task(self._watch(), context=contextvars.Context())
        try:
            await asyncio.wait_for(bell, timeout_s)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            waiting = self._waiters[site_id]
            waiting.remove(entry)
            if not waiting:
                del self._waiters[site_id]

    async def _watch(self) -> None:
        while self._waiters:
            try:
                versions = await sync_to_async(_versions, thread_sensitive=False)(
                    list(self._waiters)
                )
            except DatabaseError:
                log.warning("doorbell.database_away")
                versions = {}
            for site_id, version in versions.items():
                for seen, bell in self._waiters.get(site_id, []):
                    if version != seen and not bell.done():
                        bell.set_result(None)
            await asyncio.sleep(LOOK_EVERY_S)


def _versions(site_ids: list[UUID]) -> dict[UUID, int]:
    try:
        rows = Site.objects.filter(pk__in=site_ids).values_list("pk", "orders_version")
        return dict(rows)
    finally:
        connection.close()


#: weak: a loop that is over takes its doorbell along, and its address may be used again
_bells: WeakKeyDictionary[asyncio.AbstractEventLoop, Doorbell] = WeakKeyDictionary()


def doorbell() -> Doorbell:
    """The doorbell of the running event loop."""
    loop = asyncio.get_running_loop()
    return _bells.setdefault(loop, Doorbell())
