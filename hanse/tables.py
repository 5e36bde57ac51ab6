"""Which columns each answer is shown with. Numbers stand right, their units in the header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hanse.answers import Job, Offer, Round, Why
from hanse.screen import moment, number, plain, say, short_id, show_table


def show_jobs(jobs: Sequence[Job]) -> None:
    columns = [
        ("ID", False),
        ("NAME", False),
        ("CLASS", False),
        ("STATE", False),
        ("SITE", False),
        ("GPUS", True),
        ("DONE %", True),
        ("SAMPLES/S", True),
        ("CREDITS/GPU-H", True),
        ("SPENT CREDITS", True),
        ("CREATED", False),
    ]
    rows = [
        (
            short_id(job["id"]),
            job["name"],
            job["job_class"],
            job["state"],
            job.get("site") or "-",
            _sizes(job.get("gpus")),
            number(_percent(job), 1),
            number(job.get("samples_per_s")),
            number(job.get("price"), 3),
            number(job.get("spent"), 2),
            moment(job.get("created_at")),
        )
        for job in jobs
    ]
    show_table(columns, rows, empty="no jobs")


def show_job(job: Job) -> None:
    reason = job.get("reason")
    fields: list[tuple[str, Any]] = [
        ("id", job["id"]),
        ("name", job["name"]),
        ("class", job["job_class"]),
        ("state", job["state"]),
        ("reason", f"{reason['message']} ({reason['code']})" if reason else None),
        ("GPUs", _sizes(job.get("gpus"))),
        ("kinds", ", ".join(job.get("gpu_kinds") or []) or "any"),
        ("site", job.get("site")),
        ("pool", job.get("pool")),
        ("attempt", job.get("attempt")),
        ("samples", f"{number(job.get('samples_done'))} of {number(job.get('samples'))}"),
        ("speed", _with_unit(job.get("samples_per_s"), 0, "samples/s")),
        ("predicted", _with_unit(job.get("predicted_samples_per_s"), 0, "samples/s")),
        ("bid", _with_unit(job.get("value"), 3, "credits per million samples")),
        ("price", _with_unit(job.get("price"), 3, "credits per GPU-hour")),
        ("spent", f"{number(job.get('spent'), 2)} of {number(job.get('max_cost'), 2)} credits"),
        ("deadline", moment(job.get("deadline"))),
        ("created", moment(job.get("created_at"))),
        ("updated", moment(job.get("updated_at"))),
    ]
    for name, value in fields:
        if value not in (None, "", "-"):
            say(f"{name:<10} {plain(value)}")


def show_why(why: Why) -> None:
    say(f"{why['state']}: {why['summary']}")
    rounds = why.get("rounds") or []
    if rounds:
        say("")
        show_table(
            [
                ("ROUND", True),
                ("AT", False),
                ("OUTCOME", False),
                ("POOL", False),
                ("CREDITS/GPU-H", True),
                ("WHY", False),
            ],
            [
                (
                    row.get("round"),
                    moment(row.get("at")),
                    row.get("outcome"),
                    row.get("pool") or "-",
                    number(row.get("price"), 3),
                    row.get("why"),
                )
                for row in rounds
            ],
            empty="",
        )
    story = why.get("story") or []
    if story:
        say("")
        show_table(
            [("AT", False), ("FROM", False), ("TO", False), ("WHO", False), ("WHY", False)],
            [
                (
                    moment(event.get("at")),
                    event.get("from") or "-",
                    event.get("to") or "-",
                    event.get("who"),
                    event.get("why") or event.get("event"),
                )
                for event in story
            ],
            empty="",
        )


def show_offers(offers: Sequence[Offer]) -> None:
    """One row per offer and class: what a site asks, and how fast it is believed to be."""
    columns = [
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
        ("REPORTS", True),
    ]
    rows = [
        (
            offer["site"],
            offer["pool"],
            offer["gpu"],
            offer["gpus"],
            number(offer["reserve"], 3),
            number(offer.get("price"), 3),
            row.get("job_class", "-"),
            row.get("gpus", "-"),
            number(row.get("declared")),
            number(row.get("measured")),
            number(row.get("believed")),
            row.get("reports", "-"),
        )
        for offer in offers
        for row in _affinities(offer)
    ]
    show_table(columns, rows, empty="no offers")
    notes = {f"{offer['pool']}: {offer['note']}" for offer in offers if offer.get("note")}
    for note in sorted(notes):
        say(note)


def show_rounds(rounds: Sequence[Round]) -> None:
    columns = [
        ("ROUND", True),
        ("VENUE", False),
        ("STATE", False),
        ("CLOSES", False),
        ("BIDS", True),
        ("OFFERS", True),
        ("TRADED GPUS", True),
        ("SURPLUS CREDITS", True),
        ("CERTIFIED", False),
        ("VOID", False),
    ]
    rows = [
        (
            row["number"],
            row["venue"],
            row["state"],
            moment(row.get("closes_at")),
            row.get("bids"),
            row.get("offers"),
            number(row.get("traded_gpus"), 1),
            number(row.get("surplus"), 2),
            "yes" if row.get("certified") else "no",
            _void(row),
        )
        for row in rounds
    ]
    show_table(columns, rows, empty="no rounds")


def _affinities(offer: Offer) -> Sequence[Any]:
    return offer.get("affinities") or [{}]


def _void(row: Round) -> str:
    void = row.get("void")
    return void["message"] if void else ""


def _sizes(gpus: Any) -> str:
    return "/".join(map(str, gpus)) if isinstance(gpus, list) else number(gpus)


def _percent(job: Job) -> float | None:
    wanted = job.get("samples")
    return 100.0 * (job.get("samples_done") or 0) / wanted if wanted else None


def _with_unit(value: Any, digits: int, unit: str) -> str | None:
    return None if value is None else f"{number(value, digits)} {unit}"
