"""Puts an agent together and runs it until it is told to stop.

Under systemd use `KillMode=process`: the agent may be restarted, its jobs' guards must not be.
"""

from __future__ import annotations

import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from agents.client import BrokerClient
from agents.clock import Clock, SystemClock, boot_id
from agents.config import Config
from agents.courier import ThreadCourier
from agents.door import Door
from agents.drivers import loading
from agents.drivers.base import Driver
from agents.errors import ConfigError
from agents.journal import Journal
from agents.log import event, trouble
from agents.loop import Loop
from agents.metrics.wiring import counted
from agents.offer import Showcase, document, nothing_yet
from agents.patience import PatientJournal
from agents.probes.throughput import Measurement, Prober, fresh, load, questions, save
from agents.site import Site
from agents.state import StateFolder
from agents.supply import Room

DAY_S = 86400.0
LAST_REPORTS_S = 30.0  #: for what is still unsent when the operator empties the site


@dataclass(frozen=True, slots=True)
class Agent:
    config: Config
    folder: StateFolder
    journal: Journal
    loop: Loop
    courier: ThreadCourier
    clock: Clock


@contextmanager
def assembled(config: Config) -> Iterator[Agent]:
    """A whole agent on its locked state folder; raises NotJoined or AlreadyRunning."""
    clock = SystemClock()
    folder = StateFolder(config.state)
    membership = folder.membership(config.broker)

    def credential() -> str:
        return folder.membership(config.broker).credential  # read anew: it may have been rotated

    with (
        folder.lock(),
        BrokerClient(config.broker, credential, ca_file=config.ca_file) as client,
        opened(folder.journal) as journal,
        counted(
            client,
            driver_for(config, root=folder.attempts, site=membership.site, clock=clock),
            settings=config.metrics,
            clock=clock,
            journal=folder.journal,
        ) as (broker, driver),
    ):
        door = Door(config=config, clock=clock, drain_file=folder.drain)
        room = Room(config=config, door=door, driver=driver, journal=journal, clock=clock)
        site = Site(
            config=config, journal=journal, driver=driver, clock=clock, boot=boot_id(), door=door
        )
        courier = ThreadCourier(clock)
        kept = fresh_measurements(config, folder, clock)
        loop = Loop(
            site=site,
            journal=journal,
            showcase=Showcase(
                offer=document(config, [item.offer() for item in kept]),
                hours=config.offer.validity_hours,
                journal=journal,
                room=room,
            ),
            broker=broker,
            courier=courier,
            clock=clock,
            settings=config.sync,
            boot=journal.begin(uuid.uuid4().hex),
            room=room,
        )
        yield Agent(config, folder, journal, loop, courier, clock)


@contextmanager
def opened(path: Path) -> Iterator[Journal]:
    journal = PatientJournal(path)
    try:
        yield journal
    finally:
        journal.close()


def driver_for(config: Config, *, root: Path, site: str, clock: Clock) -> Driver:
    kind = loading.find(config.driver.kind)
    if kind is None:
        raise ConfigError("driver.kind", f"the driver {config.driver.kind} is not installed")
    return kind.make(config, root, site, clock)


def fresh_measurements(config: Config, folder: StateFolder, clock: Clock) -> list[Measurement]:
    return fresh(
        load(folder.measured),
        questions(config),
        now=clock.wall(),
        max_age_hours=config.probes.max_age_hours,
    )


def serve(agent: Agent, *, stop_jobs: bool = False) -> None:
    """Run until SIGTERM or SIGINT. Jobs are left running, unless the operator empties the site."""
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        stop.set()
        agent.courier.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    live = {a.order.spec.job for a in agent.journal.attempts() if a.order is not None}
    sweep_work(agent.config, live, agent.clock)
    probe_missing(agent)
    event("agent.started", broker=agent.config.broker, state=str(agent.folder.root))
    agent.loop.run(stop)
    if stop_jobs:
        empty(agent)
    event("agent.stopped", jobs_left=sum(a.holds_gpus for a in agent.journal.attempts()))


def empty(agent: Agent) -> None:
    """Stop every job with its grace and tell the broker, for as long as that may take."""
    until = agent.clock.boottime() + agent.config.grace_s + LAST_REPORTS_S
    while agent.clock.boottime() < until:
        agent.loop.site.stop_all("the operator stopped this site")
        agent.loop.step(wait_s=agent.config.sync.tick_s)
        if not agent.loop.site.busy() and not agent.journal.unsent():
            return
    trouble("agent.not_empty", unsent=agent.journal.unsent())


def probe_missing(agent: Agent) -> None:
    """Measure in the background what is not known; nothing is on offer meanwhile.

    The loop goes on, because jobs that were found running need their fences renewed.
    """
    kept = fresh_measurements(agent.config, agent.folder, agent.clock)
    known = {item.digest for item in kept}
    missing = [item for item in questions(agent.config) if item.digest not in known]
    if not missing:
        return
    showcase = agent.loop.showcase
    showcase.offer, showcase.hurry = nothing_yet(agent.config), True
    driver = driver_for(agent.config, root=agent.folder.probes, site="", clock=agent.clock)
    prober = Prober(config=agent.config, driver=driver, clock=agent.clock)

    def measure() -> None:
        prober.clear()
        found = [*kept, *prober.answer(missing)]
        save(agent.folder.measured, found)
        showcase.offer = document(agent.config, [item.offer() for item in found])
        showcase.hurry = False

    threading.Thread(target=measure, name="probes", daemon=True).start()


def sweep_work(config: Config, live: set[str], clock: Clock) -> None:
    """Remove folders of jobs that have had no attempt here for `keep_work_days`."""
    oldest = clock.wall().timestamp() - config.driver.keep_work_days * DAY_S
    if not config.driver.work.is_dir():
        return
    for folder in config.driver.work.iterdir():
        if folder.is_dir() and folder.name not in live and folder.stat().st_mtime < oldest:
            event("work.removed", job=folder.name)
            shutil.rmtree(folder, ignore_errors=True)
