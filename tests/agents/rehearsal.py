"""A whole agent in virtual time, beside local users, for tests of what its site decides."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agents.clock import VirtualClock
from agents.courier import InlineCourier
from agents.door import Door
from agents.drivers.base import Supply
from agents.drivers.fake import FakeDriver
from agents.drivers.ray.supply import PoolSupply
from agents.drivers.ray.supply import Supply as RaySupply
from agents.journal import Journal
from agents.loop import Loop
from agents.offer import Showcase, document
from agents.protocol import (
    EndReason,
    OfferDocument,
    Report,
    ReportBatch,
    ReportReply,
    SyncReply,
    SyncRequest,
)
from agents.site import Site
from agents.supply import Room
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import a_config


class SharedDriver(FakeDriver):
    """The fake driver on a machine that local users share."""

    left: dict[str, int] | None = None
    trouble: Exception | None = None

    def supply(self) -> Supply | None:
        if self.trouble is not None:
            raise self.trouble
        if self.left is None:
            return None
        rows = {name: PoolSupply(1, gpus, gpus, 0, 0, 0) for name, gpus in self.left.items()}
        return RaySupply(rows)


@dataclass
class Rehearsal:
    """A whole agent in virtual time, with its two files."""

    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy = self.folder / "policy.yaml"
        self.drain = self.folder / "drain.json"
        self.clock = VirtualClock()
        self.broker = FakeBroker()
        self.config = a_config(self.folder, **{"policy": "policy.yaml", **self.changes})
        speeds = {("a100", "resnet50"): 10.0}
        self.driver = SharedDriver(clock=self.clock, speeds=speeds)
        self.journal = Journal(self.folder / "j.sqlite3")
        self.versions = 0

    def open(self) -> Rehearsal:
        clock, config, journal = self.clock, self.config, self.journal
        self.door = Door(config=config, clock=clock, drain_file=self.drain)
        self.room = Room(
            config=config, door=self.door, driver=self.driver, journal=journal, clock=clock
        )
        self.site = Site(
            config=config,
            journal=journal,
            driver=self.driver,
            clock=clock,
            boot="boot-1",
            door=self.door,
        )
        self.loop = Loop(
            site=self.site,
            journal=journal,
            showcase=Showcase(
                offer=document(config, []), hours=None, journal=journal, room=self.room
            ),
            broker=self,
            courier=InlineCourier(clock),
            clock=clock,
            settings=config.sync,
            boot="agent",
            room=self.room,
        )
        return self

    def rules(self, text: str) -> None:
        """A change that is seen however coarse the file system's clock is."""
        self.versions += 1
        self.policy.write_text(text, encoding="utf-8")
        os.utime(self.policy, ns=(self.versions, self.versions))

    def sync(self, request: SyncRequest) -> SyncReply:
        return self.broker.sync(replace(request, wait_s=0.0))

    def reports(self, batch: ReportBatch) -> ReportReply:
        return self.broker.take(batch)

    def go(self, seconds: float, step: float = 0.5) -> None:
        for _ in range(round(seconds / step)):
            self.loop.step(wait_s=0.0)
            self.clock.advance(step)

    def end(self, attempt: str) -> Report:
        found = self.broker.end(attempt)
        assert found is not None
        return found

    def code(self, attempt: str) -> str | None:
        end = self.end(attempt).end
        assert end is not None
        assert end.reason is EndReason.DECLINED
        return end.code

    def offered(self) -> int:
        offer: OfferDocument = self.broker.offers[-1]
        return offer.pools[0].gpus
