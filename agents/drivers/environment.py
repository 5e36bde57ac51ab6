"""The environment of a job: a clean base, the site's, the tenant's where harmless, and HANSE_*.

A plan comes in two parts. torchrun's names stand below the tenant's own variables and the site's: a
tenant who writes PET_NPROC_PER_NODE means it. HANSE_PLAN stands above both, so a script that reads
it always reads what the broker planned.

Nothing of the agent's own environment reaches a job. Values are never seen by a shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agents.config import ENV_NAME
from agents.drivers.base import Task

BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RESERVED_PREFIXES = ("HANSE_", "LD_", "DYLD_", "BASH_FUNC_")
RESERVED = frozenset(
    {
        *("PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_ENV", "CDPATH", "PROMPT_COMMAND"),
        *("SHELLOPTS", "BASHOPTS", "GLIBC_TUNABLES", "GCONV_PATH", "PYTHONHOME", "PYTHONSTARTUP"),
        *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    }
)
TORCHRUN = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "PET_NNODES", "PET_NPROC_PER_NODE")
PLAN = "HANSE_PLAN"
PLAN_NAMES = frozenset({*TORCHRUN, PLAN})  #: of an order's plan all others are left out
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def refusal(env: Mapping[str, str]) -> str | None:
    """Why this site does not accept a tenant's variables, or None."""
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name):
            return f"env: {name[:80]!r} is not a name for an environment variable"
        if name in RESERVED or name.startswith(RESERVED_PREFIXES):
            return f"env: {name} is the site's to set; set it inside the command instead"
        if "\x00" in value:
            return f"env: the value of {name} has a NUL character"
    return None


def job_environment(
    task: Task,
    *,
    site: str,
    site_env: Mapping[str, str],
    work: Path,
    progress: Path,
    threads_per_gpu: int | None,
) -> dict[str, str]:
    """Later groups win: base, thread limits, torchrun's, the tenant's, the site's, HANSE_*."""
    env = {"PATH": BASE_PATH, "HOME": str(work), "LANG": "C.UTF-8", "PWD": str(work)}
    if threads_per_gpu is not None:
        env.update(dict.fromkeys(THREAD_LIMITS, str(threads_per_gpu * task.gpus)))
    env.update({name: task.plan[name] for name in TORCHRUN if name in task.plan})
    env.update(task.env)
    env.update(site_env)
    if task.devices:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(task.devices)
    env.update(
        HANSE_PROGRESS=str(progress),
        HANSE_JOB=task.job,
        HANSE_ATTEMPT=task.attempt,
        HANSE_CLASS=task.job_class,
        HANSE_SAMPLES_DONE=str(task.samples_done),
        HANSE_GPUS=str(task.gpus),
        HANSE_POOL=task.pool,
        HANSE_SITE=site,
        HANSE_CHECKPOINT_DIR=str(work / "checkpoint"),
        HANSE_GRACE_S=f"{task.grace_s:g}",
    )
    if task.samples_wanted:  # left out, a job trains until it is stopped
        env["HANSE_SAMPLES"] = str(task.samples_wanted)
    if PLAN in task.plan:
        env[PLAN] = task.plan[PLAN]
    if task.probe:
        env["HANSE_PROBE"] = "1"
    return env
