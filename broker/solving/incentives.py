"""What taking part is worth, computed in the child: each round or draw is a part of its own."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from broker.solving.errand import Errand
from broker.solving.sharing import documents, shelved
from economics.incentives import conduct
from economics.incentives.best_response import best_response
from economics.incentives.documents import document
from economics.incentives.join import questions, report
from economics.incentives.leave import leave
from economics.incentives.misreport import misreport
from economics.incentives.sampling import Plan
from economics.incentives.study import Outcome, studied

ANSWERS = "answers"  #: name of the part
MOST_PARTS = 32
LIE_DRAWS = 20  #: each is decided once for the truth and once for every lie


def joining(errand: Errand) -> dict[str, Any]:
    """What a member gains by taking part; the rounds or draws are shared out."""
    books, _ = documents(errand)
    asked = errand.parameters
    made = {
        "books": books,
        "seed": asked["seed"],
        "draws": asked["draws"],
        "site": asked["site"],
    }
    plan = _plan(made)
    name = shelved("plan", made, errand.shelf)
    count = len(questions(plan, asked["site"]))
    dealt = [list(range(count))[at::MOST_PARTS] for at in range(min(count, MOST_PARTS))]
    bodies = [json.dumps({"plan": name, "questions": numbers}).encode() for numbers in dealt]
    found = errand.spread(ANSWERS, bodies, [name] * len(bodies))
    outcomes: dict[int, Outcome] = {}
    for numbers, rows in zip(dealt, map(json.loads, found), strict=True):
        outcomes.update(zip(numbers, map(Outcome.of_row, rows), strict=True))
    ordered = [outcomes[number] for number in range(count)]
    cost = asked["joining_cost"]
    return document(report(plan, asked["site"], ordered, alpha=asked["alpha"], joining_cost=cost))


def answers(body: bytes, shelf: Path) -> bytes:
    """The outcomes of some questions of a plan."""
    asked = json.loads(body)
    made = json.loads(gzip.decompress((shelf / Path(asked["plan"]).name).read_bytes()))
    known = questions(_plan(made), made["site"])
    return json.dumps([known[number].answer().row() for number in asked["questions"]]).encode()


def leaving(errand: Errand) -> dict[str, Any]:
    """What changes when a member leaves, for each of them."""
    books, _ = documents(errand)
    asked = errand.parameters
    return document(leave(books, seed=asked["seed"], draws=asked["draws"]))


def response(errand: Errand) -> dict[str, Any]:
    """Where it leads when members choose in turn what they offer."""
    book = studied(errand.document("book"))
    return document(best_response(book, sweeps=errand.parameters["sweeps"]))


def lies(errand: Errand) -> dict[str, Any]:
    """What a member could gain by each lie while the others are truthful."""
    asked = errand.parameters
    found = misreport(errand.document("book"), asked["site"], seed=asked["seed"], draws=LIE_DRAWS)
    return document(found)


def market_power(errand: Errand) -> dict[str, Any]:
    """Who is pivotal, how concentrated the offers are, and what price caps cost in the round."""
    book, clearing = errand.document("book"), errand.document("clearing")
    owners = errand.parameters.get("owners")
    return {
        "pivotal": [asdict(row) for row in conduct.pivotal(book, owners=owners)],
        "residual_supply": [
            asdict(row) for row in conduct.residual_supply(book, clearing, owners=owners)
        ],
        "concentration": [asdict(row) for row in conduct.concentration(book, owners=owners)],
        "price_caps": asdict(conduct.cap_regret(book)),
    }


def _plan(made: dict[str, Any]) -> Plan:
    books = made["books"] if len(made["books"]) > 1 else made["books"][0]
    return Plan.of(books, seed=made["seed"], draws=made["draws"])
