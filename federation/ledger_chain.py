"""The text that a link of the ledger's chain covers, and its digest. Standard library only.

A group's text is a row of netstrings (`LENGTH:TEXT`, the length in bytes of UTF-8), so no two
groups have the same text. On PostgreSQL `federation.ledger_guard` builds the same text in SQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class LinkedGroup(NamedTuple):
    """An entry group as its link covers it: every stored field, as text."""

    position: str
    id: str
    key: str
    kind: str
    currency: str
    created_us: str  #: microseconds since 1970 UTC
    memo: str
    contract: str  #: its id; empty = none
    round: str
    reverses: str
    facts: str  #: `facts_text`
    entries: str  #: `entries_text`


def netstring(text: str) -> str:
    return f"{len(text) if text.isascii() else len(text.encode())}:{text}"


def group_text(group: LinkedGroup) -> str:
    """What a digest covers besides the digest before it."""
    text = "".join([f"{len(field)}:{field}" for field in group])
    return text if text.isascii() else "".join(map(netstring, group))


def digest_of(previous: str, group: LinkedGroup) -> str:
    """The digest of a link: SHA-256 over the one before it and the group's text, in hexadecimal."""
    return sha256(f"{len(previous)}:{previous}{group_text(group)}".encode()).hexdigest()


def purse_text(account: str, kind: str, tenant: str, member: str, created_us: str) -> str:
    """What an entry says of its account, so that nobody's purse becomes another's. Ids as text."""
    return f"{account},{netstring(kind)},{tenant},{member},{created_us}"


def entries_text(entries: Iterable[tuple[str, int, int]]) -> str:
    """Entries as (`purse_text`, id, amount), put in the order of their accounts."""
    return ";".join([f"{number},{purse},{amount}" for purse, number, amount in sorted(entries)])


def microseconds(at: datetime) -> int:
    """Since 1970 UTC; databases keep no more."""
    return (at - EPOCH) // _MICROSECOND


def facts_text(facts: Any) -> str:
    """Facts as PostgreSQL spells `jsonb`: shorter keys first, then by their bytes."""
    return json.dumps(in_order(facts), ensure_ascii=False)


def in_order(value: Any) -> Any:
    """The same value with the keys of its objects in the order of `facts_text`."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: in_order(value[key]) for key in keys}
    return [in_order(item) for item in value] if isinstance(value, list) else value


def plain_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as a group keeps them: text, whole numbers, truth values, lists and objects of them.

    A float or a decimal becomes its shortest text, because databases spell numbers differently;
    so do ids and times. Raises TypeError for anything else.
    """
    plain: dict[str, Any] = in_order(_plain(dict(facts)))
    return plain


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    raise TypeError(f"a ledger keeps no {type(value).__name__} among its facts")
