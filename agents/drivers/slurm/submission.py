"""How a task becomes words for sbatch. Pure: every value is one word, nothing meets a shell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from agents.drivers.base import Task
from agents.drivers.settings import DriverSettings
from agents.drivers.slurm.settings import PoolSettings, SlurmSettings
from agents.errors import DriverFailed

PREFIX = "hanse-"  #: of the jobs' names: what follows is the attempt
MARGIN_S = 60.0  #: Slurm's own limit lies this far beyond the guard's
MAX_LIMIT_S = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Gang:
    nodes: int
    gpus_per_node: int


def gang(task: Task, pool: PoolSettings) -> Gang:
    """On as few nodes as it fits, the same number of GPUs on each."""
    most = pool.gpus_per_node or task.gpus
    nodes = max(1, math.ceil(task.gpus / most))
    while task.gpus % nodes:
        nodes += 1
    return Gang(nodes, task.gpus // nodes)


def name_of(attempt: str) -> str:
    return PREFIX + attempt


def attempt_of(name: str) -> str | None:
    """The label again; None for a job that is not ours."""
    return name[len(PREFIX) :] if name.startswith(PREFIX) else None


def minutes(task: Task, longest_s: float | None) -> int:
    """Slurm's own limit: beyond the guard's, where the partition's `longest_s` leaves room."""
    asked_s = min(task.max_runtime_s, MAX_LIMIT_S)
    limit_s = asked_s + task.grace_s + MARGIN_S
    if longest_s is not None and asked_s > longest_s:
        raise DriverFailed(
            f"max_runtime_s: the job asks for {asked_s / 60:g} minutes, "
            f"its partition in Slurm allows {longest_s / 60:g}"
        )
    return math.ceil((limit_s if longest_s is None else min(limit_s, longest_s)) / 60)


def words(
    task: Task,
    *,
    settings: DriverSettings,
    slurm: SlurmSettings,
    folder: Path,
    code: Path,
    longest_s: float | None,
) -> list[str]:
    """All words after `sbatch`; the last are the script and its own."""
    pool = slurm.pools.get(task.pool)
    if pool is None:
        raise DriverFailed(f"driver.pools: this site has no pool {task.pool[:80]!r}")
    layout = gang(task, pool)
    return [
        "--parsable",
        f"--job-name={name_of(task.attempt)}",
        f"--comment={task.attempt}",
        "--no-requeue",
        f"--nodes={layout.nodes}",
        "--ntasks-per-node=1",
        f"--gres={pool.gres}:{layout.gpus_per_node}",
        f"--time={minutes(task, longest_s)}",
        f"--signal=B:TERM@{max(1, math.ceil(min(task.grace_s, 65535)))}",
        *_resources(settings, layout),
        *_place(task, slurm, pool),
        f"--chdir={folder}",
        f"--output={folder / 'slurm.log'}",
        "--open-mode=append",
        "--export=ALL",  # of the commands' own clean environment
        *slurm.options,
        str(code / "batch.py"),
        str(code),
        str(folder),
        "gang" if layout.nodes > 1 else "job",
    ]


def _resources(settings: DriverSettings, layout: Gang) -> list[str]:
    """Cores and memory by node; left to the cluster's defaults where the site says nothing."""
    found = []
    if settings.threads_per_gpu is not None:
        found.append(f"--cpus-per-task={settings.threads_per_gpu * layout.gpus_per_node}")
    if settings.memory_mb_per_gpu is not None:
        found.append(f"--mem={settings.memory_mb_per_gpu * layout.gpus_per_node}M")
    return found


def _place(task: Task, slurm: SlurmSettings, pool: PoolSettings) -> list[str]:
    chosen = {
        "partition": pool.partition,
        "qos": pool.qos,
        "account": slurm.account_of(task.tenant, pool),
        "constraint": pool.constraint,
    }
    return [f"--{name}={value}" for name, value in chosen.items() if value]
