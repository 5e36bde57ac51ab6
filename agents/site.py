"""The site's floor: what runs, what waits, what is over. No network and no waiting in here.

`act` takes the broker's wishes (level-triggered: acting twice on one reply changes nothing),
`collect` takes what the driver sees; both write through the journal before they tell anybody.
"""

from __future__ import annotations

from dataclasses import replace

from agents import attempt as facts
from agents.attempt import Attempt
from agents.clock import Clock, rfc3339
from agents.config import Config
from agents.door import Door
from agents.drivers.base import Driver, Exit, Handle
from agents.errors import DriverFailed, JournalFull
from agents.journal import Journal
from agents.log import event, trouble
from agents.orders import fence_lead, refusal, task
from agents.pace import STEADY_S, Rounds, report_s
from agents.policy import Veto
from agents.progress import read_progress
from agents.protocol import (
    MAX_LOG_CHUNK,
    AttemptState,
    AttemptStatus,
    EndReason,
    LeaseOrder,
    Report,
    ReportKind,
    RevokeOrder,
    SyncReply,
)
from agents.slots import free_slots, job_runs

BACKLOG = 50  #: unsent progress reports of one attempt; further ones wait, the last has all totals
LEAVING = "leaving"  #: code of what the operator stops to empty the site


class Site:
    def __init__(
        self,
        *,
        config: Config,
        journal: Journal,
        driver: Driver,
        clock: Clock,
        boot: str,
        door: Door | None = None,
    ) -> None:
        self._config = config
        self._journal = journal
        self._driver = driver
        self._clock = clock
        self._boot = boot  # of the host: clock values of another boot mean nothing
        self._door = door or Door(config=config, clock=clock)
        self._rounds = Rounds()

    # -- what the broker wants ------------------------------------------------------------------

    def act(self, reply: SyncReply, *, sent: float, listed: frozenset[str]) -> None:
        """Carry out a reply to the sync sent at `sent` (boottime) that listed these attempts."""
        for revoke in reply.revokes:
            self._revoke(revoke)
        for name in reply.forget:
            self._forget(name)
        for lease in reply.leases:
            self._lease(lease, sent)
        self._renew(listed | {lease.attempt for lease in reply.leases}, sent)
        for attempt in self._journal.attempts():
            self._fence_waiting(attempt)
        self.start_ready()

    def _revoke(self, revoke: RevokeOrder) -> None:
        known = self._journal.get(revoke.attempt)
        if known is None and not self._journal.seen(revoke.attempt):
            self._never_started(facts.unheard(revoke.attempt), revoke)
        elif known is not None and known.state is AttemptState.WAITING:
            self._never_started(known, revoke)
        elif known is not None and known.holds_gpus:
            why = revoke.why or revoke.code
            self._stop(known, EndReason.REVOKED, why, revoke.grace_s)

    def _never_started(self, attempt: Attempt, revoke: RevokeOrder) -> None:
        event("attempt.never_started", attempt=attempt.attempt, code=revoke.code)
        self._end(attempt, Exit(EndReason.NEVER_STARTED, message=revoke.why))

    def _forget(self, name: str) -> None:
        """The broker has the end on record. If ours still runs, it must stop first."""
        known = self._journal.get(name)
        if known is None:
            return
        if known.state is AttemptState.WAITING:
            self._end(known, Exit(EndReason.NEVER_STARTED, message="the broker gave it up"))
        elif known.holds_gpus:
            why = "the broker has this attempt as ended"
            self._stop(known, EndReason.REVOKED, why, self._config.grace_s)
        elif not known.live:
            self._journal.forget(name)
            self._driver.cleanup(name)
            self._rounds.forget(name)
            event("attempt.forgotten", attempt=name)

    def _lease(self, lease: LeaseOrder, sent: float) -> None:
        known = self._journal.get(lease.attempt)
        if known is not None:
            self._rebook(known, lease)
        elif self._journal.seen(lease.attempt):
            trouble("lease.ignored", attempt=lease.attempt, why="it was over before")
        else:
            self._receive(lease, sent)

    def _receive(self, lease: LeaseOrder, sent: float) -> None:
        attempt = facts.received(lease, fence_at=sent + lease.fence_s, boot=self._boot)
        why = refusal(lease, self._config)
        veto = self._door.veto(lease) if why is None else Veto("", why)
        if veto is not None:
            self._decline(attempt, veto)
            return
        try:
            self._journal.record(attempt, at=self._at(), durable=True)
        except JournalFull:
            return  # no room to remember it: the next answer brings it again
        about = {"job": lease.spec.job, "pool": lease.pool, "gpus": lease.gpus}
        event("attempt.received", attempt=lease.attempt, contract=lease.contract, **about)

    def _decline(self, attempt: Attempt, veto: Veto) -> None:
        """The site's last word; its code tells the market what not to send again."""
        event("attempt.declined", attempt=attempt.attempt, code=veto.code, why=veto.why)
        self._end(attempt, Exit(EndReason.DECLINED, message=veto.why, code=veto.code))

    def _rebook(self, known: Attempt, lease: LeaseOrder) -> None:
        """The same attempt under another contract, or with other terms: the job runs on."""
        old = known.order
        if old is None or old == lease or not known.live or lease.contract in known.past_contracts:
            return
        if (old.pool, old.gpus) != (lease.pool, lease.gpus):
            trouble("lease.ignored", attempt=lease.attempt, why="pool or GPUs of a live attempt")
            return
        if known.state is not AttemptState.WAITING:
            known = self._look(known)  # what was trained up to now belongs to the old contract
            if known.exit is not None:
                return
        if lease.contract == known.contract:
            self._journal.record(replace(known, order=lease))
            return
        told = [] if known.started is None else [facts.fact_progress(known, self._at())]
        self._journal.record(known.under(lease), told)
        event("attempt.rebooked", attempt=lease.attempt, contract=lease.contract)

    def _renew(self, names: frozenset[str], sent: float) -> None:
        """An answered sync moves the fence of every attempt that both sides spoke of."""
        for name in names:
            known = self._journal.get(name)
            if known is None or known.order is None or not known.live or known.exit is not None:
                continue
            fence_at = sent + known.order.fence_s
            self._journal.keep(replace(known, fence_at=fence_at, boot=self._boot))
            if known.handle is not None:
                self._driver.renew(known.handle, fence_at)

    # -- starting and stopping --------------------------------------------------------------------

    def start_ready(self) -> None:
        """Start what has its GPUs; who waits longest keeps a claim on what becomes free.

        What waits when the site's rules change has not begun: it is declined like a new lease.
        """
        attempts = self._journal.attempts()
        free = {
            pool.name: free_slots(attempts, pool, room=self._door.room(pool))
            for pool in self._config.pools
        }
        for attempt in attempts:
            if attempt.state is not AttemptState.WAITING or attempt.order is None:
                continue
            order = attempt.order
            veto = self._door.veto(order)
            if veto is not None:
                self._decline(attempt, veto)
                continue
            ours = free.get(order.pool, ())
            slots, free[order.pool] = ours[: order.gpus], ours[order.gpus :]
            if len(slots) == order.gpus and not job_runs(self._journal.attempts(), order.spec.job):
                self._start(attempt, order, slots)

    def _start(self, attempt: Attempt, order: LeaseOrder, slots: tuple[int, ...]) -> None:
        """Written before and after: a crash in between is settled by `readopt`."""
        pool = self._config.pool(order.pool)
        if pool is None:
            return
        starting = replace(attempt, state=AttemptState.STARTING, slots=slots, boot=self._boot)
        try:
            starting = self._journal.record(starting, durable=True)
        except JournalFull:
            return  # it waits for its GPUs and for room on the disk
        work = task(order, self._config, pool, slots=slots, fence_at=attempt.fence_at)
        try:
            self._started(starting, self._driver.start(work))
        except DriverFailed as error:
            trouble("attempt.not_started", attempt=attempt.attempt, why=str(error))
            self._end(starting, Exit(EndReason.DRIVER_FAILED, message=str(error)))

    def _started(self, attempt: Attempt, handle: Handle) -> Attempt:
        began = replace(attempt, ref=handle.ref, started=handle.started, told_at=handle.started)
        event("attempt.started", attempt=attempt.attempt, ref=handle.ref)
        return self._journal.record(began, [facts.fact_started(began, self._at())])

    def _stop(
        self, attempt: Attempt, reason: EndReason, why: str, grace_s: float, code: str = ""
    ) -> None:
        """Ask once; the guard keeps the time."""
        if attempt.state is AttemptState.STOPPING:
            return
        stopping = replace(
            attempt,
            state=AttemptState.STOPPING,
            stop_reason=reason,
            stop_why=why,
            stop_code=code,
            stop_grace_s=min(max(grace_s, 0.0), self._config.grace_s),
        )
        event("attempt.stopping", attempt=attempt.attempt, reason=str(reason), why=why)
        self._ask_to_stop(self._journal.record(stopping))

    def _ask_to_stop(self, attempt: Attempt) -> None:
        if attempt.handle is not None and attempt.stop_reason is not None:
            self._driver.stop(
                attempt.handle,
                grace_s=attempt.stop_grace_s,
                reason=attempt.stop_reason,
                why=attempt.stop_why,
            )

    def _end(self, attempt: Attempt, over: Exit) -> None:
        told = [facts.fact_ended(attempt, over, self._at())]
        self._journal.record(facts.ended(attempt, over), told, at=self._at())

    def stop_all(self, why: str) -> None:
        """The operator empties the site; nothing that waits is started any more."""
        for attempt in self._journal.attempts():
            if attempt.state is AttemptState.WAITING:
                self._decline(attempt, Veto(LEAVING, why))
            elif attempt.holds_gpus:
                reason, grace_s = EndReason.DRIVER_FAILED, self._config.grace_s
                self._stop(attempt, reason, why, grace_s, code=LEAVING)

    def busy(self) -> bool:
        """True while something lives here."""
        return any(attempt.live for attempt in self._journal.attempts())

    def statuses(self) -> tuple[AttemptStatus, ...]:
        return tuple(attempt.status() for attempt in self._journal.attempts())

    def shortest_fence(self) -> float | None:
        """Seconds; a long-poll must be well below it."""
        fences = [a.order.fence_s for a in self._journal.attempts() if a.live and a.order]
        return min(fences, default=None)

    # -- after a restart --------------------------------------------------------------------------

    def readopt(self) -> None:
        """Find again what was running; whatever the journal does not know is not left running."""
        for attempt in self._journal.attempts():
            if not attempt.holds_gpus:
                continue
            if not attempt.ref:
                self._readopt_starting(attempt)
            elif attempt.state is AttemptState.STOPPING:
                self._ask_to_stop(attempt)
            event("attempt.readopted", attempt=attempt.attempt, state=str(attempt.state))
        for name in self._driver.known():
            if self._journal.get(name) is None:
                self._clear_stray(name)

    def _readopt_starting(self, attempt: Attempt) -> None:
        handle = self._driver.readopt(attempt.attempt)
        if handle is None:
            why = "the agent was stopped while it started this attempt; nothing ran"
            self._end(attempt, Exit(EndReason.DRIVER_FAILED, message=why))
        else:
            self._ask_to_stop(self._started(attempt, handle))

    def _clear_stray(self, name: str) -> None:
        handle = self._driver.readopt(name)
        if handle is None or self._driver.poll(handle).exit is not None:
            self._driver.cleanup(name)
            return
        trouble("attempt.stray", attempt=name, why="it runs but the journal does not know it")
        self._driver.stop(
            handle,
            grace_s=self._config.grace_s,
            reason=EndReason.DRIVER_FAILED,
            why="the agent's journal does not know this attempt",
        )

    # -- what the driver sees ---------------------------------------------------------------------

    def collect(self) -> None:
        """Look at what is alive and has its turn, and write down what is new."""
        attempts = self._journal.attempts()
        for attempt in attempts:
            self._fence_waiting(attempt)
        for attempt in self._rounds.due(attempts, self._clock.boottime()):
            self._collect(attempt)

    def _fence_waiting(self, attempt: Attempt) -> None:
        """What waited beyond its fence may run elsewhere by now: it is not started here."""
        if attempt.state is not AttemptState.WAITING or attempt.order is None:
            return
        begins = attempt.fence_at - fence_lead(attempt.order, self._config)
        if attempt.boot != self._boot or self._clock.boottime() >= begins:
            why = "the fence passed before its GPUs were free"
            self._end(attempt, Exit(EndReason.FENCED, message=why))

    def _collect(self, attempt: Attempt) -> None:
        now = self._clock.boottime()
        seen = self._look(attempt)
        first = seen.state is AttemptState.STARTING and seen.meter.lines > 0
        since = now - seen.reported_at
        if seen.exit is None and not first and since < self._report_s():
            self._journal.keep(seen)
            return
        if first:
            seen = replace(seen, state=AttemptState.RUNNING)
        seen, told = self._logs(replace(seen, reported_at=now))
        if seen.exit is not None:
            self._finish(seen, told, attempt)
            return
        if self._progress_is_news(seen, now):
            told.append(facts.fact_progress(seen, self._at()))
            seen = replace(seen, told_at=now, told_lines=seen.meter.lines)
        kept = self._journal.record(seen, told) if told else self._journal.keep(seen)
        self._stop_full_probe(kept)

    def _report_s(self) -> float:
        return report_s(self._config.sync.report_s, len(self._journal.attempts()))

    def _look(self, attempt: Attempt) -> Attempt:
        """Exit first, progress after: nothing is written once the exit is known."""
        seen = attempt
        if seen.exit is None and seen.handle is not None:
            seen = facts.seen(seen, self._driver.poll(seen.handle))
        held = facts.gpu_seconds(seen, self._clock.boottime(), self._boot)
        return replace(seen, meter=read_progress(seen, self._driver, self._clock), gpu_seconds=held)

    def _logs(self, attempt: Attempt) -> tuple[Attempt, list[Report]]:
        """New log as facts, as much as the journal may hold unsent."""
        told: list[Report] = []
        _, waiting = self._journal.unsent_of(attempt.attempt, ReportKind.LOG)
        while not attempt.log_closed and waiting < self._config.logs.unsent_bytes:
            part = self._driver.logs(attempt.attempt, attempt.log_offset, MAX_LOG_CHUNK)
            if not part.data:
                closed = attempt.exit is not None
                return replace(attempt, log_closed=closed), told
            told.append(facts.fact_log(attempt, part, self._at()))
            waiting += len(part.data)
            end = attempt.log_offset + len(part.data)
            attempt = replace(attempt, log_offset=end, log_closed=part.truncated)
        return attempt, told

    def _finish(self, seen: Attempt, told: list[Report], before: Attempt) -> None:
        """The end is told after all of the log; until then only the GPUs are free."""
        over = seen.exit
        rest = self._driver.progress(seen.attempt, seen.meter.offset, 1)
        if over is not None and seen.log_closed and not rest:
            event(
                "attempt.ended",
                attempt=seen.attempt,
                reason=str(over.reason),
                exit_code=over.exit_code,
                samples=seen.meter.samples,
            )
            told.append(facts.fact_ended(seen, over, self._at()))
            seen = facts.ended(seen, over)
        if told or before.exit is None:
            self._journal.record(seen, told)
        else:
            self._journal.keep(seen)

    def _progress_is_news(self, attempt: Attempt, now: float) -> bool:
        count, _ = self._journal.unsent_of(attempt.attempt, ReportKind.PROGRESS)
        news = attempt.meter.lines > attempt.told_lines or now - attempt.told_at >= STEADY_S
        return news and count < BACKLOG

    def _stop_full_probe(self, attempt: Attempt) -> None:
        spec = attempt.order.spec if attempt.order else None
        if spec and spec.probe and 0 < spec.samples_wanted <= attempt.meter.samples:
            why = "the probe has its samples"
            self._stop(attempt, EndReason.RUNTIME_LIMIT, why, spec.grace_s)

    def _at(self) -> str:
        return rfc3339(self._clock.wall())
