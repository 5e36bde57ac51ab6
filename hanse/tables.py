"""Which columns each answer is shown with. Numbers stand right, their units in the header."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hanse.answers import Choice, Job, Placed, Plan, Priced, Quote, QuoteAnswer, Round, Why
from hanse.screen import moment, number, plain, say, short_id, show_table

MOST_REFUSED = 10  #: pools that a plan is shown not to fit
LONGEST_WHY = 160  #: characters of why


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
        ("before", _before(placed)),
        ("per million", _with_text(placed.get("price_per_million"), "credits per million samples")),
        ("payment", f"{placed['payment']} credits for the round"),
        ("samples", f"{number(placed['samples'])} in the round"),
        ("speed", _with_unit(placed.get("samples_per_s"), 0, "samples/s")),
        ("plan", _split(plan) if plan else None),
    ]


def _before(placed: Placed) -> str:
    """The round's own price, and why it is another with the job."""
    said = f"{placed['price_before']} credits per GPU-hour, without the job"
    more = Decimal(placed["price"]) - Decimal(placed["price_before"])
    if not more:
        return said
    if more > 0:
        return f"{said}: its bid for these GPUs raises the price by {more}"
    return f"{said}: with it the round is decided otherwise, {-more} below"


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
    refusals = why.get("refusals") or []
    if refusals:
        say("")
        show_table(
            [("SITE", False), ("RULE", False), ("UNTIL", False), ("WHY", False)],
            [
                (row.get("site"), row.get("code"), moment(row.get("until")), row.get("why"))
                for row in refusals
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
    refused = choice["refused"]
    if refused:
        say(f"refused: {len(refused)} of the pools that it may use")
    for row in refused[:MOST_REFUSED]:
        say(f"  {row['pool']}: {_short(row['why'])}")
    if len(refused) > MOST_REFUSED:
        say(f"  and {len(refused) - MOST_REFUSED} more; all of them with -o json")


def _short(why: str) -> str:
    return why if len(why) <= LONGEST_WHY else f"{why[:LONGEST_WHY].rsplit(' ', 1)[0]} ..."


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
