"""What sites offer, and how fast it is believed to be: claims, measurements, guesses apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from hanse.answers import Affinity, Offer, Quote
from hanse.screen import number, say, show_table

NO_SPEED = "no_feasible_pool"  #: the reason of a quote when no round has a speed for the class
COLUMNS = [
    ("SITE", False),
    ("POOL", False),
    ("GPU", False),
    ("GPUS", True),
    ("RESERVE CREDITS/GPU-H", True),
    ("PRICE CREDITS/GPU-H", True),
    ("CLASS", False),
    ("ON GPUS", True),
    ("DECLARED SAMPLES/S", True),
    ("MEASURED SAMPLES/S", True),
    ("BELIEVED SAMPLES/S", True),
    ("90 % BETWEEN", True),
    ("SOURCE", False),
    ("PRICED", False),
    ("REPORTS", True),
    ("AGE", True),
]
_AGES = ((86_400, "d"), (3600, "h"), (60, "min"))


def show_offers(offers: Sequence[Offer], *, now: datetime) -> None:
    """One row per offer and class: what a site asks, how fast it is believed to be, and by what.

    A speed that is not `priced` is a guess: no round reckons with it before a lease or a probe.
    """
    rows = [
        (
            offer["site"],
            offer["pool"],
            offer["gpu"],
            offer["gpus"],
            number(offer["reserve"], 3),
            number(offer.get("price"), 3),
            *_speed(row, now),
        )
        for offer in offers
        for row in _affinities(offer)
    ]
    show_table(COLUMNS, rows, empty="no offers")
    if any(row.get("priced") is False for offer in offers for row in offer.get("affinities") or ()):
        say("PRICED no: a guess; no round reckons with it before a lease or a probe of that size.")
    notes = {f"{offer['pool']}: {offer['note']}" for offer in offers if offer.get("note")}
    for note in sorted(notes):
        say(note)


def _affinities(offer: Offer) -> Sequence[Any]:
    return offer.get("affinities") or [{}]


def _speed(row: Any, now: datetime) -> tuple[object, ...]:
    return (
        row.get("job_class", "-"),
        row.get("gpus", "-"),
        number(row.get("declared")),
        number(row.get("measured")),
        number(row.get("believed")),
        _between(row),
        row.get("source") or "-",
        {True: "yes", False: "no"}.get(row.get("priced"), "-"),
        row.get("reports", "-"),
        _age(row.get("known_at"), now),
    )


def _between(row: Any) -> str:
    low, high = row.get("low"), row.get("high")
    return "-" if low is None or high is None else f"{number(low)}-{number(high)}"


def _age(known_at: str | None, now: datetime) -> str:
    """How long ago a speed was measured, or its model or prior made: 5 min, 3 h, 12 d."""
    if not known_at:
        return "-"
    try:
        seconds = max(0.0, (now - datetime.fromisoformat(known_at)).total_seconds())
    except (ValueError, TypeError):
        return "-"
    found = next(((span, unit) for span, unit in _AGES if seconds >= span), None)
    return f"{seconds:.0f} s" if found is None else f"{seconds // found[0]:.0f} {found[1]}"


def without_speed(quote: Quote) -> bool:
    """Whether a job would not run because no round has a speed for its class."""
    answer = quote.get("answer")
    reason = answer.get("reason") if answer else None
    return reason is not None and reason["code"] == NO_SPEED


def show_guesses(quote: Quote, offers: Iterable[Offer]) -> None:
    """What is guessed of the class of a quote that no pool has a speed for, and what comes next."""
    found = [
        (offer["pool"], row)
        for offer in offers
        for row in offer.get("affinities") or ()
        if row["job_class"] == quote["job_class"] and row.get("priced") is False
    ]
    for pool, row in sorted(found, key=lambda one: (one[0], one[1]["gpus"])):
        say(f"guess        {_guess(pool, row)}")
    if found:
        say(
            "next         no round reckons with a guess: submit the job, and a probe at its least "
            "size measures it first"
        )


def _guess(pool: str, row: Affinity) -> str:
    return (
        f"{number(row['believed'])} samples/s on {row['gpus']} GPUs at {pool} "
        f"({_between(row)}, by {row.get('source')})"
    )
