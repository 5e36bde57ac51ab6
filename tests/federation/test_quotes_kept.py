"""Lines and the quotes beside them, written to a file, restored, and computed again from it."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection

from federation import ledger_guard
from federation.models import Contract, Job, Study, Tenant
from federation.selectors.replay import replay
from federation.services.archive import archive_restore, archive_write
from federation.services.contracts import contracts_measure, contracts_settle
from federation.services.leases import Ending
from tests.federation.quote_scene import (
    a_market,
    answer,
    ask,
    cite,
    facts,
    opened,
    quoted,
    runs,
)
from tests.support.together import together
from tests.support.world import a_job, a_round, a_tenant, later, pay

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
MANY = 6


def a_history() -> None:
    """One job that cites a quote, through a round as quoted and one with another price."""
    ann, agent = a_market()
    bob = a_tenant("bob")
    job = cite(ann, quoted(ann, 25), 26)
    opened(job, 31)
    runs(agent, 32, 20_000, job)
    for value in ("800", "400"):
        a_job(bob, gpus=[2], samples=10**6, value=value, now=later(33))
    opened(job, 42)
    runs(agent, 43, 40_000, job)
    a_round(later(53))
    runs(agent, 54, 40_001, job)
    pay(later(56))


def emptied() -> None:
    """The same database without a row."""
    ledger_guard.remove(connection)
    call_command("flush", interactive=False, verbosity=0)
    ledger_guard.install(connection)
    assert not Tenant.objects.exists()


def words() -> list[tuple[str, str]]:
    rows = Contract.objects.filter(postings__gt=0).order_by("created_at", "sequence")
    return list(rows.exclude(quote_code="").values_list("quote_code", "quote_why"))


def test_an_archive_keeps_what_every_line_says_of_its_quote_and_what_it_follows_from(tmp_path):
    a_history()
    before = words()
    assert [code for code, _ in before] == ["as_quoted", "price_moved"]
    archive_write(tmp_path / "ledger.gz", now=later(100))
    emptied()
    archive_restore(tmp_path / "ledger.gz")
    assert not Study.objects.exists()  # the quote itself is not kept: the job's copy is
    assert words() == before
    found = replay()
    assert (found.findings, found.quotes) == ([], 2)
    Contract.objects.filter(quote_code="price_moved").update(quote_code="as_quoted")
    assert not replay().holds


def test_many_ask_cite_and_settle_at_once():
    ann, agent = a_market()
    asked = together(MANY, lambda _: ask(ann, 25).pk)
    assert len(set(asked)) == Study.objects.count() == 1
    study = answer(Study.objects.get(), 25)
    jobs = together(MANY, lambda at: cite(ann, study, 26, key=f"key-{at % 2}").pk)
    assert len(set(jobs)) == 2
    a_round(later(31))
    for job in Job.objects.filter(pk__in=jobs).order_by("pk"):
        runs(agent, 32, 20_000, job, ending=Ending("exited", 0))
    contracts_measure(now=later(40))
    settled = together(MANY, lambda _: len(contracts_settle(now=later(41))))
    assert sum(settled) == 2
    for contract in Contract.objects.all():
        assert (contract.postings, contract.quote_code) == (1, "as_quoted")
        assert [said["code"] for said in facts(contract)] == ["as_quoted"]
    assert replay().findings == []
