"""`pytest --database=postgres`: run the database tests on a real PostgreSQL and a real Valkey.

The servers are started before Django reads its settings, on free ports, and stopped at the end.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.servers import Postgres, Valkey

_started: list[Any] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["sqlite", "postgres"],
        default="sqlite",
        help="which real database the tests use",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> Any:
    if "--database=postgres" in args:
        postgres, valkey = Postgres(), Valkey()
        postgres.create()
        postgres.start()
        _started.append(postgres.remove)
        valkey.start()
        _started.append(valkey.stop)
        os.environ["HANSE_DATABASE_URL"] = postgres.url
        os.environ["HANSE_REDIS_URL"] = valkey.url
    return (yield)


def pytest_report_header(config: pytest.Config) -> str:
    return f"database: {config.getoption('--database')}"


def pytest_unconfigure(config: pytest.Config) -> None:
    while _started:
        _started.pop()()
