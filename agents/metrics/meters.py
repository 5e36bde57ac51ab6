"""The agent's figures for Prometheus, counted as calls go by and read when somebody scrapes.

The loop is not asked: a broker and a driver that count stand between it and the real ones, and what
the journal holds is read from its file, as `hanse agent status` does. Names end in their unit.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Summary
from prometheus_client.core import GaugeMetricFamily, Metric

from agents.clock import Clock
from agents.drivers.base import Driver
from agents.errors import BrokerRefused, BrokerUnreachable, ProtocolMismatch
from agents.loop import Broker
from agents.protocol import (
    AttemptState,
    OfferDocument,
    ReportBatch,
    ReportReply,
    SyncReply,
    SyncRequest,
)

T = TypeVar("T")
TIMED = frozenset(
    {
        *("capacity", "supply", "start", "poll", "renew", "stop"),
        *("readopt", "progress", "logs", "cleanup", "known"),
    }
)
RESULTS = ("ok", "unreachable", "refused", "mismatch", "crash")
STATES = "SELECT json_extract(body, '$.state'), COUNT(*) FROM attempts GROUP BY 1"


class Meters:
    """Counters that any thread may move, and gauges that are worked out at a scrape."""

    def __init__(self, clock: Clock, journal: Path) -> None:
        self._clock = clock
        self._journal = journal
        self._lock = threading.Lock()
        self._fences: dict[str, float] = {}  # boottime, of attempts handed to the driver
        self._offer: OfferDocument | None = None  # as the broker had it last
        self._answered = clock.boottime()  # when the broker answered last
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "hanse_agent_broker_calls",
            "Calls to the broker.",
            ["call", "result"],
            registry=self.registry,
        )
        for call in ("sync", "reports"):
            for result in RESULTS:
                self._calls.labels(call, result)
        self._driver_s = Summary(
            "hanse_agent_driver_call_seconds",
            "Time in calls to the local scheduler's driver.",
            ["call"],
            registry=self.registry,
        )
        self.registry.register(self)

    # -- counting ---------------------------------------------------------------------------------

    def broker_call(self, name: str, call: Callable[[], T]) -> T:
        """Make the call and count how it went."""
        result = "crash"
        try:
            reply = call()
            result = "ok"
        except BrokerUnreachable:
            result = "unreachable"
            raise
        except BrokerRefused:
            result = "refused"
            raise
        except ProtocolMismatch:
            result = "mismatch"
            raise
        finally:
            self._calls.labels(name, result).inc()
            if result != "unreachable":
                self._answered = self._clock.boottime()
        return reply

    def offered(self, offer: OfferDocument) -> None:
        self._offer = offer

    def driver_call(self, name: str, call: Callable[..., T], *given: Any, **named: Any) -> T:
        """Make the call, time it, and note what it says of a fence."""
        with self._driver_s.labels(name).time():
            found = call(*given, **named)
        with self._lock:
            self._note_fence(name, given, found)
        return found

    def _note_fence(self, name: str, given: tuple[Any, ...], found: Any) -> None:
        if name == "start":
            self._fences[given[0].attempt] = given[0].fence_at
        elif name == "renew":
            self._fences[given[0].attempt] = given[1]
        elif name == "cleanup":
            self._fences.pop(given[0], None)
        elif name == "poll" and found.exit is not None:
            self._fences.pop(given[0].attempt, None)

    # -- reading ----------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Prometheus' own name for a scrape."""
        states, pending = self._written()
        attempts = _gauge("attempts", "Attempts not yet forgotten, by state.", "state")
        for state in AttemptState:
            attempts.add_metric([state], states.get(str(state), 0))
        offered = _gauge("offer_gpus", "GPUs on offer, as the broker had it last.", "pool")
        for pool in self._offer.pools if self._offer is not None else ():
            offered.add_metric([pool.name], pool.gpus)
        yield attempts
        yield offered
        yield _plain("reports_pending", "Reports that the broker has not answered for.", pending)
        yield _plain("journal_bytes", "The journal's files together.", self._size())
        away = self._clock.boottime() - self._answered
        yield _plain("broker_silent_seconds", "Time since the broker's last answer.", away)
        margin = self._margin()
        if margin is not None:
            about = "Time to the nearest fence of a running attempt; absent while none runs."
            yield _plain("fence_margin_seconds", about, margin)

    def _written(self) -> tuple[dict[str, int], int]:
        """Attempts by state and unsent reports, as the journal has them on disk."""
        address = f"{self._journal.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as database:
            states = dict(database.execute(STATES).fetchall())
            pending = database.execute("SELECT COUNT(*) FROM reports").fetchone()[0]
        return states, int(pending)

    def _size(self) -> int:
        folder, name = self._journal.parent, self._journal.name
        return sum(path.stat().st_size for path in folder.glob(f"{name}*"))

    def _margin(self) -> float | None:
        with self._lock:
            nearest = min(self._fences.values(), default=None)
        return None if nearest is None else nearest - self._clock.boottime()


class CountingBroker:
    """The broker, counted."""

    def __init__(self, broker: Broker, meters: Meters) -> None:
        self._broker = broker
        self._meters = meters

    def sync(self, request: SyncRequest) -> SyncReply:
        reply = self._meters.broker_call("sync", lambda: self._broker.sync(request))
        if request.offer is not None:
            self._meters.offered(request.offer)
        return reply

    def reports(self, batch: ReportBatch) -> ReportReply:
        return self._meters.broker_call("reports", lambda: self._broker.reports(batch))


class TimedDriver:
    """Any driver, timed; what is no call of the protocol is handed through."""

    def __init__(self, driver: Driver, meters: Meters) -> None:
        self._driver = driver
        self._meters = meters

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._driver, name)
        if name not in TIMED:
            return call

        def timed(*given: Any, **named: Any) -> Any:
            return self._meters.driver_call(name, call, *given, **named)

        setattr(self, name, timed)  # found at once from now on
        return timed


def timed(driver: Driver, meters: Meters) -> Driver:
    return cast(Driver, TimedDriver(driver, meters))


def _gauge(name: str, about: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hanse_agent_{name}", about, labels=[label])


def _plain(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hanse_agent_{name}", about, value=value)
