"""ASGI entry: Django behind a limit on bodies, with a lifespan that keeps the gateway's pulse."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings.dev")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from django.conf import settings  # noqa: E402 - Django must be set up first

from broker.problems import CONTENT_TYPE, problem  # noqa: E402
from broker.pulse import keep_pulse  # noqa: E402

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Serve requests with Django; on start-up begin the pulse, on shutdown end it."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = _Limited(receive)
    await django_application(scope, body.receive, send)  # type: ignore[arg-type]
    if body.over:
        await _refuse(send)


class _Limited:
    """Counts a body's bytes as they come: Django keeps all of it on disk before it looks.

    Over the limit it tells Django that the caller has gone, at which Django drops the request.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._size = 0
        self.over = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            self.over = True
            return {"type": "http.disconnect"}
        return message


async def _refuse(send: Send) -> None:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    body = json.dumps(problem(413, "too_large", f"At most {limit} bytes.")).encode()
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
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
