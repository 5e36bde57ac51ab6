"""The ledger is append-only and chained because the database itself sees to it.

SQL triggers, made by migrations: no UPDATE, DELETE or TRUNCATE of what is on record, no entry for a
group that is linked, a chain's head that only advances. On PostgreSQL a transaction's groups are
checked (they sum to zero, in one currency) and linked to the chain when it commits, after every
other deferred check: whoever holds the chain waits for nothing more, so it is in no deadlock.
SQLite has one writer and no deferred triggers; there `federation.ledger_rows.link` links.
`remove` exists for the migrations' way back and for test clean-up.
"""

from __future__ import annotations

from typing import Any

#: tables whose rows nobody changes
RECORDS = (
    *("federation_entrygroup", "federation_entry", "federation_link", "federation_rules"),
    *("federation_consent", "federation_evidence", "federation_count"),
)
REFUSAL = "the ledger is append-only: correct by a reversing group"

_POSTGRES_REFUSE = f"""
CREATE OR REPLACE FUNCTION hanse_ledger_refuse() RETURNS trigger AS $$
BEGIN
  RAISE EXCEPTION '{REFUSAL}';
END $$ LANGUAGE plpgsql;
"""
#: builds the text of `federation.ledger_chain` in SQL; the advisory lock is the chain's
_POSTGRES_LINK = """
CREATE OR REPLACE FUNCTION hanse_ledger_link(chain text, wanted uuid[]) RETURNS void AS $$
DECLARE
  one uuid;
  g federation_entrygroup;
  created text;
  total bigint;
  same boolean;
  moved text;
  place bigint;
  last text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('hanse ledger'));
  SELECT position, digest INTO place, last FROM federation_chainhead WHERE currency = chain;
  place := coalesce(place, 0);
  last := coalesce(last, '');
  FOREACH one IN ARRAY wanted LOOP
    SELECT * INTO g FROM federation_entrygroup WHERE id = one;
    SELECT sum(e.amount_micro), bool_and(a.currency = g.currency),
        string_agg(concat_ws(',',
          e.id, a.id, concat(octet_length(a.kind), ':', a.kind),
          coalesce(a.tenant_id::text, ''), coalesce(a.member_id::text, ''),
          (extract(epoch FROM a.created_at) * 1000000)::bigint, e.amount_micro
        ), ';' ORDER BY a.id)
      INTO total, same, moved
      FROM federation_entry e JOIN federation_account a ON a.id = e.account_id
      WHERE e.group_id = one;
    IF total IS NULL THEN
      RAISE EXCEPTION 'entry group % has no entries', one;
    ELSIF total <> 0 THEN
      RAISE EXCEPTION 'entry group % does not sum to zero', one;
    ELSIF NOT same THEN
      RAISE EXCEPTION 'entry group % moves two currencies', one;
    END IF;
    place := place + 1;
    created := (extract(epoch FROM g.created_at) * 1000000)::bigint;
    last := encode(sha256(convert_to(concat(
      octet_length(last), ':', last, octet_length(place::text), ':', place,
      '36:', one, octet_length(g.key), ':', g.key, octet_length(g.kind), ':', g.kind,
      octet_length(g.currency), ':', g.currency, octet_length(created), ':', created,
      octet_length(g.memo), ':', g.memo,
      CASE WHEN g.contract_id IS NULL THEN '0:' ELSE '36:' END, g.contract_id,
      CASE WHEN g.round_id IS NULL THEN '0:' ELSE '36:' END, g.round_id,
      CASE WHEN g.reverses_id IS NULL THEN '0:' ELSE '36:' END, g.reverses_id,
      octet_length(g.facts::text), ':', g.facts, octet_length(moved), ':', moved
    ), 'UTF8')), 'hex');
    INSERT INTO federation_link (group_id, currency, position, digest)
      VALUES (one, chain, place, last);
  END LOOP;
  INSERT INTO federation_chainhead (currency, position, digest) VALUES (chain, place, last)
    ON CONFLICT (currency) DO UPDATE SET position = place, digest = last;
END $$ LANGUAGE plpgsql
-- one group at a time, by its indexes, whatever the planner believes of tables that just grew
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off;
"""
#: a statement's groups wait in a row of their own, which is asked for twice: the second time comes
#: after all that the transaction had deferred, foreign keys among it
_POSTGRES_COMMIT = """
CREATE TABLE hanse_ledger_waiting (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  again boolean NOT NULL,
  currency text NOT NULL,
  groups uuid[] NOT NULL
);
CREATE OR REPLACE FUNCTION hanse_ledger_posted() RETURNS trigger AS $$
BEGIN
  INSERT INTO hanse_ledger_waiting (again, currency, groups)
    SELECT false, currency, array_agg(id) FROM fresh GROUP BY currency;
  RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE OR REPLACE FUNCTION hanse_ledger_commit() RETURNS trigger AS $$
BEGIN
  DELETE FROM hanse_ledger_waiting WHERE id = NEW.id;
  IF NEW.again THEN
    PERFORM hanse_ledger_link(NEW.currency, NEW.groups);
  ELSE
    INSERT INTO hanse_ledger_waiting (again, currency, groups)
      VALUES (true, NEW.currency, NEW.groups);
  END IF;
  RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE OR REPLACE FUNCTION hanse_ledger_late() RETURNS trigger AS $$
DECLARE
  late uuid;
BEGIN
  SELECT fresh.group_id INTO late FROM fresh JOIN federation_link USING (group_id) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'entry group % is linked: the ledger is append-only', late;
  END IF;
  RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER hanse_ledger_posts AFTER INSERT ON federation_entrygroup
  REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION hanse_ledger_posted();
CREATE TRIGGER hanse_ledger_lates AFTER INSERT ON federation_entry
  REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION hanse_ledger_late();
CREATE CONSTRAINT TRIGGER hanse_ledger_commits AFTER INSERT ON hanse_ledger_waiting
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hanse_ledger_commit();
CREATE TRIGGER hanse_ledger_head_advances BEFORE UPDATE ON federation_chainhead FOR EACH ROW
  WHEN (NEW.position <= OLD.position OR NEW.currency <> OLD.currency)
  EXECUTE FUNCTION hanse_ledger_refuse();
CREATE TRIGGER hanse_ledger_head_stays BEFORE DELETE OR TRUNCATE ON federation_chainhead
  FOR EACH STATEMENT EXECUTE FUNCTION hanse_ledger_refuse();
"""
_POSTGRES_FUNCTIONS = (
    *("hanse_ledger_refuse", "hanse_ledger_posted", "hanse_ledger_commit", "hanse_ledger_late"),
    *("hanse_ledger_link", "hanse_ledger_balance"),  # the last is of the guards' first version
)

_SQLITE_CHAIN = {
    "federation_entry_late": """BEFORE INSERT ON federation_entry
        WHEN EXISTS (SELECT 1 FROM federation_link WHERE group_id = NEW.group_id)
        BEGIN SELECT RAISE(ABORT, 'the group is linked: the ledger is append-only'); END""",
    "federation_link_balances": """BEFORE INSERT ON federation_link
        WHEN (SELECT sum(amount_micro) FROM federation_entry
              WHERE group_id = NEW.group_id) IS NOT 0
        BEGIN SELECT RAISE(ABORT, 'an entry group does not sum to zero'); END""",
    "federation_link_currency": """BEFORE INSERT ON federation_link
        WHEN EXISTS (SELECT 1 FROM federation_entry e JOIN federation_account a
                     ON a.id = e.account_id
                     WHERE e.group_id = NEW.group_id AND a.currency <> NEW.currency)
        BEGIN SELECT RAISE(ABORT, 'an entry group moves two currencies'); END""",
    "federation_chainhead_advances": f"""BEFORE UPDATE ON federation_chainhead
        WHEN NEW.position <= OLD.position OR NEW.currency <> OLD.currency
        BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END""",
    "federation_chainhead_stays": f"""BEFORE DELETE ON federation_chainhead
        BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END""",
}


def install(connection: Any) -> None:
    """Make the triggers anew on this connection's database, for the tables that it has."""
    remove(connection)
    tables = set(connection.introspection.table_names())
    records = [table for table in RECORDS if table in tables]
    chained = "federation_link" in tables
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            _install_postgres(cursor, records, chained)
        elif connection.vendor == "sqlite":
            _install_sqlite(cursor, records, chained)


def _install_postgres(cursor: Any, records: list[str], chained: bool) -> None:
    cursor.execute(_POSTGRES_REFUSE)
    for table in records:
        cursor.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION hanse_ledger_refuse()"
        )
    if chained:
        cursor.execute(_POSTGRES_LINK)
        cursor.execute(_POSTGRES_COMMIT)


def _install_sqlite(cursor: Any, records: list[str], chained: bool) -> None:
    for table in records:
        for verb in ("UPDATE", "DELETE"):
            cursor.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN "
                f"SELECT RAISE(ABORT, '{REFUSAL}'); END"
            )
    if chained:
        for name, body in _SQLITE_CHAIN.items():
            cursor.execute(f"CREATE TRIGGER {name} {body}")


def remove(connection: Any) -> None:
    """Take the triggers away."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for function in _POSTGRES_FUNCTIONS:
                cursor.execute(f"DROP FUNCTION IF EXISTS {function} CASCADE")
            cursor.execute("DROP TABLE IF EXISTS hanse_ledger_waiting")
        elif connection.vendor == "sqlite":
            for name in sqlite_names():
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}")


def link_now(connection: Any) -> None:
    """Check and link what this transaction has posted so far, before it commits."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS hanse_ledger_commits IMMEDIATE")
            cursor.execute("SET CONSTRAINTS hanse_ledger_commits DEFERRED")


def sqlite_names() -> list[str]:
    """The triggers of a whole SQLite database."""
    refusing = [f"{table}_no_{verb}" for table in RECORDS for verb in ("update", "delete")]
    return [*refusing, *_SQLITE_CHAIN]


def missing(connection: Any) -> list[str]:
    """The triggers that this database should have and has not, by name."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
            )
            wanted = [f"{table}_append_only" for table in RECORDS]
            wanted += ["hanse_ledger_posts", "hanse_ledger_lates", "hanse_ledger_commits"]
            wanted += ["hanse_ledger_head_advances", "hanse_ledger_head_stays"]
        else:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            wanted = sqlite_names()
        found = {name for (name,) in cursor.fetchall()}
    return [name for name in wanted if name not in found]
