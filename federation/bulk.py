"""Many rows in few statements: what a round writes does not pass through the ORM row by row.

On PostgreSQL rows go in by COPY and are changed by one UPDATE from arrays; on SQLite each is one
prepared statement. The connection is the default one, transactions are the caller's, and neither
signals nor `save()` run.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import StringIO
from itertools import chain
from typing import Any, TypeVar

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


def rows_insert(model: type[Model], names: Sequence[str], rows: Iterable[Row]) -> None:
    """Insert rows of values for the fields `names`; every other field takes its default.

    A foreign key is named with `_id` and given as an id. A constraint that a row breaks raises
    IntegrityError, and no row is inserted.
    """
    meta, named = model._meta, _fields(model, names)
    rest = [f for f in meta.concrete_fields if f not in named and not isinstance(f, AutoField)]
    columns = ", ".join(_quoted(f.column) for f in (*named, *rest))
    whole = (chain(row, (f.get_default() for f in rest)) for row in rows)
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            text = "".join("\t".join(map(_copied, row)) + "\n" for row in whole)
            copy = f"COPY {_quoted(meta.db_table)} ({columns}) FROM STDIN"
            with connection.wrap_database_errors:  # psycopg2's own method: Django's errors
                cursor.copy_expert(copy, StringIO(text))
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


def _copied(value: object) -> str:
    """A value in the text format of COPY."""
    if value is None:
        return "\\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        value = json.dumps(value)
    return value.translate(_ESCAPES) if isinstance(value, str) else str(value)
