"""The web process says that it is alive, so that silence of the agents can be told from its own."""

from __future__ import annotations

import asyncio

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.db.utils import Error as DatabaseError
from django.utils import timezone

from federation.services.syncs import GATEWAY, pulse

log = structlog.get_logger("hanse")


def _beat() -> None:
    try:
        pulse(name=GATEWAY, now=timezone.now(), gap_s=settings.PULSE_GAP_S)
    finally:
        connection.close()


async def keep_pulse() -> None:
    """Beat four times within the gap after which the gateway would count as away."""
    while True:
        try:
            await sync_to_async(_beat, thread_sensitive=False)()
        except DatabaseError:
            log.warning("pulse.database_away")
        await asyncio.sleep(settings.PULSE_GAP_S / 4)
