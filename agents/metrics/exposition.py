"""One address for Prometheus to read, on loopback unless the site says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from agents.errors import ConfigError
from agents.log import event
from agents.metrics.meters import Meters
from agents.metrics.settings import MetricsSettings


@contextmanager
def served(meters: Meters, settings: MetricsSettings) -> Iterator[None]:
    """`http://BIND:PORT/metrics` from a thread of its own; raises ConfigError."""
    try:
        server, thread = start_http_server(
            settings.port, addr=settings.bind, registry=meters.registry
        )
    except OSError as error:
        why = f"{settings.bind} port {settings.port} cannot be listened on: {error}"
        raise ConfigError("metrics", why) from None
    event("metrics.served", address=f"http://{settings.bind}:{server.server_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
