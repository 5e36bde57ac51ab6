"""A fake broker on loopback and a real agent beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents.fake_broker import FakeBroker, serving
from tests.agents.making import AgentProcess


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with serving(FakeBroker()) as found:
        yield found


@pytest.fixture
def make_agent(tmp_path: Path, broker: FakeBroker) -> Iterator[Callable[..., AgentProcess]]:
    made: list[AgentProcess] = []

    def make(**changes: Any) -> AgentProcess:
        agent = AgentProcess(tmp_path, broker.url, **changes)
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def agent(make_agent: Callable[..., AgentProcess]) -> AgentProcess:
    started = make_agent()
    started.start()
    return started
