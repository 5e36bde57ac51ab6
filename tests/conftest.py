"""Fixtures for the tests that use Django. `tests/agents` and `tests/hanse` need none of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def ledger_may_be_flushed(transactional_db: None) -> Iterator[None]:
    """For tests with real commits: lift the ledger's triggers just before the tables are emptied.

    Ask for it in place of `transactional_db`; it is torn down first.
    """
    from django.db import connection

    from federation import ledger_guard

    ledger_guard.remove(connection)
    ledger_guard.install(connection)
    yield
    ledger_guard.remove(connection)


@pytest.fixture
def tasks_at_once() -> Iterator[None]:
    """A task that hands others out has them done on the spot, as one worker would do later."""
    from broker.celery import app

    before = app.conf.task_always_eager
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    yield
    app.conf.update(task_always_eager=before, task_eager_propagates=False)
