"""Which columns each answer is shown with. Numbers stand right, their units in the header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hanse.answers import Choice, Job, Offer, Placed, Plan, Priced, Quote, QuoteAnswer, Round, Why
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
        ("quote", job.get("quote")),
        ("quoted", _quoted(job)),
        ("created", moment(job.get("created_at"))),
        ("updated", moment(job.get("updated_at"))),
    ]
    _show_fields(fields, 10)


def show_quotes(quotes: Sequence[Quote]) -> None:
    for at, quote in enumerate(quotes):
        if at:
            say("")
        show_quote(quote)


def show_quote(quote: Quote) -> None:
    """A quote in full: what it costs and where, or why the job would not run."""
    answer, failed = quote.get("answer"), quote.get("failed")
    pins = (f"{pin['site']} v{pin['version']}" for pin in quote.get("offers") or [])
    fields: list[tuple[str, Any]] = [
        ("quote", quote["id"]),
        ("name", quote["name"]),
        ("class", quote["job_class"]),
        ("state", quote["state"]),
        ("failed", f"{failed['message']} ({failed['code']})" if failed else None),
        ("bid", _with_unit(quote["value"], 3, "credits per million samples")),
        *(_answered(answer) if answer else ()),
        ("round", quote["round"]),
        ("offers", ", ".join(pins) or "none"),
        ("expires", moment(quote.get("expires_at"))),
    ]
    _show_fields(fields, 12)


def _answered(answer: QuoteAnswer) -> list[tuple[str, Any]]:
    reason, at = answer.get("reason"), answer.get("would_run_at")
    return [
        ("runs", "yes" if answer["runs"] else "no"),
        *(field for placed in answer["placed"] for field in _placed(placed)),
        ("reason", f"{reason['message']} ({reason['code']})" if reason else None),
        (
            "would run at",
            f"{at['value']} credits per million samples, {at['pool']}" if at else None,
        ),
        ("displaces", _displaced(answer)),
    ]


def _placed(placed: Placed) -> list[tuple[str, Any]]:
    plan = placed.get("plan")
    return [
        ("pool", placed["pool"]),
        ("GPUs", placed["gpus"]),
        ("price", f"{placed['price']} credits per GPU-hour"),
        ("before", f"{placed['price_before']} credits per GPU-hour, without the job"),
        ("per million", _with_text(placed.get("price_per_million"), "credits per million samples")),
        ("payment", f"{placed['payment']} credits for the round"),
        ("samples", f"{number(placed['samples'])} in the round"),
        ("speed", _with_unit(placed.get("samples_per_s"), 0, "samples/s")),
        ("plan", _split(plan) if plan else None),
    ]


def _split(plan: Plan) -> str:
    return (
        f"tensor {plan['tensor']} x pipeline {plan['pipeline']} x data {plan['data']}, ZeRO "
        f"{plan['zero']}, micro-batch {plan['micro_batch']}"
    )


def _displaced(answer: QuoteAnswer) -> str | None:
    own, others = answer["displaces_own"], answer["displaces_others"]
    said = [f"your {', '.join(own)}"] if own else []
    if others:
        said.append(f"{others} of others")
    return "; ".join(said) or None


def _quoted(job: Job) -> str | None:
    quoted = job.get("quoted")
    if not quoted:
        return None
    return (
        f"{quoted['payment']} credits for {number(quoted['samples'])} samples on "
        f"{quoted['gpus']} GPUs at {quoted['pool']}"
    )


def _show_fields(fields: Sequence[tuple[str, Any]], width: int) -> None:
    for name, value in fields:
        if value not in (None, "", "-"):
            say(f"{name:<{width}} {plain(value)}")


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


def show_plans(choice: Choice) -> None:
    """A row for each plan worth having, and what a submission would get."""
    columns = [
        ("POOL", False),
        ("GPUS", True),
        ("TP x PP x DP", False),
        ("ZERO", True),
        ("RECOMPUTE", False),
        ("MEMORY GB/GPU", True),
        ("STEP S", True),
        ("TIME H", True),
        ("CREDITS", True),
        ("BEST", False),
    ]
    show_table(columns, [_plan_row(*row) for row in _plans(choice)], empty="no plan")
    say("")
    say(f"GPUs  {', '.join(map(str, choice['gpus']))}")
    say(f"pools {', '.join(choice['pools'])}")
    for sentence in (*choice["why"], *choice["notes"]):
        say(sentence)
    for row in choice["refused"]:
        say(f"{row['pool']}: {row['why']}")


def _plans(choice: Choice) -> list[tuple[Priced, str]]:
    """The front with the two best, quickest first, each once, and which of the two it is."""
    found: list[tuple[Priced, list[str]]] = [(one, []) for one in choice["front"]]
    best = (("cheapest", choice["cheapest"]), ("fastest", choice["fastest"]))
    for word, priced in best:
        if priced is None:
            continue
        words = next((words for one, words in found if one == priced), None)
        if words is None:
            found.append((priced, [word]))
        else:
            words.append(word)
    found.sort(key=lambda row: row[0]["time_s"])
    return [(one, ", ".join(words)) for one, words in found]


def _plan_row(one: Priced, best: str) -> tuple[object, ...]:
    plan = one["plan"]
    return (
        one["pool"],
        plan["gpus"],
        f"{plan['tensor']} x {plan['pipeline']} x {plan['data']}",
        plan["zero"],
        plan["recompute"],
        number(plan["memory_gb"].get("total"), 1),
        number(plan["step_time_s"], 3),
        number(one["time_s"] / 3600, 2),
        number(one["credits"], 2),
        best,
    )


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


def _with_text(value: str | None, unit: str) -> str | None:
    return None if value is None else f"{value} {unit}"


def _with_unit(value: Any, digits: int, unit: str) -> str | None:
    return None if value is None else f"{number(value, digits)} {unit}"
