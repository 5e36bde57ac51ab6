"""Many rows in few statements: what a round writes does not pass through the ORM row by row.

On PostgreSQL rows go in by COPY and are changed by one UPDATE from arrays; on SQLite each is one
prepared statement. The connection is the default one, transactions are the caller's, and neither
signals nor `save()` run.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from io import StringIO
from itertools import chain
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection, transaction
from django.db.models import AutoField, Func, Model, QuerySet, TextField

AT_ONCE = 5000  #: values in one list of a condition
Found = TypeVar("Found")
Row = Sequence[Any]
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class IdText(Func):
    """An id as text: no UUID object is made for each of many rows."""

    template = "(%(expressions)s)::text"
    output_field = TextField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
        cut = (f"substr(%(expressions)s, {start}, {size})" for start, size in parts)
        return self.as_sql(compiler, connection, template=" || '-' || ".join(cut), **extra)


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage while very many rows are made, of which none is garbage."""
    active = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if active:
            gc.enable()


def rows_among(rows: QuerySet[Any, Found], name: str, values: Sequence[object]) -> Iterator[Found]:
    """Those of `rows` whose field `name` has one of the values, some thousand values at a time.

    Databases limit the parameters of a statement; and a planner takes a list for what it is,
    where it may misjudge a join with rows that were written just now.
    """
    for start in range(0, len(values), AT_ONCE):
        yield from rows.filter(**{f"{name}__in": values[start : start + AT_ONCE]})


def pairs_stored(
    model: type[Model], names: tuple[str, str], pairs: Collection[tuple[Any, Any]]
) -> set[tuple[Any, Any]]:
    """Those of `pairs` that rows have in the two fields `names`, which a unique index covers.

    Each pair is looked up by itself: the cost grows with the pairs, not with the rows.
    """
    table = _quoted(model._meta.db_table)
    fields = _fields(model, names)
    one, other = (f"{table}.{_quoted(field.column)}" for field in fields)
    asked, found = list(pairs), set()
    for start in range(0, len(asked), AT_ONCE):
        part = asked[start : start + AT_ONCE]
        firsts = {first: at for at, first in enumerate(dict.fromkeys(p[0] for p in part), 1)}
        if connection.vendor == "postgresql":
            # each first value is sent once; OFFSET 0: no planner may read the whole table for it
            query = (
                f"SELECT line FROM unnest(%s::int[], %s::{_type(fields[1])}[])"  # noqa: S608 - names are quoted
                f" WITH ORDINALITY AS asked(at, number, line) WHERE EXISTS (SELECT 1 FROM {table}"
                f" WHERE {one} = (%s::{_type(fields[0])}[])[at] AND {other} = number OFFSET 0)"
            )
            values: list[Any] = [[firsts[p[0]] for p in part], [p[1] for p in part], list(firsts)]
        else:
            marks = ", ".join(["(%s, %s, %s)"] * len(part))
            query = (
                f"WITH asked(line, first, number) AS (VALUES {marks}) SELECT line FROM asked"  # noqa: S608 - as above
                f" WHERE EXISTS (SELECT 1 FROM {table} WHERE {one} = first AND {other} = number)"
            )
            rows = ((line, *_bound(fields, pair)) for line, pair in enumerate(part, 1))
            values = list(chain.from_iterable(rows))
        with connection.cursor() as cursor:
            cursor.execute(query, values)
            found |= {part[line - 1] for (line,) in cursor.fetchall()}
    return found


def rows_insert(model: type[Model], names: Sequence[str], rows: Iterable[Row]) -> None:
    """Insert rows of values for the fields `names`; every other field takes its default.

    A foreign key is named with `_id` and given as an id. A constraint that a row breaks raises
    IntegrityError, and no row is inserted.
    """
    meta, named = model._meta, _fields(model, names)
    rest = [f for f in meta.concrete_fields if f not in named and not isinstance(f, AutoField)]
    columns = ", ".join(_quoted(f.column) for f in (*named, *rest))
    whole = (chain(row, (f.get_default() for f in rest)) for row in rows) if rest else rows
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            lines = ["\t".join([_WRITERS[type(value)](value) for value in row]) for row in whole]
            copy = f"COPY {_quoted(meta.db_table)} ({columns}) FROM STDIN"
            with connection.wrap_database_errors:  # psycopg2's own method: Django's errors
                cursor.copy_expert(copy, StringIO("\n".join([*lines, ""])))
            return
        fields = [*named, *rest]
        marks = ", ".join(["%s"] * len(fields))
        insert = f"INSERT INTO {_quoted(meta.db_table)} ({columns}) VALUES ({marks})"  # noqa: S608
        cursor.executemany(insert, [_bound(fields, row) for row in whole])


def rows_update(
    model: type[Model], names: Sequence[str], rows: Sequence[Row], *, only: str = ""
) -> int:
    """Set the fields `names` of rows, each given as (id, values); how many were changed.

    `only` is a condition in SQL on the row as it is, with `{name}` for a row's new value. Rows
    are changed in the order in which the database finds them: lock them first where that matters.
    """
    if not rows:
        return 0
    fields = _fields(model, ["pk", *names])
    arrays = connection.vendor == "postgresql"
    news = [f"new.c{at}" if arrays else f"?{at + 1}" for at in range(len(fields))]
    sets = ", ".join(
        f"{_quoted(f.column)} = {new}" for f, new in zip(fields[1:], news[1:], strict=True)
    )
    table = _quoted(model._meta.db_table)
    where = f"{table}.{_quoted(fields[0].column)} = {news[0]}"
    if only:
        where += f" AND ({only.format(**dict(zip(names, news[1:], strict=True)))})"
    with transaction.atomic(), connection.cursor() as cursor:
        if arrays:
            given = ", ".join(f"%s::{_type(f)}[]" for f in fields)
            named = ", ".join(f"c{at}" for at in range(len(fields)))
            source = f"FROM unnest({given}) AS new({named})"
            cursor.execute(
                f"UPDATE {table} SET {sets} {source} WHERE {where}",  # noqa: S608
                [list(column) for column in zip(*rows, strict=True)],
            )
        else:
            cursor.executemany(
                f"UPDATE {table} SET {sets} WHERE {where}",  # noqa: S608
                [_bound(fields, row) for row in rows],
            )
        changed: int = cursor.rowcount
    return changed


def _fields(model: type[Model], names: Iterable[str]) -> list[Any]:
    meta = model._meta
    return [meta.pk if name == "pk" else meta.get_field(name) for name in names]


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)


def _type(field: Any) -> str:
    """The database's name of a field's type, without a length: a cast must not cut text."""
    name: str = field.rel_db_type(connection) if field.primary_key else field.db_type(connection)
    return name.partition("(")[0]


def _bound(fields: Sequence[Any], row: Iterable[Any]) -> list[Any]:
    pairs = zip(fields, row, strict=True)
    return [field.get_db_prep_save(value, connection) for field, value in pairs]


def _escaped(value: str) -> str:
    return value.translate(_ESCAPES)


def _document(value: object) -> str:
    return _JSON(value).translate(_ESCAPES)


class _Writers(dict[type, Callable[[Any], str]]):
    """How values of each type are written in the text format of COPY."""

    def __missing__(self, kind: type) -> Callable[[Any], str]:
        # texts of a kind of their own, such as states, and numbers of libraries
        return _escaped if issubclass(kind, str) else str


_JSON = json.JSONEncoder().encode
_WRITERS = _Writers(
    {
        type(None): lambda _: "\\N",
        bool: lambda value: "t" if value else "f",
        int: int.__repr__,
        float: float.__repr__,
        str: _escaped,
        UUID: lru_cache(maxsize=4096)(str),
        datetime: lru_cache(maxsize=64)(datetime.isoformat),
        dict: _document,
        list: _document,
        tuple: _document,
    }
)
