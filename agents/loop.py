"""The agent's one loop: look, report, sync, act.

The broker being away is normal: reports wait in the journal, jobs run on, and only the fence beside
each job ends them. A refusal (a withdrawn credential, say) is told to the operator and retried
slowly; a version mismatch ends the loop, and the jobs stay to their fence.
"""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta
from typing import Protocol

from agents.clock import Clock, rfc3339
from agents.config import SyncSettings
from agents.courier import Courier, Outcome
from agents.errors import AgentError, BrokerRefused, BrokerUnreachable, ProtocolMismatch
from agents.journal import Journal
from agents.log import event, trouble
from agents.offer import Showcase
from agents.protocol import (
    MAX_REPORTS,
    PROTOCOL,
    AttemptState,
    AttemptStatus,
    Receipt,
    ReportBatch,
    ReportReply,
    SyncReply,
    SyncRequest,
    told_version,
)
from agents.site import Site
from agents.supply import Room

VERSION = "0.1.0"
BATCH_BYTES = 1024 * 1024  #: of reports in one call, about
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
SLOW_RETRY_S = 60.0  #: after a refusal
BAD_OFFER = 422  #: the message fits the wire, its offer does not fit the federation
TOO_MUCH = frozenset({400, 413, 422})  #: a batch the broker will never take as it is
NEWS_SHARE = 0.1  #: of the gap between syncs, when there is something to tell
SUPPLY = "supply"  #: errand that asks the scheduler what local users leave
SHARE = 1 / 3  #: of the renewal and fence times that a long-poll may take


class Broker(Protocol):
    def sync(self, request: SyncRequest) -> SyncReply: ...

    def reports(self, batch: ReportBatch) -> ReportReply: ...


class Loop:
    def __init__(
        self,
        *,
        site: Site,
        journal: Journal,
        showcase: Showcase,
        broker: Broker,
        courier: Courier,
        clock: Clock,
        settings: SyncSettings,
        boot: str,
        room: Room | None = None,
    ) -> None:
        self.site = site
        self.showcase = showcase
        self._journal = journal
        self._broker = broker
        self._courier = courier
        self._clock = clock
        self._settings = settings
        self._room = room
        self._boot = boot  # names this start of the agent: journal.begin
        self._orders = journal.noted("orders")
        self._offer_sent = ""  # digest of the offer the broker has had from this start
        self._offer_refused = ("", 0.0)  # a digest the broker refused; boottime to try it again
        self._server: tuple[datetime, float] | None = None  # its clock, and ours then
        self._renew_s = 60.0
        self._next = {"sync": 0.0, "reports": 0.0}  # boottime
        self._failures = {"sync": 0, "reports": 0}
        self._batch = MAX_REPORTS

    def run(self, stop: threading.Event) -> None:
        """Until told to stop, or the site has left; jobs are left as they are."""
        self.site.readopt()
        while not stop.is_set() and not self._left():
            self.step(wait_s=self._settings.tick_s)

    def step(self, *, wait_s: float) -> None:
        """Once round: look, start, report, sync, then wait up to `wait_s` for an answer."""
        self._look_at_room()
        self.site.collect()
        self.site.start_ready()
        self._send_reports()
        self._send_sync()
        for outcome in self._courier.outcomes(wait_s):
            self._take(outcome)

    def _look_at_room(self) -> None:
        """The operator's files, and what local users leave; asked of the scheduler by a courier."""
        if self._room is None:
            return
        door = self._room.door
        door.look()
        if door.untold and self._offer_is_out():
            door.told()
        self._room.tell()
        leaving = door.leaving
        if leaving is not None and door.closed:
            self.site.stop_all(f"the site leaves the federation: {leaving.reason}")
        if not self._courier.busy(SUPPLY) and self._room.due():
            self._courier.send(SUPPLY, self._room.ask, None)

    def _left(self) -> bool:
        """The operator wants the site to leave, nothing runs or is on offer, all is told."""
        if self._room is None or self._room.door.leaving is None:
            return False
        return not self.site.busy() and not self._journal.unsent() and self._offer_is_out()

    def _due(self, kind: str) -> bool:
        return not self._courier.busy(kind) and self._clock.boottime() >= self._next[kind]

    def _send_reports(self) -> None:
        if not self._due("reports"):
            return
        reports = self._journal.pending(limit=self._batch, max_bytes=BATCH_BYTES)
        if reports:
            batch = ReportBatch(PROTOCOL, tuple(reports))
            self._courier.send("reports", self._broker.reports, batch)

    def _send_sync(self) -> None:
        if self._due("sync") and (self._room is None or self._room.ready):
            self._courier.send("sync", self._broker.sync, self._request())

    def _request(self) -> SyncRequest:
        offer = self.showcase.current(self._server_now())
        digest = "" if offer is None else offer.digest()
        return SyncRequest(
            protocol=PROTOCOL,
            agent_version=told_version(VERSION),
            boot=self._boot,
            sent_at=rfc3339(self._clock.wall()),
            offer_digest=digest,
            offer=None if self._is_told(digest) else offer,
            attempts=self.site.statuses(),
            orders_seen=self._orders,
            wait_s=self._wait_s() if digest and self._is_told(digest) else 0.0,
        )

    def _is_told(self, digest: str) -> bool:
        """The broker has this offer, or has refused it a moment ago."""
        refused, until = self._offer_refused
        return digest == self._offer_sent or (digest == refused and self._clock.boottime() < until)

    def _wait_s(self) -> float:
        """Well within both clocks of a lease."""
        if self.showcase.hurry:
            return 0.0
        limits = [self._renew_s, self.site.shortest_fence() or self._renew_s]
        return min(self._settings.wait_s, *(SHARE * limit for limit in limits))

    def _server_now(self) -> datetime | None:
        """The broker's time of day, carried on by our own monotonic clock."""
        if self._server is None:
            return None
        moment, then = self._server
        return moment + timedelta(seconds=self._clock.boottime() - then)

    # -- answers ----------------------------------------------------------------------------------

    def _take(self, outcome: Outcome) -> None:
        if outcome.kind == SUPPLY and self._room is not None:
            self._take_supply(outcome, self._room)
            return
        if outcome.crash is not None:
            raise outcome.crash
        if outcome.error is not None:
            self._failed(outcome, outcome.error)
            return
        if self._failures[outcome.kind]:
            event("broker.back", call=outcome.kind, after=self._failures[outcome.kind])
        self._failures[outcome.kind] = 0
        if outcome.kind == "sync":
            self._synced(outcome.request, outcome.reply, outcome.sent)
        else:
            self._receipted(outcome.request, outcome.reply)

    def _take_supply(self, outcome: Outcome, room: Room) -> None:
        """No answer, or one that cannot be read, must cost no running job anything."""
        missed = outcome.error or outcome.crash
        if missed is not None:
            room.miss(missed)
        else:
            room.hear(outcome.reply)

    def _synced(self, request: SyncRequest, reply: SyncReply, sent: float) -> None:
        self._renew_s = max(reply.renew_s, 1.0)
        self._read_server_clock(reply.server_time)
        if request.offer is not None:
            self._offer_sent = request.offer_digest
        listed = frozenset(status.attempt for status in request.attempts)
        self.site.act(reply, sent=sent, listed=listed)
        self._heed(reply.asks)
        self._orders = reply.orders
        self._note(reply)
        news = _states(self.site.statuses()) != _states(request.attempts)
        soon = news or not self._offer_is_out()
        self._next["sync"] = sent + self._settings.gap_s * (NEWS_SHARE if soon else 1.0)

    def _heed(self, asks: tuple[str, ...]) -> None:
        for ask in asks:
            if ask == "offer":
                self._offer_sent = ""
            else:
                trouble("ask.ignored", ask=ask[:80])

    def _offer_is_out(self) -> bool:
        offer = self.showcase.current(self._server_now())
        return offer is not None and self._is_told(offer.digest())

    def _read_server_clock(self, text: str) -> None:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return
        if moment.tzinfo is not None:
            self._server = (moment, self._clock.boottime())

    def _note(self, reply: SyncReply) -> None:
        """For a restart and for `hanse agent status`."""
        if self._journal.noted("orders") != reply.orders:
            self._journal.note("orders", reply.orders)
        last = {"at": rfc3339(self._clock.wall()), "server_time": reply.server_time}
        self._journal.note("last_sync", json.dumps(last))

    def _receipted(self, batch: ReportBatch, reply: ReportReply) -> None:
        for refusal in self._journal.receive(reply.receipts):
            self._tell_refusal(refusal)
        self._batch = MAX_REPORTS
        ours = {(report.attempt, report.seq) for report in batch.reports}
        if not ours <= {(receipt.attempt, receipt.seq) for receipt in reply.receipts}:
            self._retry("reports", LAST_RETRY_S)  # an answer that answers nothing, or not all

    def _tell_refusal(self, receipt: Receipt) -> None:
        trouble(
            "report.refused",
            attempt=receipt.attempt,
            seq=receipt.seq,
            code=receipt.code,
            why=receipt.why,
        )

    def _failed(self, outcome: Outcome, error: AgentError) -> None:
        kind = outcome.kind
        self._failures[kind] += 1
        if isinstance(error, ProtocolMismatch):
            raise error
        if isinstance(error, BrokerRefused):
            self._refused(outcome, error)
            return
        # never so patient that the broker, once back, would call the site silent
        longest = min(LAST_RETRY_S, SHARE * self._renew_s)
        delay = min(longest, FIRST_RETRY_S * 2.0 ** min(self._failures[kind] - 1, 10))
        if isinstance(error, BrokerUnreachable) and error.retry_after_s is not None:
            delay = max(delay, error.retry_after_s)
        trouble("broker.away", call=kind, why=str(error), retry_s=delay)
        self._retry(kind, delay)

    def _refused(self, outcome: Outcome, error: BrokerRefused) -> None:
        trouble("broker.refused", call=outcome.kind, code=error.code, why=error.why)
        if outcome.kind == "reports" and error.status in TOO_MUCH:
            self._split(outcome.request, error)
            return
        if outcome.kind == "sync" and error.status == BAD_OFFER and outcome.request.offer:
            # a mistake in the offer must not cost the jobs that run: sync on without it
            until = self._clock.boottime() + SLOW_RETRY_S
            self._offer_refused = (outcome.request.offer_digest, until)
            return
        self._retry(outcome.kind, SLOW_RETRY_S)

    def _split(self, batch: ReportBatch, error: BrokerRefused) -> None:
        """Find the one report that spoils the batch, and set it aside for the operator."""
        if len(batch.reports) > 1:
            self._batch = len(batch.reports) // 2
            return
        [report] = batch.reports
        receipt = Receipt(report.attempt, report.seq, False, error.code, error.why)
        self._journal.receive([receipt])
        self._tell_refusal(receipt)

    def _retry(self, kind: str, delay: float) -> None:
        """A little apart from other agents that lost the broker at the same moment."""
        spread = 0.75 + 0.5 * (sum(self._boot.encode()) % 100) / 100
        self._next[kind] = self._clock.boottime() + delay * spread


def _states(statuses: tuple[AttemptStatus, ...]) -> list[tuple[str, AttemptState, str | None]]:
    """What of the attempts is worth a sync of its own; report numbers are not."""
    return [(status.attempt, status.state, status.contract) for status in statuses]
