"""The ledger and all that it refers to, line by line, for a file that can be restored.

`hanse.ledger/1`: JSON lines. The first names the heads of the chains and counts; then the rows
that the ledger refers to, its accounts, and its groups along the chains; the last holds the
SHA-256 of all lines before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.core import serializers
from django.db import connection
from django.db.models import ForeignKey, Model

from federation import models
from federation.bulk import rows_among
from federation.ledger_rows import Purse, StoredGroup, groups_read, heads_read, purses_read
from federation.selectors.ledger import one_moment

FORMAT = "hanse.ledger/1"
LEDGER = {models.Account, models.EntryGroup, models.Entry, models.Link, models.ChainHead}
#: rows that go along with what they belong to: (model, its field)
ALONG: tuple[tuple[type[Model], str], ...] = (
    (models.Snapshot, "round"),
    (models.Assignment, "round"),
    (models.RoundOffer, "round"),
    (models.Report, "lease"),
    (models.Count, "contract"),
    (models.Dispute, "contract"),
    (models.Evidence, "dispute"),
    (models.Consent, "rules"),
)


def archive_lines(*, now: datetime) -> Iterator[str]:
    """The lines of an archive, from one state of the database."""
    digest = hashlib.sha256()
    for line in _lines(now):
        digest.update(line.encode())
        yield line
    yield json.dumps({"sha256": digest.hexdigest()}) + "\n"


def _lines(now: datetime) -> Iterator[str]:
    with one_moment():
        heads = heads_read(connection)
        yield _text(
            {
                "format": FORMAT,
                "made_at": now.isoformat(),
                "heads": {c: list(end) for c, end in sorted(heads.items())},
                "groups": models.Link.objects.count(),
                "entries": models.Entry.objects.count(),
            }
        )
        for model, pks in _closure().items():
            for row in rows_among(model._default_manager.order_by("pk"), "pk", sorted(pks)):
                [plain] = serializers.serialize("python", [row])
                yield _text({"row": plain})
        for row in models.Account.objects.order_by("pk"):
            [plain] = serializers.serialize("python", [row])
            yield _text({"account": plain})
        purses = purses_read(connection)
        for group in groups_read(connection):
            yield _text(group_document(group, purses))


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, default=_plain, ensure_ascii=False) + "\n"


def _plain(value: Any) -> str:
    """Ids, and times to the microsecond: links cover them."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def group_document(group: StoredGroup, purses: dict[str, Purse]) -> dict[str, Any]:
    """A linked group as a line: the fields that its link covers, ids with dashes."""
    return {
        "group": [*group.fields[:-1], json.loads(group.fields[-1])],
        "entries": sorted([n, purses[a].words[:36], amount] for a, n, amount in group.entries),
        "link": [group.position, group.digest],
    }


def _closure() -> dict[type[Model], set[Any]]:
    """Model -> ids of all rows outside the ledger that it refers to, at any distance."""
    found: dict[type[Model], set[Any]] = {}
    fresh = _referred([models.Account.objects.all(), models.EntryGroup.objects.all()])
    epochs = set(models.Epoch.objects.values_list("pk", flat=True))
    fresh.setdefault(models.Epoch, set()).update(epochs)
    while fresh:
        for model, pks in fresh.items():
            found.setdefault(model, set()).update(pks)
        nearby = _referred(_Some(model, list(pks)) for model, pks in fresh.items())
        for model, name in ALONG:
            owner = model._meta.get_field(name).related_model
            if owner in fresh:
                own = model._default_manager.order_by().values_list("pk", flat=True)
                nearby.setdefault(model, set()).update(rows_among(own, name, list(fresh[owner])))
        fresh = {m: pks - found.get(m, set()) for m, pks in nearby.items()}
        fresh = {m: pks for m, pks in fresh.items() if pks}
    return found


class _Some:
    """Some rows of a model, by id."""

    def __init__(self, model: type[Model], pks: list[Any]) -> None:
        self.model = model
        self._pks = pks

    def values_list(self, *names: str) -> Iterator[tuple[Any, ...]]:
        rows = self.model._default_manager.order_by().values_list(*names)
        return rows_among(rows, "pk", self._pks)


def _referred(sources: Iterable[Any]) -> dict[type[Model], set[Any]]:
    """Model -> ids that the foreign keys of some rows name, the ledger's own left out."""
    found: dict[type[Model], set[Any]] = {}
    for rows in sources:
        keys = [
            field
            for field in rows.model._meta.concrete_fields
            if isinstance(field, ForeignKey) and field.related_model not in LEDGER
        ]
        for values in rows.values_list(*(key.attname for key in keys)) if keys else ():
            for key, value in zip(keys, values, strict=True):
                if value is not None:
                    found.setdefault(key.related_model, set()).add(value)
    return found
