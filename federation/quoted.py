"""A settled line held against the quote that its job cites: equal to it, or one reason why not.

Pure: what the quote said and what is on record of the contract go in, a code and a sentence come
out. Whole micro-credits only. Docs: "API", section "A line and its quote".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from federation.money import as_text

AS_QUOTED = "as_quoted"
LONGEST = 500  #: characters of a sentence that are kept
SAME_SPEED = 1e-6  #: speeds that differ by less are told as the same
#: every code in the order in which they are looked for, and what it says of the line
CODES: Mapping[str, str] = {
    AS_QUOTED: "it is, to the micro-credit, what the quote's rate gives for the samples paid",
    "decision": "the rate is the quote's; a dispute was decided",
    "running_cost": "the rate is the quote's; the tenant's end costs the reserve of the GPU time",
    "penalty": "the rate is the quote's; the site paid a penalty to the tenant",
    "rounding": "the rate is the quote's; it was carried to other work than the round sold",
    "quote_expired": "the contract was opened after the quote's expiry",
    "offer_changed": "the site sold under another version of its offer than the pinned one",
    "other_pool": "the round placed the job in another pool",
    "other_size": "the round gave it another number of GPUs",
    "price_moved": "the round's posted price is another",
    "speed_corrected": "the price is the quote's; the speed that the round believed is another",
    "other_amount": "price and speed are the quote's; the round sold another amount of work",
}


@dataclass(frozen=True, slots=True)
class Pin:
    """The version of a site's offer that a quote is based on."""

    site: str
    version: int
    offer: str  #: id


@dataclass(frozen=True, slots=True)
class Quoted:
    """What a quote said of one round of its job."""

    id: str
    round: int  #: number of the round whose book it was asked against
    expires_at: datetime
    pool: str  #: SITE.POOL
    gpus: int
    price_micro: int  #: per GPU-hour
    samples: int  #: at least 1
    samples_per_s: float | None  #: on these GPUs; None = the answer did not say
    payment_micro: int
    offers: tuple[Pin, ...]

    def pay_micro(self, samples: int) -> int:
        """What the quote's rate gives for so many samples; the fraction stays with the tenant."""
        return self.payment_micro * samples // self.samples

    def version_of(self, site: str) -> int | None:
        """The pinned version of a site's offer; None where the quote pins none."""
        return next((pin.version for pin in self.offers if pin.site == site), None)

    def document(self) -> dict[str, Any]:
        """As it is kept with the job."""
        return {
            "id": self.id,
            "round": self.round,
            "expires_at": self.expires_at.isoformat(),
            "pool": self.pool,
            "gpus": self.gpus,
            "price_micro": self.price_micro,
            "samples": self.samples,
            "samples_per_s": self.samples_per_s,
            "payment_micro": self.payment_micro,
            "offers": [
                {"site": pin.site, "version": pin.version, "offer": pin.offer}
                for pin in self.offers
            ],
        }


def quoted_read(document: Mapping[str, Any]) -> Quoted:
    """The value of `Quoted.document`."""
    plain = dict(document)
    return Quoted(
        **{
            **plain,
            "expires_at": datetime.fromisoformat(plain["expires_at"]),
            "offers": tuple(Pin(**pin) for pin in plain["offers"]),
        }
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A settled contract, as far as a quote spoke of such things."""

    opened_at: datetime
    round: int | None  #: number of the round that sold it
    site: str
    pool: str  #: SITE.POOL
    offer_version: int | None  #: of its site, in that round; None = not on record
    gpus: int
    price_micro: int  #: per GPU-hour
    contracted: int  #: samples
    payment_micro: int  #: for all that was contracted
    samples_per_s: float | None  #: forecast of the award; None = not on record
    steps: int  #: how often its payment was rounded after the round had sold it
    accepted: int  #: samples paid for
    pay_micro: int  #: of the escrow, to the site
    penalty_micro: int  #: of the site's bond, to the tenant
    decided: bool  #: a dispute's decision made these figures other than the contract's own

    @property
    def charged_micro(self) -> int:
        """What it cost the tenant in all."""
        return self.pay_micro - self.penalty_micro

    @property
    def at_its_rate_micro(self) -> int:
        """What the contract's own rate gives for the samples paid."""
        if not self.contracted:
            return 0
        return self.payment_micro * min(self.accepted, self.contracted) // self.contracted


@dataclass(frozen=True, slots=True)
class Compared:
    """How a line stands to its quote, micro-credits."""

    code: str  #: one of CODES
    why: str  #: one sentence, then both figures
    quoted_micro: int  #: what the quote's rate gives for the samples paid
    charged_micro: int


def compared(quoted: Quoted, line: Line) -> Compared:
    """Hold a settled line against the quote: equal to the micro-credit, or the first reason.

    Where the contract's rate gives what the quote's does, the reason lies in the settlement;
    elsewhere in the round that sold the contract.
    """
    due = quoted.pay_micro(line.accepted)
    if line.charged_micro == due:
        why = f"{as_text(due)} credits for {line.accepted} samples, as quoted."
        return Compared(AS_QUOTED, why, due, due)
    code, why = _settlement(line) if line.at_its_rate_micro == due else _market(quoted, line, due)
    figures = (
        f"For {line.accepted} samples the quote gives {as_text(due)} credits, the line is "
        f"{as_text(line.charged_micro)}."
    )
    return Compared(code, f"{why} {figures}"[:LONGEST], due, line.charged_micro)


def _settlement(line: Line) -> tuple[str, str]:
    """Same rate, another sum: what the settlement added or took."""
    if line.decided:
        return "decision", "A dispute was decided otherwise than the contract's own figures say."
    more = line.pay_micro - line.at_its_rate_micro
    if more:
        why = f"The tenant ended it: running cost at the reserve price adds {as_text(more)}."
        return "running_cost", why
    why = f"The site pays a penalty of {as_text(line.penalty_micro)} to the tenant."
    return "penalty", why


def _market(quoted: Quoted, line: Line, due: int) -> tuple[str, str]:
    """Another rate: the first of the reasons that the record holds."""
    if _rounded(quoted, line, due):
        why = "The round's rate was carried to other work than it sold, rounded to a micro-credit."
        return "rounding", why
    if line.opened_at >= quoted.expires_at:
        opened, over = _moment(line.opened_at), _moment(quoted.expires_at)
        return "quote_expired", f"The contract was opened at {opened}, the quote ended at {over}."
    return _place(quoted, line) or _terms(quoted, line)


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _rounded(quoted: Quoted, line: Line, due: int) -> bool:
    """The same terms, and no more apart than the steps of rounding make it."""
    same = (quoted.pool, quoted.gpus, quoted.price_micro)
    if not line.steps or (line.pool, line.gpus, line.price_micro) != same:
        return False
    return abs(line.at_its_rate_micro - due) <= line.steps + 1


def _place(quoted: Quoted, line: Line) -> tuple[str, str] | None:
    """Where it ran, and under which offer."""
    pinned = quoted.version_of(line.site)
    known = pinned is not None and line.offer_version is not None
    if known and pinned != line.offer_version:
        why = f"Site {line.site} sold under version {line.offer_version} of its offer, not {pinned}"
        return "offer_changed", f"{why} as pinned."
    if line.pool != quoted.pool:
        why = f"Round {line.round} placed it in {line.pool}, the quote in {quoted.pool}."
        return "other_pool", why
    if line.gpus != quoted.gpus:
        why = f"Round {line.round} gave it {line.gpus} GPUs, the quote {quoted.gpus}."
        return "other_size", why
    return None


def _speed_explains(quoted: Quoted, line: Line) -> bool:
    """True when at the same price per GPU-hour the other speed alone makes the other rate."""
    if line.samples_per_s is None or quoted.samples_per_s is None or not line.contracted:
        return False
    if math.isclose(line.samples_per_s, quoted.samples_per_s, rel_tol=SAME_SPEED):
        return False
    here = line.payment_micro / line.contracted * line.samples_per_s  # micro-credits per second
    there = quoted.payment_micro / quoted.samples * quoted.samples_per_s
    whole = (line.contracted, quoted.samples, line.payment_micro, quoted.payment_micro)
    rounded = sum(1 / max(amount, 1) for amount in whole)  # each is a whole number
    return math.isclose(here, there, rel_tol=SAME_SPEED + rounded)


def _terms(quoted: Quoted, line: Line) -> tuple[str, str]:
    """What it cost there, how fast it was believed to be, how much of it was sold."""
    if line.price_micro != quoted.price_micro:
        why = (
            f"Round {line.round} posted {as_text(line.price_micro)} credits per GPU-hour, the "
            f"quote says {as_text(quoted.price_micro)}."
        )
        return "price_moved", why
    if _speed_explains(quoted, line):
        why = (
            f"Round {line.round} believed {line.samples_per_s:.9g} samples/s, the quote "
            f"{quoted.samples_per_s:.9g}."
        )
        return "speed_corrected", why
    why = (
        f"Round {line.round} sold {line.contracted} samples for {as_text(line.payment_micro)}, the "
        f"quote says {quoted.samples} for {as_text(quoted.payment_micro)}."
    )
    return "other_amount", why
