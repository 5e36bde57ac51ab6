"""What the agent must not forget: attempts, reports not yet receipted, attempts ever seen.

SQLite with WAL and full sync, one owner (a thread). A report gets its number in the transaction
that writes the state it tells of, so a kill at any point neither loses nor doubles one. An attempt
id stays in `seen` for good: it is never started twice, whatever an old message says.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from agents.attempt import Attempt
from agents.errors import JournalFull
from agents.protocol import Receipt, Report, ReportKind, canonical, decode, encode

SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    attempt TEXT PRIMARY KEY, position INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reports (
    number INTEGER PRIMARY KEY AUTOINCREMENT, attempt TEXT NOT NULL, seq INTEGER NOT NULL,
    kind TEXT NOT NULL, size INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE (attempt, seq));
CREATE TABLE IF NOT EXISTS refused (
    attempt TEXT NOT NULL, seq INTEGER NOT NULL, code TEXT NOT NULL, why TEXT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (attempt, seq));
CREATE TABLE IF NOT EXISTS seen (attempt TEXT PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
VERSION = 1
KEPT_REFUSALS = 1000


class Journal:
    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        mode = "ro" if read_only else "rwc"
        address = f"{path.absolute().as_uri()}?mode={mode}"
        self._db = sqlite3.connect(address, uri=True, isolation_level=None)
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(SCHEMA)
            if self._db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        rows = self._db.execute("SELECT body FROM attempts ORDER BY position").fetchall()
        self._attempts = {a.attempt: a for a in (_attempt(body) for (body,) in rows)}

    def close(self) -> None:
        self._db.close()

    def attempts(self) -> list[Attempt]:
        """All attempts not yet forgotten, in the order they came."""
        return list(self._attempts.values())

    def get(self, attempt: str) -> Attempt | None:
        return self._attempts.get(attempt)

    def seen(self, attempt: str) -> bool:
        found = self._db.execute("SELECT 1 FROM seen WHERE attempt = ?", (attempt,)).fetchone()
        return found is not None

    def keep(self, attempt: Attempt) -> Attempt:
        """Hold a value in memory only: what can be read again after a crash costs no write."""
        last_seq = self._last_seq(attempt.attempt)
        kept = attempt if attempt.last_seq == last_seq else replace(attempt, last_seq=last_seq)
        self._attempts[attempt.attempt] = kept
        return kept

    def record(
        self, attempt: Attempt, facts: Iterable[Report] = (), *, at: str = "", durable: bool = False
    ) -> Attempt:
        """Write the attempt as it is now and the facts that tell of it, in one transaction.

        Raises JournalFull. `durable` is for what must be on disk before something else is done.
        """
        attempt = replace(attempt, last_seq=self._last_seq(attempt.attempt))
        with self._transaction():
            for fact in facts:
                attempt = replace(attempt, last_seq=attempt.last_seq + 1)
                self._insert(replace(fact, seq=attempt.last_seq))
            name = attempt.attempt
            self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (name, at))
            self._db.execute(
                "INSERT INTO attempts VALUES (?, (SELECT COALESCE(MAX(position), 0) + 1"
                " FROM attempts), ?) ON CONFLICT (attempt) DO UPDATE SET body = excluded.body",
                (name, canonical(encode(attempt)).decode()),
            )
        self._attempts[attempt.attempt] = attempt
        return attempt

    def forget(self, attempt: str) -> None:
        """Drop an ended attempt and whatever of it is unsent; its id stays seen."""
        with self._transaction():
            self._db.execute("DELETE FROM reports WHERE attempt = ?", (attempt,))
            self._db.execute("DELETE FROM attempts WHERE attempt = ?", (attempt,))
        self._attempts.pop(attempt, None)

    def pending(self, *, limit: int, max_bytes: int) -> list[Report]:
        """The oldest unsent reports: at most `limit`, about `max_bytes`, at least one."""
        found: list[Report] = []
        size = 0
        rows = self._db.execute("SELECT body, size FROM reports ORDER BY number LIMIT ?", (limit,))
        for body, length in rows:
            size += length
            if found and size > max_bytes:
                break
            found.append(decode(Report, json.loads(body)))
        rows.close()
        return found

    def receive(self, receipts: Iterable[Receipt]) -> list[Receipt]:
        """Drop what the broker has answered for; returns the refusals, kept for the operator."""
        refusals = []
        with self._transaction():
            for receipt in receipts:
                key = (receipt.attempt, receipt.seq)
                if not receipt.accepted and self._refuse(receipt):
                    refusals.append(receipt)
                self._db.execute("DELETE FROM reports WHERE attempt = ? AND seq = ?", key)
        return refusals

    def unsent(self, attempt: str | None = None) -> int:
        """Number of reports without a receipt."""
        sql = "SELECT COUNT(*) FROM reports WHERE ? IN (attempt, '')"
        return int(self._db.execute(sql, (attempt or "",)).fetchone()[0])

    def unsent_of(self, attempt: str, kind: ReportKind) -> tuple[int, int]:
        """Number and bytes of one kind of an attempt's unsent reports."""
        sql = "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM reports WHERE attempt = ? AND kind = ?"
        count, size = self._db.execute(sql, (attempt, str(kind))).fetchone()
        return int(count), int(size)

    def refusals(self) -> list[Receipt]:
        rows = self._db.execute("SELECT attempt, seq, code, why FROM refused ORDER BY rowid")
        return [Receipt(attempt, seq, False, code, why) for attempt, seq, code, why in rows]

    def begin(self, new_id: str) -> str:
        """Name this start of the agent: the journal's own id, and a number that only grows.

        The broker tells a restart (same id, higher number) from a copied credential by it.
        """
        journal = self.noted("journal_id") or new_id
        start = int(self.noted("starts") or "0") + 1
        with self._transaction():
            for name, value in (("journal_id", journal), ("starts", str(start))):
                self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))
        return f"{journal}.{start}"

    def note(self, name: str, value: str) -> None:
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))

    def noted(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    def _last_seq(self, attempt: str) -> int:
        """The numbering is the journal's own, however old the value that a caller brings."""
        known = self._attempts.get(attempt)
        return 0 if known is None else known.last_seq

    def _insert(self, report: Report) -> None:
        body = canonical(encode(report)).decode()
        self._db.execute(
            "INSERT INTO reports (attempt, seq, kind, size, body) VALUES (?, ?, ?, ?, ?)",
            (report.attempt, report.seq, str(report.kind), len(body), body),
        )

    def _refuse(self, receipt: Receipt) -> bool:
        done = self._db.execute(
            "INSERT OR IGNORE INTO refused SELECT attempt, seq, ?, ?, body FROM reports"
            " WHERE attempt = ? AND seq = ?",
            (receipt.code, receipt.why, receipt.attempt, receipt.seq),
        )
        newest = "SELECT rowid FROM refused ORDER BY rowid DESC LIMIT ?"
        self._db.execute(
            f"DELETE FROM refused WHERE rowid NOT IN ({newest})",  # noqa: S608 - no outside text
            (KEPT_REFUSALS,),
        )
        return done.rowcount > 0

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; raises JournalFull when the disk takes no more."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and _no_room(error):
                raise JournalFull(f"the journal cannot be written: {error}") from error
            raise


def _no_room(error: sqlite3.OperationalError) -> bool:
    """A full disk, a quota, or a disk that fails: SQLite cannot always tell them apart."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _attempt(body: str) -> Attempt:
    return decode(Attempt, json.loads(body))
