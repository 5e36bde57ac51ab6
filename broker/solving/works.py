"""What a solving process can be asked for. No work knows a database or a queue."""

from __future__ import annotations

from collections.abc import Mapping
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
    book = errand.document("book")
    found = counterfactual.quote(
        book, errand.document("clearing"), errand.parameters["bid"], errand.parameters["speeds"]
    )
    return {**asdict(found), "round_hours": book["round_hours"]}


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
