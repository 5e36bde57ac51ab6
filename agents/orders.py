"""Why a site would not take a lease, and what a lease becomes for the driver. Pure."""

from __future__ import annotations

from agents.config import NAME, Config, Pool
from agents.drivers.base import Task
from agents.drivers.environment import PLAN_NAMES
from agents.drivers.environment import refusal as env_refusal
from agents.policy import Wish
from agents.protocol import MAX_COMMAND, MAX_LOG_CHUNK, LeaseOrder

FENCE_SHARE = 0.25  #: of the fence at most goes to the grace before it


def refusal(lease: LeaseOrder, config: Config) -> str | None:
    """One sentence for the broker's people, or None when the site takes the lease."""
    spec = lease.spec
    for what, name in (("attempt", lease.attempt), ("job", spec.job)):
        if not NAME.fullmatch(name):
            return f"the {what}'s id {name[:80]!r} cannot be the name of a folder"
    pool = config.pool(lease.pool)
    if pool is None:
        return f"this site has no pool {lease.pool[:80]!r}"
    if not 1 <= lease.gpus <= pool.gpus:
        return f"pool {pool.name} has {pool.gpus} GPUs, the lease asks for {lease.gpus}"
    return _bad_number(lease) or _bad_command(lease) or env_refusal(spec.env)


def _bad_number(lease: LeaseOrder) -> str | None:
    spec = lease.spec
    if lease.fence_s <= 0:
        return f"a fence of {lease.fence_s:g} s leaves no time to run"
    if spec.max_runtime_s <= 0:
        return f"a runtime limit of {spec.max_runtime_s:g} s leaves no time to run"
    if spec.grace_s < 0 or spec.log_cap_bytes < 0 or spec.samples_wanted < 0:
        return "grace, log cap and samples must not be negative"
    return None


def _bad_command(lease: LeaseOrder) -> str | None:
    spec = lease.spec
    if not spec.command.strip():
        return "there is no command to run"
    if max(len(spec.command), len(spec.setup)) > MAX_COMMAND:
        return f"command and setup may have {MAX_COMMAND} characters each"
    return None


def wish(lease: LeaseOrder, pool: Pool) -> Wish:
    """What of a lease the site's policy looks at."""
    spec = lease.spec
    return Wish(
        tenant=spec.tenant or "",
        job_class=spec.job_class,
        pool=pool.name,
        pool_gpus=pool.gpus,
        gpus=lease.gpus,
        max_runtime_s=spec.max_runtime_s,
    )


def fence_lead(lease: LeaseOrder, config: Config) -> float:
    """Seconds before the fence at which SIGTERM comes, so that the job is gone *at* the fence."""
    return min(lease.spec.grace_s, config.grace_s, FENCE_SHARE * lease.fence_s)


def task(
    lease: LeaseOrder, config: Config, pool: Pool, *, slots: tuple[int, ...], fence_at: float
) -> Task:
    """What the driver is asked to run; `slots` count within the pool."""
    spec = lease.spec
    first = config.first_slot(pool.name)
    return Task(
        attempt=lease.attempt,
        job=spec.job,
        pool=lease.pool,
        gpus=lease.gpus,
        job_class=spec.job_class,
        command=spec.command,
        setup=spec.setup,
        env=spec.env,
        plan={name: text for name, text in (lease.plan or {}).items() if name in PLAN_NAMES},
        samples_done=spec.samples_done,
        samples_wanted=spec.samples_wanted,
        probe=spec.probe,
        tenant=spec.tenant or "",
        max_runtime_s=spec.max_runtime_s,
        grace_s=min(spec.grace_s, config.grace_s),
        log_cap_bytes=min(max(spec.log_cap_bytes, MAX_LOG_CHUNK // 64), config.logs.cap_bytes),
        fence_at=fence_at,
        fence_lead_s=fence_lead(lease, config),
        slots=tuple(first + slot for slot in slots),
        devices=tuple(pool.devices[slot] for slot in slots) if pool.devices else (),
    )
