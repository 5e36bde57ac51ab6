"""ASGI entry: Django, with a lifespan that keeps the gateway's pulse."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings.dev")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from broker.pulse import keep_pulse  # noqa: E402 - Django must be set up first

Message = MutableMapping[str, Any]


async def application(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Serve requests with Django; on start-up begin the pulse, on shutdown end it."""
    if scope["type"] != "lifespan":
        await django_application(scope, receive, send)  # type: ignore[arg-type]
        return
    beat: asyncio.Task[None] | None = None
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            beat = asyncio.create_task(keep_pulse())
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            if beat is not None:
                beat.cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return
