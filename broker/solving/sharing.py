"""Who gets what, computed in the child: the values of coalitions are shared out to free workers.

A part is some of the coalitions of one game. What the game is made of is a file on the shelf, so
it reaches a worker once; what travels is the coalitions' numbers, and their values back.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from broker.solving.errand import Errand
from economics.book import document_sha256, read_book
from economics.rounds import WELFARE
from economics.sharing.epochs import epoch_shares
from economics.sharing.game import Game, batches, game_of, values_of
from economics.sharing.objections import LISTED
from economics.sharing.served import epoch_game
from economics.sharing.settled import Settled, Settlement
from economics.sharing.shares import shares

COALITIONS = "coalitions"  #: name of the part
MOST_PARTS = 32
FEW = 64  #: coalitions that are not worth handing out
#: `books` of a game's rounds; with `clearings`, what was `settled` of each, and `owners` beside
#: them when only what was served counts
Source = Mapping[str, Any]


def shared(errand: Errand) -> dict[str, Any]:
    """Who gets what of a round, or of all rounds of an epoch together."""
    alpha = float(errand.parameters["alpha"])
    if "epoch" not in errand.parameters:
        book = errand.document("book")
        game = spread_game({"books": [book]}, errand)
        return shares(read_book(book), alpha=alpha, game=game)
    return _epoch(errand, alpha)


def _epoch(errand: Errand, alpha: float) -> dict[str, Any]:
    """The dividend of an epoch. Rounds of another policy than surplus are left out and named."""
    frozen, (books, clearings) = errand.document("frozen"), documents(errand)
    policies = [read_book(book).rules.policy for book in books]
    kept = [at for at, policy in enumerate(policies) if policy == WELFARE]
    source = {
        "books": [books[at] for at in kept],
        "clearings": [clearings[at] for at in kept],
        "settled": [frozen["settled"][at] for at in kept],
        "owners": frozen["owners"],
    }
    numbers = frozen["numbers"]
    left_out = [
        {"round": numbers[at], "why": f"its policy was {policy}, not {WELFARE}"}
        for at, policy in enumerate(policies)
        if policy != WELFARE
    ]
    return {
        **epoch_shares(
            list(zip(map(read_book, source["books"]), source["clearings"], strict=True)),
            spread_game(source, errand),
            alpha=alpha,
            cap=float(errand.parameters["cap"]),
            settled=_settlements(source),
            owners=source["owners"],
        ),
        "numbers": [numbers[at] for at in kept],
        "settled_sha256": document_sha256({"settled": source["settled"]}),
        "left_out": sorted([*frozen["left_out"], *left_out], key=itemgetter("round")),
    }


def _settlements(source: Source) -> list[Settlement]:
    return [{job: Settled(*row) for job, row in rows.items()} for rows in source["settled"]]


def documents(errand: Errand) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Books and clearings of the rounds that are asked about, oldest first."""
    count = int(errand.parameters["books"])
    names = [*(f"-{at}" for at in range(count - 1)), ""]
    books = [errand.document(f"book{name}") for name in names]
    return books, [errand.document(f"clearing{name}") for name in names]


def spread_game(source: Source, errand: Errand) -> Game:
    """A game, the values of its coalitions computed by whoever is free.

    Beyond the number of sites whose coalitions are listed, values are found as they are needed.
    """
    game = _game(source)
    if game.players.bit_count() > LISTED:
        return game
    dealt = batches(game, MOST_PARTS)
    if sum(map(len, dealt)) < FEW:
        return game
    name = shelved("game", source, errand.shelf)
    bodies = [json.dumps({"game": name, "masks": masks}).encode() for masks in dealt]
    found = errand.spread(COALITIONS, bodies, [name] * len(bodies))
    for masks, values in zip(dealt, map(json.loads, found), strict=True):
        game.known.update(zip(masks, values, strict=True))
    return game


def coalitions(body: bytes, shelf: Path) -> bytes:
    """The values of some coalitions of a game."""
    asked: Mapping[str, Any] = json.loads(body)
    game = _shelved_game(shelf / Path(asked["game"]).name)
    return json.dumps(values_of(game, asked["masks"]).tolist()).encode()


def _game(source: Source) -> Game:
    books = [read_book(book) for book in source["books"]]
    if "clearings" in source:
        rounds = list(zip(books, source["clearings"], strict=True))
        return epoch_game(rounds, settled=_settlements(source), owners=source["owners"])
    return game_of(books[0])


@lru_cache(maxsize=1)  # a worker often has several parts of one game
def _shelved_game(path: Path) -> Game:
    return _game(json.loads(gzip.decompress(path.read_bytes())))


def shelved(kind: str, source: Mapping[str, Any], shelf: Path) -> str:
    """Put what parts are computed from on the shelf, named by its content."""
    body = gzip.compress(json.dumps(source).encode(), mtime=0)
    name = f"{kind}-{hashlib.sha256(body).hexdigest()}"
    path = shelf / name
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.write_bytes(body)
        draft.replace(path)
    return name
