"""What the agent sends along with a job: the guard's orders, the tenant's script, two words of Ray.

The entrypoint is a constant, because Ray gives it to a shell: what differs comes as variables.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.config import MEGA, DriverSettings
from agents.drivers.base import Task
from agents.drivers.environment import job_environment

ENTRYPOINT = 'exec "$HANSE_RAY_PYTHON" -I -S "$HANSE_RAY_GUARD" "$HANSE_RAY_FOLDER"'
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"  #: between Ray's own SIGTERM and SIGKILL
STOP_MARGIN_S = 5  #: for the guard's last words


def guard_env(task: Task, python: str, parcel: Path, folder: Path) -> dict[str, str]:
    """Variables of the entrypoint; the job itself sees none of them."""
    return {
        "HANSE_RAY_PYTHON": python,
        "HANSE_RAY_GUARD": str(parcel),
        "HANSE_RAY_FOLDER": str(folder),
        STOP_WAIT: str(math.ceil(task.grace_s) + STOP_MARGIN_S),
    }


def write_script(task: Task, folder: Path) -> None:
    """The tenant's own words; a set-up that fails ends the attempt."""
    if task.argv:
        return
    setup = f"set -e\n{task.setup}\nset +e\n" if task.setup.strip() else ""
    (folder / "script").write_text(f"{setup}{task.command}\n", encoding="utf-8")


def specification(
    task: Task, *, settings: DriverSettings, site: str, work: Path, folder: Path
) -> dict[str, Any]:
    """The guard's orders. Ray picks the GPUs, so the pool's `devices` and the slots mean nothing.

    Bash is looked for on the node, in the job's own PATH.
    """
    env = job_environment(
        replace(task, devices=()),
        site=site,
        site_env=settings.env,
        work=work,
        progress=folder / "progress.jsonl",
        threads_per_gpu=settings.threads_per_gpu,
    )
    memory = settings.memory_mb_per_gpu
    return {
        "argv": list(task.argv) or ["bash", str(folder / "script")],
        "env": env,
        "work": str(work),
        "fence_at": task.fence_at,
        "fence_lead_s": task.fence_lead_s,
        "max_runtime_s": task.max_runtime_s,
        "grace_s": task.grace_s,
        "log_cap_bytes": task.log_cap_bytes,
        "memory_bytes": None if memory is None else memory * task.gpus * MEGA,
        "cpus": None,
    }
