"""The offer this site puts up: configured pools, declared and measured speeds, a validity.

The validity counts from the *broker's* clock, which each sync reply tells: a site whose own clock
is wrong must not offer yesterday. An unchanged offer keeps its text, and so its digest, until half
of its validity is over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from agents.clock import rfc3339
from agents.config import Config
from agents.journal import Journal
from agents.protocol import AffinityOffer, BadMessage, OfferDocument, canonical, decode, encode


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


class Showcase:
    """The current offer; remembers the last dated one through a restart."""

    def __init__(self, *, offer: OfferDocument, hours: float | None, journal: Journal) -> None:
        self.offer = offer
        self.hurry = False  # a new offer is expected soon: no long-polls until then
        self._hours = hours
        self._journal = journal

    def current(self, server_now: datetime | None) -> OfferDocument | None:
        """None: its dates need the broker's clock, which the first answer will bring."""
        if self._hours is None:
            return self.offer
        if server_now is None:
            return None
        last = _offer(self._journal.noted("offer"))
        offer = dated(self.offer, last, hours=self._hours, now=server_now)
        if offer != last:
            self._journal.note("offer", canonical(encode(offer)).decode())
        return offer


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
