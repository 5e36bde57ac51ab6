"""Narrow reads of very many rows as arrays: no Python object is made for a row.

PostgreSQL sends fixed-width values by COPY in its binary format, which is read as it stands; of
SQLite the rows are fetched as they are stored. No value may be NULL.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC
from io import BytesIO
from typing import Any

import numpy as np
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet
from numpy.typing import NDArray

Wide = NDArray[np.uint64]
#: bytes on the wire and how they are read; an id is two halves, a time microseconds since 2000
_WIRE = {
    "id": (16, ">u8"),
    "int": (4, ">i4"),
    "long": (8, ">i8"),
    "float": (8, ">f8"),
    "bool": (1, "?"),
    "time": (8, ">i8"),
}
_KEPT = {"int": np.int32, "long": np.int64, "float": np.float64, "bool": np.bool_}
_YEAR_2000 = 946_684_800  #: seconds since 1970
_HEAD = 19  #: bytes of signature, flags and length of an empty extension
_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"


def columns_read(rows: QuerySet[Any, Any], kinds: Sequence[str]) -> list[NDArray[Any]]:
    """The columns of a query of values, each (n,): `id` (n, 2), or a kind of `_WIRE`.

    Times are seconds since 1970.
    """
    try:
        sql, parameters = rows.query.sql_with_params()
    except EmptyResultSet:  # a condition that no row can meet
        return _gathered([], kinds)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            asked = cursor.mogrify(sql, parameters).decode()
            sent = BytesIO()
            with connection.wrap_database_errors:
                # the driver's own cursor: Django logs a copy in one of its two logs and not in both
                cursor.cursor.copy_expert(f"COPY ({asked}) TO STDOUT (FORMAT binary)", sent)
            return _unpacked(sent.getvalue(), kinds)
        cursor.execute(sql, parameters)
        return _gathered(cursor.fetchall(), kinds)


def _unpacked(sent: bytes, kinds: Sequence[str]) -> list[NDArray[Any]]:
    """Rows of the binary format: two bytes of fields, then each with its length before it."""
    if not sent.startswith(_SIGNATURE) or struct.unpack(">I", sent[15:19])[0]:
        raise ValueError("this is not PostgreSQL's binary format")
    names: list[Any] = [("fields", ">i2")]
    for place, kind in enumerate(kinds):
        _, read = _WIRE[kind]
        names += [(f"length{place}", ">i4"), (f"value{place}", read, (2,) if kind == "id" else ())]
    layout = np.dtype(names)
    many, rest = divmod(len(sent) - _HEAD - 2, layout.itemsize)
    rows = np.frombuffer(sent, layout, count=many, offset=_HEAD)
    if rest or any((rows[f"length{at}"] != _WIRE[kind][0]).any() for at, kind in enumerate(kinds)):
        raise ValueError("a value is NULL or of another type")
    return [_native(rows[f"value{place}"], kind) for place, kind in enumerate(kinds)]


def _native(values: NDArray[Any], kind: str) -> NDArray[Any]:
    plain = values.astype(values.dtype.newbyteorder("="))
    return plain / 1e6 + _YEAR_2000 if kind == "time" else plain


def _gathered(rows: list[tuple[Any, ...]], kinds: Sequence[str]) -> list[NDArray[Any]]:
    found: list[NDArray[Any]] = []
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    for kind, values in zip(kinds, columns, strict=True):
        if kind == "id":
            halves = [(int(text[:16], 16), int(text[16:], 16)) for text in values]
            found.append(np.array(halves, dtype=np.uint64).reshape(len(values), 2))
        elif kind == "time":
            times = [moment.replace(tzinfo=UTC).timestamp() for moment in values]  # as of UTC
            found.append(np.array(times, dtype=np.float64))
        else:
            found.append(np.array(values, dtype=_KEPT[kind]))
    return found
