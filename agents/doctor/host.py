"""The host: clocks, folders, memory, open files, systemd. Linux."""

from __future__ import annotations

import os
import resource
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from agents.clock import Clock, boot_id
from agents.config import Config
from agents.doctor.findings import Finding, fail, ok, warn
from agents.state import StateFolder

MEGA = 1024 * 1024
TIGHT_BYTES = 1024 * MEGA  #: free space below which a folder is told
FULL_BYTES = 100 * MEGA  #: and below which nothing should be started
TIGHT_INODES = 10_000
TIGHT_MEMORY_BYTES = 256 * MEGA
FILES = 256  #: open files that any agent may need; it holds none for each job
FAR = ("nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "gpfs", "beegfs", "fuse.sshfs")
UNITS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
UNIT = "hanse-agent.service"


def host_findings(config: Config, clock: Clock, *, pause_s: float = 0.02) -> Iterator[Finding]:
    yield boot_clock(clock, pause_s=pause_s)
    yield from folder_findings("state", config.state)
    if config.driver.work.parent != config.state:
        yield from folder_findings("work", config.driver.work)
    yield credential_file(StateFolder(config.state).root / "credential.json")
    yield memory(Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max"))
    yield open_files()
    yield systemd(Path("/run/systemd/system"), [Path(folder) / UNIT for folder in UNITS])


def boot_clock(clock: Clock, *, pause_s: float) -> Finding:
    """Fences hang on it: it moves, at the pace of the other clock, and is named by its boot."""
    before = (clock.boottime(), clock.monotonic())
    time.sleep(pause_s)  # the pause is what both clocks are held against
    moved = clock.boottime() - before[0]
    other = clock.monotonic() - before[1]
    if moved <= 0 or abs(moved - other) > 1.0:
        why = f"the boot clock moved {moved:.3f} s while {other:.3f} s went by"
        return fail("boot clock", why, "do not run the agent on this kernel or hypervisor")
    if before[0] + 1.0 < before[1]:
        why = "the boot clock is behind the monotonic clock: a time namespace has shifted it"
        return warn("boot clock", why, "run the agent and its jobs in one time namespace")
    return ok("boot clock", f"up for {before[0] / 3600:.1f} h, boot {boot_id()[:8]}")


# -- folders --------------------------------------------------------------------------------------


def folder_findings(name: str, path: Path) -> Iterator[Finding]:
    """Can it be written, has it room, is it a good place."""
    here = nearest(path)
    if not os.access(here, os.W_OK | os.X_OK):
        who = f"user {os.geteuid()}"
        fix = f"chown it to the agent's user; under systemd: ReadWritePaths={path}"
        yield fail(name, f"{here} cannot be written by {who}", fix)
        return
    yield room(name, here)
    kind = file_system(here.resolve(), Path("/proc/self/mounts").read_text())
    if name == "state" and kind in FAR:
        fix = "keep `state` on a local disk: its journal is an SQLite file"
        yield warn(name, f"{path} lies on {kind}", fix)
    elif name == "state" and kind in ("tmpfs", "ramfs"):
        fix = "keep `state` on a disk: unsent reports and the credential go with a reboot"
        yield warn(name, f"{path} lies in memory ({kind})", fix)


def nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists: it would be made there."""
    return next(here for here in (path, *path.parents) if here.exists())


def room(name: str, path: Path) -> Finding:
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    text = f"{path}: {free / 1e9:.1f} GB free"
    fix = "free space there; on a full disk jobs run on, but nothing new is started"
    if free < FULL_BYTES:
        return fail(name, text, fix)
    if free < TIGHT_BYTES:
        return warn(name, text, fix)
    if found.f_files and found.f_favail < TIGHT_INODES:
        return warn(name, f"{path}: {found.f_favail} inodes free", "remove small files there")
    return ok(name, f"{text}, writable")


def file_system(path: Path, mounts: str) -> str:
    """Kind of the file system that a path lies on, by the text of /proc/mounts."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        point = fields[1].replace("\\040", " ")
        inside = path == Path(point) or Path(point) in path.parents
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def credential_file(path: Path) -> Finding:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ok("credential file", "none yet")
    except OSError as error:
        return fail("credential file", str(error), f"chown {path} to the agent's user")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        text = f"{path} has mode {mode:o}: others on this host can speak for the site"
        return fail("credential file", text, f"chmod 600 {path}; hanse agent rotate")
    if found.st_uid != os.geteuid():
        fix = "run doctor as the agent's user, or chown the file to it"
        return warn("credential file", f"{path} belongs to user {found.st_uid}", fix)
    return ok("credential file", f"{path}, for its owner only")


# -- limits ---------------------------------------------------------------------------------------


def memory(meminfo: Path, limit: Path) -> Finding:
    """What is free on the host, or within the limit of this control group."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    most = limit.read_text().strip() if limit.exists() else "max"
    if most.isdecimal() and int(most) < free:
        free, whose = int(most), "the control group's limit"
    else:
        whose = "available"
    text = f"{free / 1e9:.1f} GB {whose}"
    if free < TIGHT_MEMORY_BYTES:
        return warn("memory", text, "the agent needs about 60 MB beside its jobs: give it room")
    return ok("memory", text)


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        return warn("open files", f"at most {soft}", f"LimitNOFILE={FILES} or more (hard: {hard})")
    return ok("open files", f"at most {soft}")


def systemd(running: Path, units: list[Path]) -> Finding:
    """`running` is there where systemd is process 1."""
    if not running.is_dir():
        return ok("systemd", "not on this host; something else has to restart the agent")
    unit = next((path for path in units if path.is_file()), None)
    if unit is None:
        fix = f"install deploy/systemd/{UNIT}, then systemctl enable --now {UNIT}"
        return warn("systemd", f"no {UNIT}: the agent will not come back after a reboot", fix)
    if "KillMode=process" not in unit.read_text().split():
        fix = "KillMode=process in the unit: otherwise a restart of the agent kills running jobs"
        return fail("systemd", f"{unit} stops the jobs' guards with the agent", fix)
    return ok("systemd", str(unit))
