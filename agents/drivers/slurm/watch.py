"""The guards on the nodes of a Slurm job. Standard library only, Python 3.9 or newer.

    job    the batch script of a job on one node: a guard with the tenant's command
    gang   the batch script of a job on several: a guard whose command is srun, which starts
    node   on each node: a guard with the tenant's command, whose output goes to srun

Every guard keeps the fence, the runtime limit and a stop by itself, from the files in the shared
folder: a node that is cut off from all others, with agent and slurmctld gone, still ends its part.
When slurmstepd dies the guard ends the job too, since Slurm may have given the GPUs away.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import Any

from agents.drivers import guard, processes
from agents.drivers.slurm import stamps
from agents.drivers.slurm.fence import Fence

LOOK_S = 1.0  #: between two looks into the shared folder: they cost the file server something
LATE_S = 3.0  #: for the nodes' guards to look, to end their part and to tell it
SLURM_EARLY_S = 60.0  #: by which Slurm may send a signal ahead of its time
FLUSH_S = 2.0  #: for the last output of a node when srun does not read
FROM_SLURM = ("SLURM_", "SLURMD_")
DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")


def main(folder: str, role: str) -> int:
    """Returns the job's exit code, so that Slurm's own records tell it too."""
    if role == "node":
        folder = node_folder(folder)
    kinds = {"job": JobGuard, "gang": GangGuard, "node": NodeGuard}
    status = guard.main(folder, kinds[role])
    record = guard.read_json("exit.json") if status == 0 else None
    if record is None:
        return 1
    ended_by_itself = record["reason"] == "exited"
    if role == "node" and not ended_by_itself and record["reason"] != "lost":
        return 0  # a bad exit would end the other nodes before their grace is over
    code = int(record["exit_code"] or 0)
    return code if ended_by_itself else code or 1


def node_folder(folder: str) -> str:
    """This node's own, with the agent's orders linked into it."""
    own = os.path.join(folder, "node-" + os.environ["SLURM_PROCID"])
    os.mkdir(own, 0o700)
    for name in ("spec.json", "renewal.json", "stop.json"):
        os.symlink(os.path.join("..", name), os.path.join(own, name))
    return own


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class JobGuard(guard.Guard):
    """On one node: what Slurm gave goes into the job's environment."""

    shared = "."  # where the renewal lies

    def __init__(self, spec: dict[str, Any], keeper: int) -> None:
        super().__init__({**spec, "env": {**spec["env"], **from_slurm()}}, keeper)
        self.boot = boot_id()
        self.fence = Fence(guard.now())  # passed, until a renewal says otherwise
        self.looked_at = 0.0
        self.above = parent_of(keeper)

    def run(self) -> None:
        moment = {"boottime": guard.now(), "boot": self.boot, "host": os.uname().nodename}
        job = int(os.environ.get("SLURM_JOB_ID", "0"))
        monotonic = time.monotonic()  # progress lines are stamped with it
        guard.write_json("node.json", {"job": job, "monotonic": monotonic, **moment})
        super().run()

    def _read_orders(self) -> None:
        moment = guard.now()
        if moment < self.looked_at + LOOK_S:
            return
        self.looked_at = moment
        with suppress(OSError):
            os.listdir(self.shared)  # NFS shows a new file when its folder is opened anew
        if parent_of(self.keeper) != self.above:
            self.above = 0
            self._told()
        super()._read_orders()

    def _told(self) -> None:
        """SIGTERM comes from Slurm: at its time limit, which is never far from the job's own."""
        near = self.started + float(self.spec["max_runtime_s"]) - self._grace() - SLURM_EARLY_S
        if self.leader and guard.now() >= near:
            self._stop("runtime_limit", "Slurm's time limit was reached", self._grace())
        super()._told()

    def _read_renewal(self) -> None:
        renewal = guard.read_json("renewal.json")
        if renewal is None:
            return
        with suppress(OSError):  # a full or lost file system leaves the fence where it is
            self.fence = self.fence.read(
                renewal, now=guard.now(), boot=self.boot, age_s=self._renewal_age
            )
        self.fence_at = self.fence.at

    def _renewal_age(self) -> float:
        own = os.path.basename(os.getcwd())
        return stamps.age_s(self.shared, "renewal.json", touched=f"clock-{own}")


class GangGuard(JobGuard):
    """On the first of several nodes: srun starts the others' guards and brings their output."""

    def __init__(self, spec: dict[str, Any], keeper: int) -> None:
        # srun needs all of Slurm's environment, and nothing of the tenant's
        super().__init__({**spec, "env": {}, "argv": spec["srun"], "work": "."}, keeper)
        self.spec["env"] = dict(os.environ)

    def _stop(self, reason: str, why: str, grace_s: float) -> None:
        """The nodes' guards hear it too and keep the grace: srun is ended when they are late."""
        kill_at = guard.now() + max(grace_s, 0.0) + LATE_S
        if self.reason:
            self.kill_at = min(self.kill_at, kill_at)
        else:
            self.reason, self.why, self.kill_at = reason, why, kill_at


class NodeGuard(JobGuard):
    """On each node of a gang: the job's output goes to srun."""

    shared = ".."

    def __init__(self, spec: dict[str, Any], keeper: int) -> None:
        super().__init__({**spec, "env": {**spec["env"], **rank_environment()}}, keeper)
        self.log.close()
        os.unlink("output.log")
        self.relay = Relay()
        self.log = self.relay

    def _pump(self, pipe: int) -> None:
        """While srun does not read, neither does the guard: but it never waits for it."""
        if self.relay.flush():
            super()._pump(pipe)
        else:
            select.select([self.wake], [1], [], guard.TICK_S)


class Relay(guard.Log):
    """Output that goes on to this process's own."""

    def __init__(self) -> None:
        self.at_end = False
        self._waiting = b""
        os.set_blocking(1, False)

    def write(self, data: bytes) -> None:
        self._waiting += data
        self.flush()

    def flush(self) -> bool:
        """True when nothing waits any more."""
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(1, self._waiting) :]
        except BlockingIOError:
            return False
        except OSError:  # srun is gone: nobody reads this
            self._waiting = b""
        return True

    def close(self) -> None:
        until = guard.now() + FLUSH_S
        while not self.flush() and guard.now() < until:
            select.select([], [1], [], guard.TICK_S)


def from_slurm() -> dict[str, str]:
    """What the job may know of its allocation, and the GPUs that are its own."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(FROM_SLURM) or name in DEVICES
    }


def rank_environment() -> dict[str, str]:
    """For torchrun and its like: one command runs on each node."""
    rank, first = os.environ["SLURM_PROCID"], os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "")
    nodes = os.environ.get("SLURM_NNODES", "1")
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    found = {
        "HANSE_NODES": nodes,
        "HANSE_NODE_RANK": rank,
        "NNODES": nodes,
        "NODE_RANK": rank,
        "PET_NODE_RANK": rank,
        "MASTER_ADDR": first,
        "MASTER_PORT": str(20000 + job % 10000),
    }
    if rank != "0":  # the first node tells the gang's progress
        found["HANSE_PROGRESS"] = os.path.join(os.getcwd(), "progress.jsonl")
    return found


def parent_of(pid: int) -> int:
    process = processes.look(pid)
    return 0 if process is None else process.parent
