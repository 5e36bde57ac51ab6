"""A ledger is written to a file, restored with the same heads, and computed again."""

from __future__ import annotations

import gzip
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from federation import ledger_guard
from federation.errors import Refused
from federation.machines.contract import ContractState
from federation.models import Account, ChainHead, Contract, Entry, EntryGroup, Link, Round, Tenant
from federation.selectors.ledger import verify
from federation.selectors.replay import replay
from federation.services import ledger
from federation.services.archive import archive_check, archive_restore, archive_write
from federation.services.contracts import contracts_finalise
from federation.services.disputes import dispute_decide, dispute_open
from federation.services.leases import Ending
from tests.federation.ledger_scene import balances
from tests.support.world import (
    NOW,
    SimAgent,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
    pay,
)

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")


@pytest.fixture
def history():
    """Two rounds with three jobs, one disputed and corrected, and money in and out."""
    ann, bob = a_tenant("ann", credits=1000), a_tenant("bob", credits=500)
    agents = {name: SimAgent(a_site(name)) for name in ("north", "south")}
    jobs = [a_job(ann), a_job(bob), a_job(ann, value="300")]
    a_round(later(20))
    for agent in agents.values():
        agent.sync(later(21))
    for at, job in enumerate(jobs):
        lease = live_lease(job)
        agent = agents[lease.site.name]
        agent.report(lease, later(25 + at), samples=4000 + at, speed=1000.0)
        agent.report(lease, later(28 + at), samples=5000, ending=Ending("lost", 1, "gone"))
    pay(later(40))
    contract = Contract.objects.filter(state=ContractState.SETTLED).order_by("created_at").first()
    assert contract is not None
    dispute = dispute_open(
        **{"contract": contract, "by": "tenant", "actor": "user:ann", "code": "short"},
        **{"why": "half of it", "claimed": 2500, "now": later(50)},
    )
    dispute_decide(
        **{"dispute": dispute, "accepted": 2500, "cause": "site", "why": "the log says so"},
        **{"actor": "user:op", "now": later(60)},
    )
    ledger.withdraw(
        tenant=bob, venue=a_venue(), amount_micro=77, key="w", actor="user:op", now=later(70)
    )
    contracts_finalise(now=later(10**6))
    assert verify().findings == []
    return ann


def emptied():
    """The same database without a row."""
    ledger_guard.remove(connection)
    call_command("flush", interactive=False, verbosity=0)
    ledger_guard.install(connection)
    assert not Tenant.objects.exists()


def heads():
    rows = ChainHead.objects.values_list("currency", "position", "digest")
    return {currency: [position, digest] for currency, position, digest in rows}


def everything():
    models = (Account, EntryGroup, Entry, Link, ChainHead, Contract, Round, Tenant)
    return {model: list(model.objects.order_by("pk").values()) for model in models}


def test_a_ledger_restored_from_its_archive_has_the_same_heads(history, tmp_path):
    before, ends, purses = everything(), heads(), balances()
    archived = archive_write(tmp_path / "ledger.gz", now=NOW)
    assert archived.heads == ends
    assert archived.groups == Link.objects.count()
    emptied()
    restored = archive_restore(tmp_path / "ledger.gz")
    assert restored == archived
    assert heads() == ends
    assert balances() == purses
    assert everything() == before
    assert verify().findings == []
    assert replay().findings == []
    ledger.deposit(  # and the chain goes on
        tenant=Tenant.objects.get(name="ann"),
        **{"venue": a_venue(), "amount_micro": 5, "key": "on", "actor": "t", "now": later(99)},
    )
    assert heads()["cash"][0] == ends["cash"][0] + 1
    assert verify().findings == []


def test_two_archives_of_one_ledger_are_the_same_bytes(history, tmp_path):
    for name in ("one.gz", "two.gz"):
        archive_write(tmp_path / name, now=NOW)
    assert gzip.decompress((tmp_path / "one.gz").read_bytes()) == gzip.decompress(
        (tmp_path / "two.gz").read_bytes()
    )


def test_a_ledger_is_not_restored_over_another(history, tmp_path):
    archive_write(tmp_path / "ledger.gz", now=NOW)
    before = everything()
    with pytest.raises(Refused) as refused:
        archive_restore(tmp_path / "ledger.gz")
    assert refused.value.code == "not_empty"
    assert everything() == before


def forged(source, change):
    """The archive with one line changed, and its own digest mended."""
    import hashlib

    lines = gzip.decompress(source.read_bytes()).splitlines(keepends=True)[:-1]
    lines = change(lines)
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    lines.append(json.dumps({"sha256": digest}).encode() + b"\n")
    source.write_bytes(gzip.compress(b"".join(lines)))


def more_money(lines):
    """Every group that moves exactly 1000 credits moves 2000, purses and balances with it."""
    return [line.replace(b"1000000000", b"2000000000") for line in lines]


def other_memo(lines):
    return [line.replace(b"by test", b"by tesd") for line in lines]


def no_last_group(lines):
    return lines[:-1]


def swapped(lines):
    return [*lines[:-2], lines[-1], lines[-2]]


@pytest.mark.parametrize("change", [more_money, other_memo, no_last_group, swapped])
def test_an_archive_that_was_forged_restores_nothing(history, tmp_path, change):
    source = tmp_path / "ledger.gz"
    archive_write(source, now=NOW)
    forged(source, change)
    emptied()
    with pytest.raises(Refused) as refused:
        archive_restore(source)
    assert refused.value.code in ("bad_archive", "does_not_hold")
    assert not EntryGroup.objects.exists()
    assert not Tenant.objects.exists()


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def of_another_kind(_):
    return gzip.compress(b'{"format": "other/1"}\n{"sha256": ""}\n')


@pytest.mark.parametrize("harm", [cut, flipped, of_another_kind, lambda _: b"", lambda _: b"text"])
def test_a_damaged_archive_is_refused(history, tmp_path, harm):
    source = tmp_path / "ledger.gz"
    archive_write(source, now=NOW)
    source.write_bytes(harm(source.read_bytes()))
    for read in (archive_check, archive_restore):
        emptied()
        with pytest.raises(Refused) as refused:
            read(source)
        assert refused.value.code == "bad_archive"
        assert not Account.objects.exists()


def test_a_ledger_that_does_not_hold_is_not_archived(history, tmp_path):
    Account.objects.filter(kind="tenant_cash").update(balance_micro=1)
    with pytest.raises(Refused) as refused:
        archive_write(tmp_path / "ledger.gz", now=NOW)
    assert refused.value.code == "does_not_hold"
    assert not list(tmp_path.iterdir())


def test_every_balance_follows_from_the_rounds_and_the_measurements(history):
    found = replay()
    assert found.findings == []
    assert found.holds
    assert found.contracts == Contract.objects.count() >= 3
    assert found.settlements == found.contracts
    assert found.rounds >= 1
    assert len(found.balances) >= 6


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"delivered": 4999}, "computed"),
        ({"payment_micro": 1}, "costs"),
        ({"contracted": 77}, "the round sold"),
        ({"state": "measured"}, "was paid"),
    ],
)
def test_a_contract_that_does_not_fit_its_round_is_found(history, change, why):
    paid = Contract.objects.filter(disputes__isnull=True, round__isnull=False)
    contract = paid.order_by("created_at").first()
    Contract.objects.filter(pk=contract.pk).update(**change)
    assert any(why in finding for finding in replay().findings), replay().findings


def test_the_commands_check_export_restore_and_replay(history, tmp_path, capsys):
    call_command("check_ledger")
    [head] = heads().values()
    assert head[1] in capsys.readouterr().out
    for kind in ("csv", "json", "archive"):
        call_command("export_ledger", tmp_path / kind, "--format", kind)
        assert (tmp_path / kind).stat().st_size > 1000
    call_command("replay_ledger")
    call_command("restore_ledger", tmp_path / "archive", "--check")
    with pytest.raises(CommandError, match="has a ledger"):
        call_command("restore_ledger", tmp_path / "archive")
    emptied()
    capsys.readouterr()
    call_command("restore_ledger", tmp_path / "archive")
    assert head[1] in capsys.readouterr().out
    Account.objects.filter(kind="tenant_cash").update(balance_micro=1)
    for command in ("check_ledger", "replay_ledger"):
        with pytest.raises(CommandError):
            call_command(command)
    with pytest.raises(CommandError):
        call_command("export_ledger", tmp_path / "again")
