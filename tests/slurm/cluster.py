"""A real Slurm cluster on this machine: its own munge key, ports, folders and device files.

Several run side by side. Needs the programs that `make test-slurm` installs; root gives the jobs
real device files, any other user plain ones.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agents.drivers import processes
from tests.agents.making import alive, until

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel", "srun")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TARGET = "make test-slurm"

CONF = """
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,defer_batch
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
GresTypes=gpu
KillWait=2
MinJobAge=600
SlurmctldTimeout=30
SlurmdTimeout={silent_s}
MailProg=/bin/true
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=1:00:00 PriorityTier=1 State=UP
PartitionName=local Nodes=ALL MaxTime=1:00:00 PriorityTier=10 State=UP
PartitionName=members Nodes=ALL MaxTime=1:00:00 AllowAccounts=proj-17 State=UP
"""


def missing() -> list[str]:
    """Programs that are not on this machine."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@dataclass
class Cluster:
    name: str
    folder: Path
    nodes: int = 2
    gpus_per_node: int = 2
    silent_s: int = 6  #: after this slurmctld calls a node that does not answer down
    ports: list[int] = field(default_factory=list)

    @property
    def conf(self) -> Path:
        return self.folder / "etc" / "slurm.conf"

    @property
    def munge(self) -> Path:
        return self.folder / "munge"

    @property
    def node_names(self) -> list[str]:
        return [f"{self.name}-n{i}" for i in range(1, self.nodes + 1)]

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._lay_out()
        self._start_munge()
        self.start_controller(clean=True)
        for node in self.node_names:
            self.start_node(node)
        until(lambda: self.states() == {"idle"}, 30)

    def stop(self) -> None:
        with suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user", getpass.getuser())
        for file in [*(self.folder / "run").glob("*.pid"), self.munge / "munged.pid"]:
            _kill(_pid(file), signal.SIGKILL)
        _kill_trees(self.steps())

    def start_controller(self, *, clean: bool = False) -> None:
        self._daemon("slurmctld", *(["-c"] if clean else []), "-f", str(self.conf))
        self._is_up(self.folder / "run" / "slurmctld.pid")

    def kill_controller(self) -> None:
        """Once it has written down all it knows: after older state it starts old jobs again."""
        state = self.folder / "state" / "job_state"
        asked = time.time()
        self.ask("sbatch", "--hold", "--mem=1M", "--wrap=true")  # something new to write
        until(lambda: state.exists() and state.stat().st_mtime > asked, 30)
        self._kill(self.folder / "run" / "slurmctld.pid")

    def start_node(self, node: str) -> None:
        (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
        self._daemon("slurmd", "-N", node, "-f", str(self.conf))
        self._is_up(self.folder / "run" / f"slurmd-{node}.pid")

    def kill_node(self, node: str) -> None:
        """The daemon alone: its jobs' own daemons live on."""
        self._kill(self.folder / "run" / f"slurmd-{node}.pid")

    def lose_node(self, node: str) -> None:
        """As when the power goes: the daemon and everything that its jobs started there."""
        self.kill_node(node)
        _kill_trees(self.steps(f"{node}.log"))

    def heal(self) -> None:
        """What a test killed is up again, and nothing is left in the queue."""
        if not alive(_pid(self.folder / "run" / "slurmctld.pid")):
            self.start_controller()
        self.ask("scancel", "--user", getpass.getuser(), check=False)
        for node in self.node_names:
            if not alive(_pid(self.folder / "run" / f"slurmd-{node}.pid")):
                self.start_node(node)
        until(self._idle, 60)

    def _idle(self) -> bool:
        queue = self.ask("squeue", "--noheader", check=False)
        return self.states() == {"idle"} and not queue

    # -- asking -----------------------------------------------------------------------------------

    def ask(self, *words: str, check: bool = True) -> str:
        env = {"PATH": PATH, "SLURM_CONF": str(self.conf)}
        done = subprocess.run(words, env=env, capture_output=True, timeout=30, check=check)
        return done.stdout.decode().strip()

    def states(self) -> set[str]:
        """Of the nodes, in small letters."""
        return set(self.ask("sinfo", "--noheader", "--Node", "--format=%t", check=False).split())

    def steps(self, node: str = "") -> list[processes.Process]:
        """The daemons that stand above running jobs, of one node or of all."""
        log = str(self.folder / "log" / f"slurmd-{node or self.name}")
        return [
            process
            for process in processes.everybody()
            if _command(process.pid).startswith("slurmstepd") and log in _open_files(process.pid)
        ]

    # -- making -----------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        for name in ("etc", "state", "run", "log", "spool", "dev", "munge"):
            (self.folder / name).mkdir(parents=True)
        self.munge.chmod(0o755)
        self.ports = free_ports(1 + self.nodes)
        nodes, gres = [], []
        host = socket.gethostname().partition(".")[0]
        for i, node in enumerate(self.node_names):
            first, last = i * self.gpus_per_node, (i + 1) * self.gpus_per_node - 1
            for gpu in range(first, last + 1):
                _device(self.folder / "dev" / f"gpu{gpu}")
            files = f"{self.folder}/dev/gpu[{first}-{last}]"
            gres.append(f"NodeName={node} Name=gpu Type=a100 File={files}")
            nodes.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.ports[1 + i]} "
                f"CPUs=8 RealMemory=16000 Gres=gpu:a100:{self.gpus_per_node} State=UNKNOWN"
            )
        text = CONF.format(
            name=self.name,
            host=host,
            port=self.ports[0],
            user=getpass.getuser(),
            munge=self.munge,
            folder=self.folder,
            silent_s=self.silent_s,
            nodes="\n".join(nodes),
        )
        self.conf.write_text(text)
        (self.folder / "etc" / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.folder / "etc" / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def _start_munge(self) -> None:
        key = self.munge / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        places = {
            "key-file": key,
            "socket": self.munge / "munge.sock",
            "pid-file": self.munge / "munged.pid",
            "log-file": self.munge / "munged.log",
            "seed-file": self.munge / "munge.seed",
        }
        words = [f"--{name}={path}" for name, path in places.items()]
        self._daemon("munged", *words, "--num-threads=2", "--force")

    def _daemon(self, *words: str) -> None:
        env = {"PATH": PATH, "SLURM_CONF": str(self.conf)}
        log = self.folder / "log" / f"{words[0]}.out"
        with log.open("ab") as out:
            subprocess.run(words, env=env, stdout=out, stderr=out, timeout=30, check=True)

    def _is_up(self, file: Path) -> None:
        """Daemons go to the background before they write who they are."""
        until(lambda: alive(_pid(file)))

    def _kill(self, file: Path) -> None:
        pid = until(lambda: _pid(file))
        _kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))
        file.unlink(missing_ok=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [int(item.getsockname()[1]) for item in sockets]
    for item in sockets:
        item.close()
    return ports


def running(name: str, folder: Path) -> Iterator[Cluster]:
    """For a fixture: a cluster that is there for as long as it is wanted."""
    cluster = Cluster(name, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _device(path: Path) -> None:
    """Slurm counts one GPU for each file; root makes it a device, so that jobs are told theirs."""
    if os.geteuid() == 0:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    else:
        path.touch()


def _pid(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        if pid > 1:
            os.kill(pid, number)


def _kill_trees(roots: list[processes.Process]) -> None:
    below = [process for root in roots for process in processes.descendants(root.pid)]
    for process in [*roots, *below]:
        processes.kill(process)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\x00", b" ").decode()
    except OSError:
        return ""


def _open_files(pid: int) -> str:
    found = []
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.append(os.readlink(entry.path))
    return "\n".join(found)
