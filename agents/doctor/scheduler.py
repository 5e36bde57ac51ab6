"""The local scheduler and the GPUs, as far as they can be seen from here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from agents.config import Config
from agents.doctor.findings import Finding, fail, ok, warn
from agents.drivers import loading
from agents.drivers.base import Driver
from agents.errors import AgentError

GIGA = 1e9


def scheduler_findings(config: Config, make: Callable[[], Driver]) -> Iterator[Finding]:
    """`make` gives the configured driver; asks it what it has, starts nothing."""
    kind = config.driver.kind
    fix = f"see docs/howto for `kind: {kind}`, and whether this host reaches its controller"
    if kind == "fake":
        why = "`kind: fake` runs nothing: tenants' jobs would train on paper"
        yield warn("scheduler", why, "rehearse with it, then set the real kind")
        return
    driver: Driver | None = None
    try:
        driver = make()
        capacity = driver.capacity()
        supply = driver.supply()
    except (AgentError, OSError) as error:
        yield fail("scheduler", f"{kind}: {error}", fix)
        return
    finally:
        loading.close(driver)
    if not capacity.cores:
        yield fail("scheduler", f"{kind} does not answer, or has no node that is up", fix)
        return
    size = f"{capacity.cores} cores, {capacity.memory_bytes / GIGA:.0f} GB"
    yield ok("scheduler", f"{kind} answers: {size}")
    if supply is None:
        return
    for pool in config.pools:
        found = supply.pools.get(pool.name)
        yield pool_finding(pool.name, pool.gpus, found)


def pool_finding(name: str, configured: int, found: Any) -> Finding:
    """`found`: what the scheduler has for the pool, or None; `gpus` is there with most drivers."""
    if found is None:
        fix = f"name its nodes under driver.pools.{name}"
        return warn(f"pool {name}", "the scheduler has nothing of it", fix)
    has = getattr(found, "gpus", None)
    if has is not None and has < configured:
        text = f"{configured} GPUs in the configuration, {has} on nodes that are up"
        return warn(f"pool {name}", text, f"lower pools[].gpus of {name}, or bring its nodes up")
    return ok(f"pool {name}", f"{configured} GPUs; {found.left} left by local users now")


def gpu_findings(config: Config) -> Iterator[Finding]:
    """GPUs of this host, where jobs run on this host."""
    if config.driver.kind != "process":
        yield ok("gpus", f"on the nodes of `{config.driver.kind}`, not on this host")
        return
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        yield ok("gpus", "not looked at: pip install 'hanse[gpu]' brings nvidia-ml-py")
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        yield ok("gpus", f"not looked at: NVML says {error}")
        return
    try:
        yield from _gpus(config, nvml)
    except nvml.NVMLError as error:
        yield warn("gpus", f"NVML fails: {error}", "nvidia-smi tells more; reload the driver")
    finally:
        nvml.nvmlShutdown()


def _gpus(config: Config, nvml: Any) -> Iterator[Finding]:
    count = int(nvml.nvmlDeviceGetCount())
    wanted = sum(pool.gpus for pool in config.pools)
    names: dict[str, int] = {}
    for index in range(count):
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        size = nvml.nvmlDeviceGetMemoryInfo(device).total / GIGA
        name = f"{_plain(nvml.nvmlDeviceGetName(device))}, {size:.0f} GB"
        names[name] = names.get(name, 0) + 1
    seen = "; ".join(f"{number} x {name}" for name, number in names.items()) or "none"
    text = f"{seen}; driver {_plain(nvml.nvmlSystemGetDriverVersion())}"
    if count < wanted:
        fix = "lower pools[].gpus: two jobs would share a GPU, or find none"
        yield warn("gpus", f"{wanted} GPUs in the configuration, here: {text}", fix)
    else:
        yield ok("gpus", text)


def _plain(text: Any) -> str:
    """Old bindings give bytes."""
    return text.decode() if isinstance(text, bytes) else str(text)
