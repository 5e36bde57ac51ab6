"""Groups posted and verified each second on PostgreSQL: `python -m bench.ledger --json`.

A PostgreSQL of its own is started (or DATABASE_URL names one that may be filled). This process and
the server share one core where the system lets us choose. Holds of contracts' prices are posted
one in a transaction, a thousand in a transaction, and all of a large round in one; then the whole
ledger is verified: sums, balances, chain.
"""

from __future__ import annotations

import argparse
import os
import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.support import database, report

if TYPE_CHECKING:
    from federation.models import Account

REPEATS = 5
BATCH = 1000
DEEP_MICRO = 10**15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--single", type=int, default=2000, help="groups, each in a transaction")
    parser.add_argument("--batched", type=int, default=20_000, help="groups, a thousand in each")
    parser.add_argument("--round", type=int, default=100_000, help="groups of one transaction")
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries to verify")
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    asked = parser.parse_args()
    cores = _one_core()
    with database():
        figures = measure(asked)
    report("ledger", {"cores": cores, **figures}, as_json=asked.json)


def _one_core() -> int:
    """Bind this process, and so the server that it starts, to one core; how many it has now."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Fill an empty database and time each step."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    purses = _purses(asked.tenants)
    draw = random.Random(0)  # noqa: S311 - the same groups in every run
    figures: dict[str, Any] = {}
    for wall, busy, run, count in (
        ("single_groups_per_s", "single_groups_per_cpu_s", _singly, asked.single),
        ("batched_groups_per_s", "batched_groups_per_cpu_s", _batched, asked.batched),
    ):
        found = [_rate(run, purses, count, draw) for _ in range(asked.repeats + 1)][1:]
        figures |= _spread(wall, [rate for rate, _ in found])
        figures |= _spread(busy, [rate for _, rate in found])
    postings = _postings(purses, asked.round, draw)
    seconds = _seconds(lambda: _at_once(postings))
    figures |= {"round_groups": asked.round, "round_seconds": round(seconds, 3)}
    _fill(purses, asked.entries, draw)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return figures | _verified(asked.repeats)


def _verified(repeats: int) -> dict[str, Any]:
    from federation.selectors.ledger import verify

    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        found = verify()
        taken.append(time.perf_counter() - started)
        assert found.holds, found.findings
    return {
        "verified_groups": found.groups,
        "verified_entries": found.entries,
        **_spread("verified_seconds", taken),
    }


def _spread(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        name: round(ordered[len(ordered) // 2], 3),
        f"{name}_least": round(ordered[0], 3),
        f"{name}_most": round(ordered[-1], 3),
    }


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _purses(tenants: int) -> list[tuple[Account, Account]]:
    """Free funds and escrow of some tenants, with deep funds."""
    from federation.models import Account
    from federation.services import ledger
    from tests.support.world import NOW, a_member, a_tenant, a_venue

    found = []
    for at in range(tenants):
        tenant = a_tenant(f"tenant-{at}", member=a_member(f"member-{at % 20}"), credits=0)
        ledger.deposit(
            tenant=tenant,
            venue=a_venue(),
            amount_micro=DEEP_MICRO,
            key="deep",
            actor="bench",
            now=NOW,
        )
        cash = ledger.account(Account.Kind.TENANT_CASH, "cash", now=NOW, tenant=tenant)
        escrow = ledger.account(Account.Kind.TENANT_ESCROW, "cash", now=NOW, tenant=tenant)
        found.append((cash, escrow))
    return found


def _postings(purses: list[tuple[Account, Account]], count: int, draw: random.Random) -> list[Any]:
    from federation.services.ledger import Posting

    made = []
    for _ in range(count):
        cash, escrow = draw.choice(purses)
        amount = draw.randrange(1, 10**6)
        key = f"hold:{uuid.UUID(int=draw.getrandbits(128), version=4)}"
        facts = {"price_micro": str(amount), "round": draw.randrange(10**6)}
        made.append(
            Posting(key, "hold", "cash", [(cash, -amount), (escrow, amount)], "bench", facts=facts)
        )
    return made


def _rate(
    run: Callable[[list[Any]], None],
    purses: list[tuple[Account, Account]],
    count: int,
    draw: random.Random,
) -> tuple[float, float]:
    """Groups in a second, and in a second of processor time of this process and the server's."""
    postings = _postings(purses, count, draw)
    before = time.process_time() + _server_cpu_s()
    seconds = _seconds(lambda: run(postings))
    busy = time.process_time() + _server_cpu_s() - before
    return count / seconds, count / busy


def _server_cpu_s() -> float:
    """Processor seconds that the server has spent on our connection; nan where it is elsewhere."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _singly(postings: list[Any]) -> None:
    from federation.services.ledger import post_all
    from tests.support.world import later

    for at, posting in enumerate(postings):
        assert post_all([posting], now=later(at)) == 1


def _batched(postings: list[Any]) -> None:
    from federation.services.ledger import post_all
    from tests.support.world import later

    for at in range(0, len(postings), BATCH):
        some = postings[at : at + BATCH]
        assert post_all(some, now=later(at)) == len(some)


def _at_once(postings: list[Any]) -> None:
    from federation.services.ledger import post_all
    from tests.support.world import later

    assert post_all(postings, now=later(1)) == len(postings)


def _fill(purses: list[tuple[Account, Account]], entries: int, draw: random.Random) -> None:
    from federation.models import Entry

    missing = (entries - Entry.objects.count()) // 2
    while missing > 0:
        some = min(missing, 50_000)
        _at_once(_postings(purses, some, draw))
        missing -= some


if __name__ == "__main__":
    main()
