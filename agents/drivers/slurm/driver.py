"""The agent's side of a Slurm cluster: submit, look, ask to stop, find again.

    <shared>/<site>/attempts/<attempt>/   what agent and guards tell each other (see `folder`)
    <shared>/<site>/code-<digest>/        the guards' program
    <work>/<job>/                         the job's folder, kept for its later attempts here

An attempt starts at most once, whatever is lost on the way: its folder is made once, and in the
folder one guard takes the claim. A job that Slurm starts late or twice finds it taken and ends.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agents.clock import Clock, boot_id
from agents.config import NAME, Config
from agents.drivers import guard
from agents.drivers.base import Capacity, Exit, Handle, LogPart, Phase, Status, Task
from agents.drivers.environment import job_environment
from agents.drivers.loading import Kind
from agents.drivers.settings import DriverSettings
from agents.drivers.slurm import code, settings, submission, supply
from agents.drivers.slurm.answers import JobSeen
from agents.drivers.slurm.command import Commands, SlurmRefused, SlurmSilent
from agents.drivers.slurm.folder import AttemptFolder, Submission
from agents.drivers.slurm.queue import Questions, Queue
from agents.drivers.slurm.settings import SlurmSettings
from agents.drivers.slurm.states import Evidence, Silence, hopeless, over_in_slurm, verdict
from agents.errors import ConfigError, DriverFailed
from agents.log import trouble
from agents.protocol import EndReason

LOOK_S = 1.0  #: between two looks at one attempt's folder: they cost the file server something
SETTLE_S = 5.0  #: from Slurm's word of an end until the shared folder is believed to show all
HOPELESS_S = 10.0  #: for which Slurm has to say that a job can never start
BEYOND_GRACE_S = 10.0  #: after this Slurm is asked to end what our guard has not ended
TAIL = 500  #: characters of a batch script's last words worth telling


@dataclass(slots=True)
class Memory:
    """Of one attempt, between two looks: what need not be read again, and since when. Boottimes."""

    submitted: Submission | None = None
    begun: tuple[float, float] | None = None  #: when, and how far its host's clock is ahead
    look_at: float = 0.0  #: the shared folder is asked again
    over_since: float | None = None  #: Slurm or the guard says that it is over
    hopeless_since: float | None = None
    kill_at: float | None = None  #: Slurm is asked to end what our guard has not ended


class SlurmDriver:
    def __init__(
        self, *, root: Path, site: str, settings: DriverSettings, clock: Clock, boot: str
    ) -> None:
        self._settings = settings
        self._slurm: SlurmSettings = settings.own
        self._site = site
        self._clock = clock
        self._boot = boot  # of this host: boottime of another means nothing here
        home = (
            self._slurm.shared / site if site else self._slurm.shared / f"on-{os.uname().nodename}"
        )
        self._root = home / root.name  # one folder per attempt in here
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._code = code.install(home, python=self._slurm.python)
        except OSError as error:
            raise ConfigError("driver.shared", f"cannot be written: {error}") from None
        self.commands = Commands(self._slurm.bin, self._slurm.conf)
        questions = Questions(self.commands)
        self._queue = Queue(questions=questions, clock=clock, period_s=self._slurm.look_s)
        self._memories: dict[str, Memory] = {}

    def capacity(self) -> Capacity:
        """Cores and memory of the nodes that are up, or nothing when Slurm does not answer."""
        try:
            nodes = supply.nodes(self.commands)
        except (SlurmSilent, SlurmRefused):
            return Capacity(0, 0)
        ready = [node for node in nodes if node.available]
        memory = sum(node.memory_mb for node in ready)
        return Capacity(sum(node.cores for node in ready), memory * 1024 * 1024)

    def supply(self) -> supply.Supply:
        """What the cluster has, and what its local users leave; raises SlurmSilent."""
        return supply.discover(self.commands, self._queue.questions, self._slurm)

    # -- starting ---------------------------------------------------------------------------------

    def start(self, task: Task) -> Handle:
        """A controller that is away is asked again in the background, until the fence."""
        if not NAME.fullmatch(task.attempt) or not NAME.fullmatch(task.job):
            raise DriverFailed("the attempt's or the job's id cannot be a folder's name")
        folder = self._folder(task.attempt)
        words = self._words(task, folder)
        try:
            folder.path.mkdir(mode=0o700)
            self._write(task, folder)
        except FileExistsError:
            raise DriverFailed("this attempt was started here before") from None
        except OSError as error:
            raise DriverFailed(f"driver.shared cannot be written: {error}") from error
        try:
            self._submit(folder, words)
        except SlurmSilent as error:
            trouble("slurm.away", attempt=task.attempt, why=str(error))
            self._queue.later(lambda: self._submit_again(task))
        except SlurmRefused as error:
            if folder.claim_for_nobody():
                raise DriverFailed(str(error)) from None
        return _handle(task.attempt, self._clock.boottime())

    def _words(self, task: Task, folder: AttemptFolder) -> list[str] | None:
        """For sbatch; None while Slurm is away and cannot say how long a job may be."""
        place = self._slurm.pools.get(task.pool)
        try:
            if self._queue.away:
                return None
            longest_s = self._queue.questions.longest("" if place is None else place.partition)
        except SlurmSilent:
            return None
        except SlurmRefused:
            longest_s = None
        return submission.words(
            task,
            settings=self._settings,
            slurm=self._slurm,
            folder=folder.path,
            code=self._code,
            longest_s=longest_s,
        )

    def _submit(self, folder: AttemptFolder, words: list[str] | None) -> None:
        if words is None:
            raise SlurmSilent("slurmctld does not answer")
        answer = self.commands.ask("sbatch", *words)
        number = answer.strip().partition(";")[0]  # "17;cluster"
        if not number.isdecimal():
            raise SlurmRefused(f"sbatch: {answer.strip()[:TAIL]!r} is no job's number")
        folder.submitted(int(number))

    def _submit_again(self, task: Task) -> None:
        """Slurm may have taken it without our hearing of it: it is asked for by its name first."""
        folder = self._folder(task.attempt)
        if not folder.exists or folder.stop() is not None or folder.fence_passed():
            return
        try:
            job = self._queue.questions.named(submission.name_of(task.attempt))
        except SlurmRefused as error:
            raise SlurmSilent(str(error)) from None  # that it is not known is no refusal of the job
        if job is not None:
            folder.submitted(job)
            return
        self._queue.away = False  # it has just answered
        try:
            self._submit(folder, self._words(task, folder))
        except (SlurmRefused, DriverFailed) as error:
            folder.ask_to_stop(grace_s=0.0, reason=EndReason.DRIVER_FAILED, why=str(error))

    def _write(self, task: Task, folder: AttemptFolder) -> None:
        """Everything the guards read; the claim and the end are their own to write."""
        work = self._work(task.job)
        argv = list(task.argv)
        if not argv:
            script = folder.path / "script"
            setup = f"set -e\n{task.setup}\nset +e\n" if task.setup.strip() else ""
            script.write_text(f"{setup}{task.command}\n", encoding="utf-8")
            argv = ["bash", str(script)]
        env = job_environment(
            task,
            site=self._site,
            site_env=self._settings.env,
            work=work,
            progress=folder.path / "progress.jsonl",
            threads_per_gpu=self._settings.threads_per_gpu,
        )
        folder.renew(task.fence_at)
        folder.order(
            {
                "argv": argv,
                "env": env,
                "srun": self._srun(task, folder),
                "work": str(work),
                "fence_at": 0.0,
                "fence_lead_s": task.fence_lead_s,
                "max_runtime_s": task.max_runtime_s,
                "grace_s": task.grace_s,
                "log_cap_bytes": task.log_cap_bytes,
            }
        )

    def _srun(self, task: Task, folder: AttemptFolder) -> list[str]:
        nodes = submission.gang(task, self._slurm.pools[task.pool]).nodes
        return [
            self.commands.program("srun"),
            *(f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"),
            *("--export=ALL", "--input=none", "--mpi=none", "--kill-on-bad-exit=1"),
            *(str(self._slurm.python), "-IS", str(self._code / "batch.py")),
            *(str(self._code), str(folder.path), "node"),
        ]

    # -- looking ----------------------------------------------------------------------------------

    def poll(self, handle: Handle) -> Status:
        folder, memory = self._folder(handle.attempt), self._memory(handle.attempt)
        self._queue.tend()
        job = memory.submitted = memory.submitted or folder.submission()
        seen: JobSeen | Silence = Silence.UNKNOWN
        if job is not None:
            seen = self._queue.look(job.number, since=job.at, name=handle.ref)
        over = self._ending(memory, folder, seen)
        if over is None and job is None:
            over = self._never_submitted(folder)
        if over is not None:
            self._memories.pop(handle.attempt, None)
            if job is not None and isinstance(seen, JobSeen) and "PENDING" in seen.states:
                self._cancel_waiting(handle.attempt, job.number)  # somebody requeued it
            return Status(Phase.OVER, over, folder.began_at(), folder.ahead_s())
        if job is not None:
            self._press(handle.attempt, folder, job.number, seen)
        if memory.begun is None and (began := folder.began_at()) is not None:
            memory.begun = began, folder.ahead_s()
        # what waits in Slurm's queue holds nothing
        began, ahead_s = memory.begun or (self._clock.boottime(), 0.0)
        return Status(Phase.RUNNING, None, began, ahead_s)

    def _ending(
        self, memory: Memory, folder: AttemptFolder, seen: JobSeen | Silence
    ) -> Exit | None:
        """How it ended; None while it runs, and while Slurm or the shared folder may say more."""
        now = self._clock.boottime()
        over = over_in_slurm(seen) or seen is Silence.ABSENT
        if not over and memory.over_since is None and now < memory.look_at:
            return None
        memory.look_at = now + LOOK_S
        record = folder.exit()
        if record is None and not over:
            memory.over_since = None
            return None
        if memory.over_since is None:
            memory.over_since = now
        self._queue.hurry()
        words = folder.bytes_of("slurm.log", 0, 64 * 1024).decode(errors="replace")
        found = Evidence(
            record=record,
            claimed=folder.claimed,
            seen=seen,
            settled=self._is_settled(memory),
            fence_passed=folder.fence_passed(),
            others_ended=folder.others_ended(),
            stop=folder.stop(),
            last_words=words.strip()[-TAIL:],
        )
        return verdict(found)

    def _never_submitted(self, folder: AttemptFolder) -> Exit | None:
        """While Slurm is away the attempt waits, to its fence at most."""
        stop = folder.stop()
        if stop is None and not folder.fence_passed():
            return None
        if not folder.claim_for_nobody():
            return None  # it began after all
        why = "Slurm did not answer before the fence passed; nothing ran"
        reason, why = stop or (EndReason.DRIVER_FAILED, why)
        return Exit(reason, message=why)

    def _press(
        self, attempt: str, folder: AttemptFolder, job: int, seen: JobSeen | Silence
    ) -> None:
        """A lost node gets no more time; a stop that was not heard goes through Slurm; and what
        Slurm will never start is taken back."""
        memory = self._memory(attempt)
        self._give_back_hopeless(attempt, folder, job, seen)
        lost = over_in_slurm(seen) or seen is Silence.ABSENT
        if lost and folder.claimed and not folder.doomed and self._is_settled(memory):
            folder.doom()
            folder.ask_to_stop(grace_s=0.0, reason=EndReason.LOST, why="Slurm lost a node of it")
            trouble("attempt.doomed", attempt=attempt, why="a node is lost; waiting for its fence")
        if memory.kill_at is not None and self._clock.boottime() >= memory.kill_at:
            memory.kill_at = None
            self._queue.errand(lambda: self._cancel(attempt, job))

    def _give_back_hopeless(
        self, attempt: str, folder: AttemptFolder, job: int, seen: JobSeen | Silence
    ) -> None:
        memory, now = self._memory(attempt), self._clock.boottime()
        if not isinstance(seen, JobSeen) or not hopeless(seen):
            memory.hopeless_since = None
            return
        if memory.hopeless_since is None:
            memory.hopeless_since = now
        if now >= memory.hopeless_since + HOPELESS_S and folder.stop() is None:
            why = f"Slurm will not start it: {seen.reason}"
            folder.ask_to_stop(grace_s=0.0, reason=EndReason.DRIVER_FAILED, why=why)
            self._cancel_waiting(attempt, job)

    def _is_settled(self, memory: Memory) -> bool:
        since = memory.over_since
        return since is not None and self._clock.boottime() >= since + SETTLE_S

    def _memory(self, attempt: str) -> Memory:
        return self._memories.setdefault(attempt, Memory())

    # -- steering ---------------------------------------------------------------------------------

    def renew(self, handle: Handle, fence_at: float) -> None:
        folder = self._folder(handle.attempt)
        if not folder.doomed:
            folder.renew(fence_at)

    def stop(self, handle: Handle, *, grace_s: float, reason: EndReason, why: str) -> None:
        folder = self._folder(handle.attempt)
        folder.ask_to_stop(grace_s=grace_s, reason=reason, why=why)
        memory = self._memory(handle.attempt)
        if memory.kill_at is None:
            memory.kill_at = self._clock.boottime() + grace_s + BEYOND_GRACE_S
        job = folder.submission()
        if job is not None and not folder.claimed:
            self._cancel_waiting(handle.attempt, job.number)

    def _cancel_waiting(self, attempt: str, job: int) -> None:
        self._queue.errand(lambda: self._cancel(attempt, job, "--state=PENDING"))

    def _cancel(self, attempt: str, job: int, *words: str) -> None:
        """By number and name: a controller that lost its state gives numbers out anew."""
        name = submission.name_of(attempt)
        self.commands.ask("scancel", "--quiet", f"--name={name}", *words, str(job))

    # -- finding again ----------------------------------------------------------------------------

    def readopt(self, attempt: str) -> Handle | None:
        """By the folder, by the job's name in Slurm; else a late start finds the folder claimed."""
        folder = self._folder(attempt)
        if not NAME.fullmatch(attempt) or not folder.exists:
            return None
        if folder.is_nobodys:
            return None
        if folder.submission() is None:
            with suppress(SlurmSilent, SlurmRefused):
                job = self._queue.questions.named(submission.name_of(attempt))
                if job is not None:
                    folder.submitted(job)
        if folder.submission() is None and folder.claim_for_nobody():
            return None
        now = self._clock.boottime()
        return _handle(attempt, folder.began_at() or now)

    def known(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self._root.iterdir() if entry.is_dir())

    def progress(self, attempt: str, offset: int, limit: int) -> bytes:
        return self._folder(attempt).bytes_of("progress.jsonl", offset, limit)

    def logs(self, attempt: str, offset: int, limit: int) -> LogPart:
        folder = self._folder(attempt)
        data = folder.bytes_of("output.log", offset, limit)
        cap = int(folder.spec().get("log_cap_bytes", 0)) if data else 0
        full = max(cap, len(guard.log_mark(cap)))
        return LogPart(data, truncated=bool(data) and offset + len(data) >= full)

    def cleanup(self, attempt: str) -> None:
        self._memories.pop(attempt, None)
        if NAME.fullmatch(attempt):
            shutil.rmtree(self._folder(attempt).path, ignore_errors=True)

    def _folder(self, attempt: str) -> AttemptFolder:
        return AttemptFolder(self._root / attempt, self._clock, self._boot)

    def _work(self, job: str) -> Path:
        work = (self._settings.work / job).resolve()
        (work / "checkpoint").mkdir(parents=True, exist_ok=True)
        os.utime(work)
        return work


def _handle(attempt: str, started: float) -> Handle:
    """What is needed to find it again is its label; Slurm's number lies in its folder."""
    return Handle(attempt, submission.name_of(attempt), started)


def make(config: Config, root: Path, site: str, clock: Clock) -> SlurmDriver:
    return SlurmDriver(root=root, site=site, settings=config.driver, clock=clock, boot=boot_id())


KIND = Kind(make, keys=settings.KEYS, read=settings.read, work=lambda own: own.shared / "work")
