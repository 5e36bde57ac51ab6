"""The part `driver` of the configuration: keys that every kind knows, then the kind's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.drivers import loading
from agents.errors import ConfigError
from agents.reading import a_flag, a_mapping, a_number, a_path, a_text, a_whole

if TYPE_CHECKING:
    from agents.config import Pool

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
COMMON = "kind work env threads_per_gpu memory_mb_per_gpu pin_cpus keep_work_days"


@dataclass(frozen=True, slots=True)
class DriverSettings:
    kind: str
    work: Path
    env: dict[str, str]
    threads_per_gpu: int | None = None
    memory_mb_per_gpu: int | None = None
    pin_cpus: bool = False
    keep_work_days: float = 14.0
    own: Any = None  #: what the kind made of its own keys


def driver_settings(
    value: Any, *, state: Path, folder: Path, pools: tuple[Pool, ...]
) -> DriverSettings:
    """Check plain values; relative paths start at `folder`."""
    name = value.get("kind", "process") if isinstance(value, dict) else "process"
    kind = loading.find(name) if isinstance(name, str) else None
    if kind is None:
        first, *rest = loading.names()
        known = f"{', '.join([first, *rest[:-1]])} or {rest[-1]}"
        raise ConfigError("driver.kind", f"{known} is expected")
    item = a_mapping(value, "driver", f"{COMMON} {kind.keys}")
    threads, memory = item.get("threads_per_gpu"), item.get("memory_mb_per_gpu")
    own = kind.read(item, folder, pools)
    work = state / "work" if kind.work is None else kind.work(own)
    return DriverSettings(
        kind=name,
        work=a_path(item["work"], "driver.work", folder) if "work" in item else work,
        env=_environment(item.get("env", {})),
        threads_per_gpu=None
        if threads is None
        else a_whole(threads, "driver.threads_per_gpu", least=1),
        memory_mb_per_gpu=None
        if memory is None
        else a_whole(memory, "driver.memory_mb_per_gpu", least=1),
        pin_cpus=a_flag(item.get("pin_cpus", False), "driver.pin_cpus"),
        keep_work_days=a_number(
            item.get("keep_work_days", 14.0), "driver.keep_work_days", least=0.0
        ),
        own=own,
    )


def _environment(env: Any) -> dict[str, str]:
    if not isinstance(env, dict):
        raise ConfigError("driver.env", "a mapping is expected")
    for name, text in env.items():
        if not isinstance(name, str) or not ENV_NAME.fullmatch(name):
            raise ConfigError(f"driver.env.{name}", "is not a name for an environment variable")
        a_text(text, f"driver.env.{name}", empty=True)
    return dict(env)
