"""All looks in their order: configuration, host, scheduler, broker."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib import metadata
from pathlib import Path

from agents.clock import Clock
from agents.config import Config, is_loopback
from agents.doctor.findings import Finding, ok, warn
from agents.doctor.host import host_findings
from agents.doctor.network import broker_findings
from agents.doctor.scheduler import gpu_findings, scheduler_findings
from agents.drivers.base import Driver
from agents.errors import NotJoined
from agents.loop import VERSION
from agents.state import StateFolder


def examine(
    config: Config, file: Path, clock: Clock, make: Callable[[], Driver]
) -> Iterator[Finding]:
    """One finding each; `make` gives the configured driver on a folder of its own."""
    yield release()
    yield from configuration_findings(config, file)
    yield from host_findings(config, clock)
    yield from scheduler_findings(config, make)
    yield from gpu_findings(config)
    yield from broker_findings(config, _credential(config), clock)


def release() -> Finding:
    """The package that is installed is the program that runs."""
    try:
        installed = metadata.version("hanse")
    except metadata.PackageNotFoundError:
        return warn("release", f"agent {VERSION}, not installed", "pip install hanse")
    if installed != VERSION:
        text = f"agent {VERSION}, but the installed package says {installed}"
        return warn("release", text, "install one release; restart the agent after an upgrade")
    return ok("release", f"agent {VERSION}")


def configuration_findings(config: Config, file: Path) -> Iterator[Finding]:
    """What is allowed and yet seldom meant."""
    found = [*_of_file(file), *_of_pools(config), *_of_user(config), *_of_metrics(config)]
    yield from found or [ok("configuration", f"{file}: {len(config.pools)} pools")]


def _of_file(file: Path) -> Iterator[Finding]:
    if file.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        text = f"{file} can be written by others, who could run commands by it"
        yield warn("configuration", text, f"chmod go-w {file}")


def _of_pools(config: Config) -> Iterator[Finding]:
    for pool in config.pools:
        if not Decimal(pool.reserve):
            text = f"pool {pool.name} has a reserve of 0: its GPUs may go for nothing"
            yield warn("configuration", text, "set pools[].reserve to what an hour costs you")
    offered = {speed.pool for item in config.classes for speed in item.speeds}
    offered |= {name for item in config.classes if item.probe for name in item.probe.pools}
    for pool in config.pools:
        if pool.name not in offered:
            text = f"no class has a speed or a probe in pool {pool.name}: it gets no jobs"
            yield warn("configuration", text, "give `classes` a samples_per_s or a probe for it")


def _of_user(config: Config) -> Iterator[Finding]:
    if config.driver.kind == "process" and os.geteuid() == 0:
        text = "`kind: process` runs tenants' jobs as root here"
        yield warn("configuration", text, "run the agent as a user of its own")


def _of_metrics(config: Config) -> Iterator[Finding]:
    if config.metrics is not None and not is_loopback(config.metrics.bind):
        text = f"metrics are open to whoever reaches {config.metrics.bind}"
        yield warn("configuration", text, "bind them to 127.0.0.1, or put a firewall before them")


def _credential(config: Config) -> str | None:
    try:
        return StateFolder(config.state).membership(config.broker).credential
    except NotJoined:
        return None
