"""The offer this site puts up: pools as far as there is room, declared and measured speeds.

The validity counts from the *broker's* clock, which each sync reply tells: a site whose own clock
is wrong must not offer yesterday. An unchanged offer keeps its text, and so its digest, until half
of its validity is over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from agents.clock import rfc3339
from agents.config import Config
from agents.journal import Journal
from agents.protocol import (
    AffinityOffer,
    BadMessage,
    OfferDocument,
    SitePolicy,
    canonical,
    decode,
    encode,
)
from agents.supply import Room

MAX_NOTE = 1000  #: characters that the broker keeps


def document(config: Config, measured: Sequence[AffinityOffer]) -> OfferDocument:
    """What is offered, without its dates."""
    declared = [
        AffinityOffer(speed.pool, job_class.name, speed.samples_per_s, speed.gpus)
        for job_class in config.classes
        for speed in job_class.speeds
    ]
    return OfferDocument(
        pools=tuple(pool.offer() for pool in config.pools),
        affinities=(*declared, *measured),
        note=config.offer.note,
    )


def nothing_yet(config: Config) -> OfferDocument:
    """The pools without a speed: nothing can be awarded while probes need the machine."""
    return OfferDocument(
        pools=tuple(pool.offer() for pool in config.pools),
        affinities=(),
        note="speeds are being measured",
    )


def dated(
    offer: OfferDocument, last: OfferDocument | None, *, hours: float, now: datetime
) -> OfferDocument:
    """`last` again while it says the same and half of its time is left; else from `now` on."""
    if last is not None and replace(last, valid_from=None, valid_until=None) == offer:
        until = _moment(last.valid_until)
        if until is not None and timedelta(hours=hours / 2) <= until - now:
            return last
    until = now + timedelta(hours=hours)
    return replace(offer, valid_from=rfc3339(now), valid_until=rfc3339(until))


def limited(
    offer: OfferDocument, gpus: Mapping[str, int], *, policy: SitePolicy | None, notice: str
) -> OfferDocument:
    """As much of an offer as there is room for now, with the rules that go with it."""
    pools = tuple(
        replace(pool, gpus=min(pool.gpus, gpus.get(pool.name, pool.gpus))) for pool in offer.pools
    )
    note = "; ".join(part for part in (notice, offer.note) if part)
    return replace(offer, pools=pools, note=note[:MAX_NOTE], policy=policy)


class Showcase:
    """The current offer; remembers the last dated one through a restart."""

    def __init__(
        self,
        *,
        offer: OfferDocument,
        hours: float | None,
        journal: Journal,
        room: Room | None = None,
    ) -> None:
        self.offer = offer  #: without a look at the room that there is
        self.hurry = False  # a new offer is expected soon: no long-polls until then
        self._hours = hours
        self._journal = journal
        self._room = room

    def current(self, server_now: datetime | None) -> OfferDocument | None:
        """None: its dates need the broker's clock, which the first answer will bring."""
        now = self._limited()
        if self._hours is None:
            return now
        if server_now is None:
            return None
        last = _offer(self._journal.noted("offer"))
        offer = dated(now, last, hours=self._hours, now=server_now)
        if offer != last:
            self._journal.note("offer", canonical(encode(offer)).decode())
        return offer

    def _limited(self) -> OfferDocument:
        room = self._room
        if room is None:
            return self.offer
        policy, notice = room.door.published(), room.door.notice
        return limited(self.offer, room.gpus(), policy=policy, notice=notice)


def _offer(text: str) -> OfferDocument | None:
    try:
        return decode(OfferDocument, json.loads(text)) if text else None
    except (BadMessage, ValueError):
        return None


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
