"""What a solving process can be asked for. No work knows a database or a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from broker.solving.errand import Errand, PartWork, Work
from broker.solving.incentives import (
    ANSWERS,
    answers,
    joining,
    leaving,
    lies,
    market_power,
    response,
)
from broker.solving.regions import FRINGE, REGION, fringe, region
from broker.solving.sharing import COALITIONS, coalitions, shared
from economics import counterfactual
from federation.decision import decide


def round_decision(errand: Errand) -> dict[str, Any]:
    """Decide a round: its book in, a `Decision` out."""
    return decide(errand.document("book")).document()


def report(errand: Errand) -> dict[str, Any]:
    """Every tenant's standing, and the tenants large enough for a re-clear."""
    found = counterfactual.standings(errand.document("book"), errand.document("clearing"))
    names = counterfactual.large(found, errand.parameters["share"])
    return {"standings": [asdict(row) for row in found], "reclear": list(names)}


def contribution(errand: Errand) -> dict[str, Any]:
    """What the federation would lose without one tenant."""
    found = counterfactual.marginal_contribution(
        errand.document("book"), errand.document("clearing"), errand.parameters["tenant"]
    )
    return asdict(found)


def quote(errand: Errand) -> dict[str, Any]:
    """What the round would have said to one bid more."""
    book, bid = errand.document("book"), errand.parameters["bid"]
    stated = errand.parameters["speeds"]
    found = counterfactual.quote(book, errand.document("clearing"), bid, stated)
    hours = book["round_hours"]
    affinity = counterfactual.with_bid(book, bid, stated)["affinity"]
    placed = [
        {**asdict(row), "samples_per_s": _speed(affinity, bid["class"], row, hours)}
        for row in found.placed
    ]
    return {**asdict(found), "placed": placed, "round_hours": hours}


def _speed(
    affinity: Sequence[Mapping[str, Any]],
    job_class: str,
    placed: counterfactual.Placed,
    hours: float,
) -> float:
    """What the book believes of a class on the GPUs where it was placed, samples/s."""
    gpus = round(placed.gpu_hours / hours)
    rows = {
        row.get("gpus", 1): float(row["samples_per_s"])
        for row in affinity
        if (row["pool"], row["class"]) == (placed.pool, job_class)
    }
    return rows.get(gpus) or gpus * rows[1]


#: by the kind of a `Study`, and "round" for the round itself
WORKS: Mapping[str, Work] = {
    "round": round_decision,
    "report": report,
    "contribution": contribution,
    "quote": quote,
    "shares": shared,
    "joining": joining,
    "leaving": leaving,
    "response": response,
    "misreport": lies,
    "conduct": market_power,
}
#: what one part of an errand is computed by, wherever a worker is free
PARTS: Mapping[str, PartWork] = {
    REGION: region,
    FRINGE: fringe,
    COALITIONS: coalitions,
    ANSWERS: answers,
}
