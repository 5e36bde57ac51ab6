"""A ledger written to a file and restored from it, with the same heads of its chains."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby, islice
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core import serializers
from django.core.management.color import no_style
from django.core.serializers.base import DeserializationError
from django.db import DatabaseError, connection, transaction
from django.db.models import AutoField, Model

from federation import ledger_guard
from federation.bulk import rows_insert
from federation.errors import Refused
from federation.ledger_chain import EPOCH
from federation.ledger_rows import heads_read, link
from federation.models import Account, ChainHead, Entry, EntryGroup, Link
from federation.selectors.archive import FORMAT, archive_lines
from federation.selectors.ledger import verify

AT_ONCE = 2000  #: lines that are stored together
_GROUP = (
    *("id", "key", "kind", "currency", "created_at", "memo"),
    *("contract_id", "round_id", "reverses_id", "facts"),
)


@dataclass(slots=True)
class Archived:
    """What an archive holds."""

    heads: dict[str, list[Any]]  #: currency -> position, digest
    groups: int
    entries: int
    rows: dict[str, int] = field(default_factory=dict)  #: model -> rows besides the ledger


def archive_write(target: Path, *, now: datetime) -> Archived:
    """Write the ledger, and what it refers to, to a gzip file; it appears when it is whole.

    Raises Refused("does_not_hold") for a ledger that does not verify: it would restore nothing.
    """
    found = verify()
    if not found.holds:
        raise Refused(f"The ledger does not hold: {found.findings[0]}.", code="does_not_hold")
    partial = target.with_name(f"{target.name}.part")
    with gzip.GzipFile(partial, "wb", compresslevel=6, mtime=0) as file:
        for line in archive_lines(now=now):
            file.write(line.encode())
    partial.replace(target)
    return archive_check(target)


def archive_check(source: Path) -> Archived:
    """Read an archive to its end. Raises Refused("bad_archive") when it is not what was written."""
    lines = _read(source)
    archived = _manifest(next(lines, {}))
    for line in lines:
        if "row" in line:
            model = str(line["row"]["model"])
            archived.rows[model] = archived.rows.get(model, 0) + 1
    return archived


def archive_restore(source: Path) -> Archived:
    """Restore a ledger into a database that has none, all or nothing.

    Rows that the ledger refers to and that are there already stay as they are. Every group is
    linked anew, and each link must be the archived one. Raises Refused("not_empty"),
    ("bad_archive") or ("does_not_hold").
    """
    if any(model._default_manager.exists() for model in (Account, EntryGroup, Entry, Link)):
        raise Refused("This database has a ledger already.", code="not_empty")
    if ChainHead.objects.exists():
        raise Refused("This database has a ledger already.", code="not_empty")
    try:
        with transaction.atomic():
            archived = _restore(_read(source))
            connection.check_constraints()
    except (DatabaseError, DeserializationError, KeyError, TypeError, ValueError) as error:
        raise Refused(
            f"The archive does not fit this database: {error}", code="bad_archive"
        ) from error
    return archived


def _restore(lines: Iterator[dict[str, Any]]) -> Archived:
    archived = _manifest(next(lines, {}))
    touched: set[type[Model]] = {Entry}
    while some := list(islice(lines, AT_ONCE)):
        rows = [line["row"] for line in some if "row" in line]
        for row in rows:
            archived.rows[row["model"]] = archived.rows.get(row["model"], 0) + 1
        touched |= _insert(rows)
        _insert([line["account"] for line in some if "account" in line])
        groups = [line for line in some if "group" in line]
        for _, chain in groupby(groups, key=lambda line: line["group"][3]):
            _groups(list(chain))
    _sequences(touched)
    heads = {currency: list(end) for currency, end in heads_read(connection).items()}
    if heads != archived.heads:
        raise Refused("The restored chains end elsewhere.", code="bad_archive")
    found = verify()
    if not found.holds:
        raise Refused(f"What was restored: {found.findings[0]}.", code="does_not_hold")
    return archived


def _manifest(first: dict[str, Any]) -> Archived:
    if first.get("format") != FORMAT:
        raise Refused(f"This is no {FORMAT} archive.", code="bad_archive")
    return Archived(first["heads"], first["groups"], first["entries"])


def _read(source: Path) -> Iterator[dict[str, Any]]:
    """The lines of an archive; the last one must be the digest of the others."""
    digest, before = hashlib.sha256(), b""
    try:
        with gzip.open(source, "rb") as file:
            for line in file:
                if before:
                    digest.update(before)
                    yield json.loads(before)
                before = line
        last = json.loads(before or b"{}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise Refused(f"The archive cannot be read: {error}", code="bad_archive") from error
    if last != {"sha256": digest.hexdigest()}:
        raise Refused("The archive is not what was written.", code="bad_archive")


def _insert(rows: Iterable[dict[str, Any]]) -> set[type[Model]]:
    """Store rows that are not there yet; which models they are of."""
    by_model: dict[type[Model], list[Model]] = {}
    for read in serializers.deserialize("python", rows):
        by_model.setdefault(type(read.object), []).append(read.object)
    for model, objects in by_model.items():
        manager = model._default_manager
        known = set(manager.filter(pk__in=[o.pk for o in objects]).values_list("pk", flat=True))
        manager.bulk_create([o for o in objects if o.pk not in known])
    return set(by_model)


def _groups(lines: list[dict[str, Any]]) -> None:
    """Store groups with their entries, link them, and compare each link."""
    rows_insert(EntryGroup, _GROUP, [_group(line["group"]) for line in lines])
    rows_insert(
        Entry,
        ("id", "group_id", "account_id", "amount_micro"),
        [
            (number, UUID(line["group"][0]), UUID(purse), amount)
            for line in lines
            for number, purse, amount in line["entries"]
        ],
    )
    ids = [UUID(line["group"][0]) for line in lines]
    if connection.vendor == "sqlite":
        link(connection, [pk.hex for pk in ids])
    ledger_guard.link_now(connection)
    linked = Link.objects.filter(group__in=ids).values_list("group_id", "position", "digest")
    places = {pk: [position, digest] for pk, position, digest in linked}
    for pk, line in zip(ids, lines, strict=True):
        if places[pk] != line["link"]:
            raise Refused(f"Group {line['group'][1]} is not what was linked.", code="bad_archive")


def _group(fields: list[Any]) -> tuple[Any, ...]:
    pk, key, kind, currency, created, memo, contract, round, reverses, facts = fields
    created_at = EPOCH + timedelta(microseconds=int(created))
    refers = (UUID(text) if text else None for text in (contract, round, reverses))
    return (UUID(pk), key, kind, currency, created_at, memo, *refers, facts)


def _sequences(touched: Iterable[type[Model]]) -> None:
    """Numbers given by the database go on after those restored."""
    counted = [model for model in touched if isinstance(model._meta.pk, AutoField)]
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), counted):
            cursor.execute(statement)
