"""The ledger's guards on the way back to an older version, in a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.migrations.executor import MigrationExecutor

from federation import ledger_guard
from tests.support.world import NOW

BEFORE = [("federation", "0004_studies")]
SCRATCH = "hanse_scratch"


@pytest.fixture
def scratch(django_db_setup: None, django_db_blocker: Any, tmp_path: Any) -> Iterator[Any]:
    """A connection to an empty database, on the same kind of server."""
    with django_db_blocker.unblock():
        server = connection.vendor == "postgresql"
        if server:
            connection.cursor().execute(f"CREATE DATABASE {SCRATCH}")
        name = SCRATCH if server else str(tmp_path / "scratch.sqlite3")
        connections.databases[SCRATCH] = {**connection.settings_dict, "NAME": name}
        try:
            yield connections[SCRATCH]
        finally:
            connections[SCRATCH].close()
            del connections[SCRATCH], connections.databases[SCRATCH]
            if server:
                connection.cursor().execute(f"DROP DATABASE {SCRATCH}")
                connection.close()


def migrate(database: Any, targets: Any = None) -> Any:
    """The models as they are at the targets, by default the newest."""
    executor = MigrationExecutor(database)
    targets = targets or [
        node for node in executor.loader.graph.leaf_nodes() if node[0] == "federation"
    ]
    executor.migrate(targets)
    return MigrationExecutor(database).loader.project_state(targets).apps


def post(apps: Any, name: str, amounts: tuple[int, int]) -> None:
    """A group between two purses of nobody, past all services."""
    group = rows(apps, "EntryGroup").create(
        key=name, kind="deposit", currency="cash", created_at=NOW
    )
    for kind, amount in zip(("rounding", "issuance"), amounts, strict=True):
        account, _ = rows(apps, "Account").get_or_create(
            kind=kind, currency="cash", defaults={"created_at": NOW}
        )
        rows(apps, "Entry").create(group=group, account=account, amount_micro=amount)


def rows(apps: Any, name: str) -> Any:
    return apps.get_model("federation", name).objects.using(SCRATCH)


def test_the_way_back_leaves_the_ledger_guarded_and_the_way_on_links_it(scratch):
    apps = migrate(scratch, BEFORE)
    with transaction.atomic(using=SCRATCH):
        post(apps, "first", (-1, 1))
    migrate(scratch)
    assert ledger_guard.missing(scratch) == []
    apps = migrate(scratch, BEFORE)
    for table in ("EntryGroup", "Entry"):
        assert rows(apps, table).exists()
        with pytest.raises(DatabaseError, match="append-only"):
            rows(apps, table).update(id=0)
        with pytest.raises(DatabaseError, match="append-only"):
            rows(apps, table).all()._raw_delete(SCRATCH)
    if scratch.vendor == "postgresql":
        with (
            pytest.raises(DatabaseError, match="does not sum to zero"),
            transaction.atomic(using=SCRATCH),
        ):
            post(apps, "unbalanced", (-1, 2))
    with transaction.atomic(using=SCRATCH):
        post(apps, "second", (-2, 2))
    migrate(scratch)
    assert ledger_guard.missing(scratch) == []
    with scratch.cursor() as cursor:
        cursor.execute(
            "SELECT key, position FROM federation_link JOIN federation_entrygroup "
            "ON id = group_id ORDER BY position"
        )
        assert cursor.fetchall() == [("first", 1), ("second", 2)]
        cursor.execute("SELECT count(*) FROM federation_chainhead")
        assert cursor.fetchone() == (1,)
