"""Puts the counting broker and driver between the loop and the real ones, where a site asks."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.clock import Clock
from agents.drivers.base import Driver
from agents.errors import ConfigError
from agents.loop import Broker
from agents.metrics.settings import MetricsSettings


@contextmanager
def counted(
    broker: Broker,
    driver: Driver,
    *,
    settings: MetricsSettings | None,
    clock: Clock,
    journal: Path,
) -> Iterator[tuple[Broker, Driver]]:
    """Broker and driver for the loop; raises ConfigError. The library loads only when asked for."""
    if settings is None:
        yield broker, driver
        return
    try:
        parts = importlib.import_module("agents.metrics.meters")
        exposition = importlib.import_module("agents.metrics.exposition")
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        why = "needs prometheus-client: pip install 'hanse[metrics]', or leave the key out"
        raise ConfigError("metrics", why) from None
    meters = parts.Meters(clock, journal)
    with exposition.served(meters, settings):
        yield parts.CountingBroker(broker, meters), parts.timed(driver, meters)
