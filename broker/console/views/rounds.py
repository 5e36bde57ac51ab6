"""Rounds, and one round: why this outcome, and is it right?"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from broker.console import charts
from broker.console.access import operator_only
from broker.console.pages import day, day_after, page_of, show
from federation.machines.round import RoundState
from federation.models import PoolPrice, Round, Venue
from federation.selectors import console_rounds as reads
from federation.selectors.console_jobs import story_of
from federation.selectors.rounds import book_of, clearing_of


@operator_only
def rounds(request: HttpRequest) -> HttpResponse:
    """What happened when?"""
    asked = {key: request.GET.get(key, "") for key in ("state", "venue", "since", "until")}
    found = reads.rounds_found(
        reads.RoundFilter(
            state=asked["state"],
            venue=asked["venue"],
            since=day(request, "since"),
            until=day_after(request, "until"),
        )
    )
    page = page_of(request, found)
    context = {
        "page": page,
        "prices": reads.price_ranges(list(page)),
        "asked": asked,
        "states": list(RoundState),
        "venues": list(Venue.objects.all()),
    }
    return show(
        request,
        "console/rounds.html",
        "Rounds",
        context,
        fragment="console/rounds_table.html",
    )


@operator_only
def round_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One auction: book, allocation, prices, proof, story."""
    round = get_object_or_404(Round.objects.select_related("venue", "snapshot"), pk=pk)
    book, clearing = book_of(round), clearing_of(round)
    prices = sorted(
        PoolPrice.objects.filter(round=round).select_related("pool__site"),
        key=lambda row: (-row.traded_gpu_hours, str(row.pool)),
    )
    pools = [row["id"] for row in book["pools"]] if book else []
    pool = _pool_shown(request, pools, prices)
    context: dict[str, Any] = {
        "round": round,
        "snapshot": getattr(round, "snapshot", None),
        "book": book,
        "clearing": clearing,
        "prices": prices,
        **_lists(request, round, clearing),
        "pools": pools,
        "pool": pool,
        "chart": _chart(book, clearing, pool),
        "files": (file_name(round, "book"), file_name(round, "clearing")),
        "story": story_of("round", round.pk),
    }
    return show(
        request,
        "console/round.html",
        f"Round {round.number}",
        context,
        trail=((reverse("console-rounds"), "Rounds"),),
    )


def _lists(request: HttpRequest, round: Round, clearing: dict[str, Any] | None) -> dict[str, Any]:
    """Who was served and who was not, a page of each."""
    awards = page_of(request, reads.awards_of(round), key="awards")
    unplaced = page_of(request, clearing["unplaced"] if clearing else [], key="unplaced")
    return {
        "awards": awards,
        "leases": reads.leases_of(round, [row.job_id for row in awards]),
        "unplaced": unplaced,
        "unplaced_rows": reads.unplaced_of(list(unplaced)),
    }


def _pool_shown(request: HttpRequest, pools: list[str], prices: list[PoolPrice]) -> str:
    """The pool asked for, else the one that traded most."""
    asked = request.GET.get("pool", "")
    if asked in pools:
        return asked
    if prices:
        return str(prices[0].pool)
    return pools[0] if pools else ""


def _chart(
    book: dict[str, Any] | None, clearing: dict[str, Any] | None, pool: str
) -> charts.Chart | None:
    if book is None or not pool:
        return None
    names = reads.job_names([job["id"] for job in book["jobs"]])
    return charts.merit_order(book, clearing, pool, names)


def file_name(round: Round, what: str) -> str:
    """What a downloaded document is called, and what the verify line calls it."""
    return f"{round.venue.name}-{round.number}-{what}.json"


@operator_only
def document(request: HttpRequest, pk: UUID, what: str) -> HttpResponse:
    """The book or the clearing as a file, for anybody to verify."""
    round = get_object_or_404(Round.objects.select_related("venue", "snapshot"), pk=pk)
    found = book_of(round) if what == "book" else clearing_of(round)
    if found is None:
        raise Http404(f"Round {round.number} has no {what}.")
    name = file_name(round, what)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return JsonResponse(found, json_dumps_params={"ensure_ascii": False}, headers=headers)
