"""The whole ledger as a file, group by group: it is never in memory at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db import connection

from federation.ledger_chain import EPOCH
from federation.ledger_rows import Purse, StoredGroup, groups_read, heads_read, purses_read
from federation.models import Account
from federation.money import as_text
from federation.selectors.ledger import one_moment
from federation.selectors.statements import row_text, unlike_a_formula

COLUMNS = (
    *("currency", "position", "digest", "at", "key", "kind", "memo", "contract", "round"),
    *("reverses", "facts", "purse", "owner", "amount"),
)


def ledger_csv() -> Iterator[str]:
    """The ledger as a table, one line for each entry, in the order of the chains."""
    yield row_text(COLUMNS)
    for document in _documents():
        start = tuple(document[name] for name in COLUMNS[:5])
        rest = (document["kind"], unlike_a_formula(document["memo"]))
        refers = tuple(document[name] or "" for name in ("contract", "round", "reverses"))
        facts = json.dumps(document["facts"], ensure_ascii=False)
        for entry in document["entries"]:
            moved = (entry["purse"], entry["owner"], as_text(entry["amount_micro"]))
            yield row_text((*start, *rest, *refers, facts, *moved))


def ledger_json() -> Iterator[str]:
    """The ledger as one JSON document, in pieces: the heads of its chains, then every group."""
    with one_moment():
        heads = {
            currency: {"position": position, "digest": digest}
            for currency, (position, digest) in sorted(heads_read(connection).items())
        }
        yield f'{{"format": "hanse.ledger-export/1", "heads": {json.dumps(heads)}, "groups": ['
        for at, document in enumerate(_documents()):
            yield ("," if at else "") + "\n" + json.dumps(document, ensure_ascii=False)
        yield "\n]}\n"


def _documents() -> Iterator[dict[str, Any]]:
    with one_moment():
        purses = purses_read(connection)
        owners = _owners()
        for group in groups_read(connection):
            yield _document(group, purses, owners)


def _owners() -> dict[str, str]:
    """Account, as `purses_read` names it -> name of its owner."""
    plain = (lambda pk: pk.hex) if connection.vendor == "sqlite" else str
    rows = Account.objects.select_related("tenant", "member")
    return {
        plain(row.pk): row.tenant.name if row.tenant else row.member.name if row.member else ""
        for row in rows
    }


def _document(
    group: StoredGroup, purses: dict[str, Purse], owners: dict[str, str]
) -> dict[str, Any]:
    pk, key, kind, currency, created, memo, contract, round, reverses, facts = group.fields
    return {
        "currency": currency,
        "position": group.position,
        "digest": group.digest,
        "id": pk,
        "at": (EPOCH + timedelta(microseconds=int(created))).isoformat(),
        "key": key,
        "kind": kind,
        "memo": memo,
        "contract": contract or None,
        "round": round or None,
        "reverses": reverses or None,
        "facts": json.loads(facts),
        "entries": [
            {"purse": purses[a].kind, "owner": owners[a], "amount_micro": amount}
            for a, _, amount in sorted(group.entries, key=lambda entry: entry[1])
        ],
    }
