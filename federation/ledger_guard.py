"""The ledger is append-only because the database itself refuses anything else.

SQL triggers, made by a migration: no UPDATE, no DELETE on groups and entries; on PostgreSQL also no
commit that leaves a group whose entries do not sum to zero. `remove` exists for the migration's way
back and for test clean-up.
"""

from __future__ import annotations

from typing import Any

TABLES = ("federation_entrygroup", "federation_entry")

_POSTGRES_INSTALL = """
CREATE OR REPLACE FUNCTION hanse_ledger_refuse() RETURNS trigger AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only: correct by a reversing group';
END $$ LANGUAGE plpgsql;
CREATE OR REPLACE FUNCTION hanse_ledger_balance() RETURNS trigger AS $$
BEGIN
  IF (SELECT COALESCE(SUM(amount_micro), 0) FROM federation_entry
      WHERE group_id = NEW.group_id) <> 0 THEN
    RAISE EXCEPTION 'entry group % does not sum to zero', NEW.group_id;
  END IF;
  RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE CONSTRAINT TRIGGER hanse_ledger_balances AFTER INSERT ON federation_entry
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hanse_ledger_balance();
"""
_POSTGRES_REMOVE = """
DROP TRIGGER IF EXISTS hanse_ledger_balances ON federation_entry;
DROP FUNCTION IF EXISTS hanse_ledger_balance() CASCADE;
DROP FUNCTION IF EXISTS hanse_ledger_refuse() CASCADE;
"""


def install(connection: Any) -> None:
    """Make the triggers on this connection's database."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_POSTGRES_INSTALL)
            for table in TABLES:
                cursor.execute(
                    f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
                    f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION hanse_ledger_refuse()"
                )
        elif connection.vendor == "sqlite":
            for table in TABLES:
                for verb in ("UPDATE", "DELETE"):
                    cursor.execute(
                        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN "
                        "SELECT RAISE(ABORT, 'the ledger is append-only'); END"
                    )


def remove(connection: Any) -> None:
    """Take the triggers away."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_POSTGRES_REMOVE)
        elif connection.vendor == "sqlite":
            for table in TABLES:
                for verb in ("update", "delete"):
                    cursor.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
