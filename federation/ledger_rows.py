"""Entry groups as the database stores them, read without the ORM: field by field, as text.

What is stored is compared with what its link covers, so nothing is mended on the way: on SQLite
a text that is not spelt as Django spells it stays as it is, and then breaks its link.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from federation.ledger_chain import (
    LinkedGroup,
    digest_of,
    entries_text,
    facts_text,
    microseconds,
    purse_text,
)

AT_ONCE = 500  #: ids in one list of a condition
NEVER_NEGATIVE = ("tenant_cash", "tenant_escrow", "member_bond")  #: kinds of purses


class Purse(NamedTuple):
    """An account as stored."""

    words: str  #: `ledger_chain.purse_text`
    kind: str
    currency: str
    balance_micro: int


class StoredGroup(NamedTuple):
    """A group and its entries, each as (id of the account as stored, id, amount)."""

    chain: str  #: currency of its link; empty = it has none
    position: int
    digest: str
    fields: tuple[str, ...]  #: of `LinkedGroup`, from `id` to `facts`
    entries: tuple[tuple[str, int, int], ...]

    @property
    def currency(self) -> str:
        return self.fields[3]

    def linked(self, position: int, purses: dict[str, Purse]) -> LinkedGroup:
        """The group as a link at `position` covers it."""
        words = entries_text([(purses[a].words, n, amount) for a, n, amount in self.entries])
        return LinkedGroup._make((str(position), *self.fields, words))


_FIELDS = {
    "postgresql": """g.id::text, g.key, g.kind, g.currency,
  ((extract(epoch FROM g.created_at) * 1000000)::bigint)::text, g.memo,
  coalesce(g.contract_id::text, ''), coalesce(g.round_id::text, ''),
  coalesce(g.reverses_id::text, ''), g.facts::text,
  (SELECT string_agg(concat_ws(',', account_id, id, amount_micro), ';')
   FROM federation_entry WHERE group_id = g.id)""",
    # cast: what is in the file, not what Django makes of it
    "sqlite": """g.id, g.key, g.kind, g.currency, CAST(g.created_at AS text), g.memo,
  coalesce(g.contract_id, ''), coalesce(g.round_id, ''), coalesce(g.reverses_id, ''), g.facts,
  (SELECT group_concat(account_id || ',' || id || ',' || amount_micro, ';')
   FROM federation_entry WHERE group_id = g.id)""",
}
_LINKED = """SELECT l.currency, l.position, l.digest, {fields}
FROM federation_link l JOIN federation_entrygroup g ON g.id = l.group_id
ORDER BY l.currency, l.position"""
_LOOSE = """SELECT '', 0, '', {fields} FROM federation_entrygroup g
WHERE NOT EXISTS (SELECT 1 FROM federation_link l WHERE l.group_id = g.id) {narrow}"""
_PURSES = "SELECT id, kind, currency, tenant_id, member_id, {created}, balance_micro"
_MICROSECONDS = "((extract(epoch FROM created_at) * 1000000)::bigint)::text"


def groups_read(connection: Any) -> Iterator[StoredGroup]:
    """All linked groups along their chains, currency by currency."""
    return _read(connection, _LINKED.format(fields=_FIELDS[connection.vendor]), ())


def loose_read(connection: Any, *, ids: Sequence[str] = ()) -> Iterator[StoredGroup]:
    """Groups without a link: all, or those of `ids` (as stored: on SQLite without dashes)."""
    narrow = f"AND g.id IN ({_marks(ids)})" if ids else ""
    sql = _LOOSE.format(fields=_FIELDS[connection.vendor], narrow=narrow)
    return _read(connection, sql, ids)


def _read(connection: Any, sql: str, parameters: Sequence[str]) -> Iterator[StoredGroup]:
    plain = _plain_sqlite if connection.vendor == "sqlite" else tuple
    with connection.chunked_cursor() as cursor:
        cursor.itersize = 10_000
        cursor.execute(sql, parameters)
        for chain, position, digest, *fields, entries in cursor:
            yield StoredGroup(chain, position, digest, plain(fields), _entries(entries))


def _marks(values: Sequence[str]) -> str:
    return ", ".join(["%s"] * len(values))


def _entries(text: str | None) -> tuple[tuple[str, int, int], ...]:
    parts = text.replace(";", ",").split(",") if text else []
    return tuple(zip(parts[::3], map(int, parts[1::3]), map(int, parts[2::3]), strict=True))


def purses_read(connection: Any, *, ids: Sequence[str] = ()) -> dict[str, Purse]:
    """All accounts, or the accounts `ids`, by id as stored."""
    postgres = connection.vendor == "postgresql"
    created = _MICROSECONDS if postgres else "CAST(created_at AS text)"
    narrow = f"WHERE id IN ({_marks(ids)})" if ids else ""
    sql = f"{_PURSES.format(created=created)} FROM federation_account {narrow}"
    with connection.cursor() as cursor:
        cursor.execute(sql, ids)
        rows = cursor.fetchall()
    return {str(row[0]): _purse(row, postgres) for row in rows}


def _purse(row: tuple[Any, ...], postgres: bool) -> Purse:
    account, kind, currency, tenant, member, created, balance = row
    owners = [str(owner) if postgres else _uuid(owner or "") for owner in (tenant, member)]
    words = purse_text(
        str(account) if postgres else _uuid(account),
        kind,
        owners[0] if tenant else "",
        owners[1] if member else "",
        created if postgres else _time(created),
    )
    return Purse(words, kind, currency, balance)


def heads_read(connection: Any) -> dict[str, tuple[int, str]]:
    """The end of each currency's chain as stored: position and digest."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT currency, position, digest FROM federation_chainhead")
        return {currency: (position, digest) for currency, position, digest in cursor.fetchall()}


def link(connection: Any, ids: Sequence[str]) -> None:
    """Link groups, in this order, at the ends of their chains. For SQLite, which cannot itself."""
    heads = heads_read(connection)
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        found = {group.fields[0]: group for group in loose_read(connection, ids=some)}
        groups = [found[_uuid(one)] for one in some]
        named = sorted({account for group in groups for account, _, _ in group.entries})
        purses: dict[str, Purse] = {}
        for at in range(0, len(named), AT_ONCE):
            purses |= purses_read(connection, ids=named[at : at + AT_ONCE])
        links = []
        for one, group in zip(some, groups, strict=True):
            position, last = heads.get(group.currency, (0, ""))
            digest = digest_of(last, group.linked(position + 1, purses))
            heads[group.currency] = (position + 1, digest)
            links.append((one, group.currency, position + 1, digest))
        _write(connection, links, heads)


def _write(connection: Any, links: list[Any], heads: dict[str, tuple[int, str]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO federation_link (group_id, currency, position, digest) "
            "VALUES (%s, %s, %s, %s)",
            links,
        )
        for currency in {row[1] for row in links}:
            cursor.execute(
                "INSERT INTO federation_chainhead (currency, position, digest) "
                "VALUES (%s, %s, %s) ON CONFLICT (currency) DO UPDATE "
                "SET position = excluded.position, digest = excluded.digest",
                [currency, *heads[currency]],
            )


def _plain_sqlite(fields: Sequence[Any]) -> tuple[str, ...]:
    """SQLite's columns as the chain spells them; what is spelt otherwise is left as it is."""
    pk, key, kind, currency, created, memo, contract, round, reverses, facts = fields
    return (
        *(_uuid(pk), key, kind, currency, _time(created), memo),
        *(_uuid(contract), _uuid(round), _uuid(reverses), _facts(facts)),
    )


def _uuid(text: str) -> str:
    if len(text) != 32:
        return text
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _time(stored: Any) -> str:
    try:
        at = datetime.fromisoformat(stored)
    except (TypeError, ValueError):
        return str(stored)
    return str(microseconds(at.replace(tzinfo=UTC))) if str(at) == stored else str(stored)


def _facts(stored: str) -> str:
    if stored == "{}":
        return stored
    try:
        facts = json.loads(stored)
    except ValueError:
        return stored
    return facts_text(facts) if json.dumps(facts) == stored else stored
