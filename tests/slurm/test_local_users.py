"""A whole agent beside a real Slurm cluster whose own users come and go: the offer follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.protocol import AttemptState
from tests.agents.fake_broker import FakeBroker, serving
from tests.agents.making import AgentProcess, a_lease, steps_until_told, until
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import SlurmBench

LOCAL = ("--mem=10M", "--output=/dev/null", "--wrap=sleep 600")


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with serving(FakeBroker()) as found:
        yield found


def test_what_local_users_hold_and_wait_for_is_not_on_offer(
    elm: Cluster, broker: FakeBroker, make_bench: Callable[..., SlurmBench], tmp_path: Path
) -> None:
    make_bench(elm)
    elm.ask("sbatch", "--gres=gpu:a100:2", *LOCAL)
    until(lambda: elm.ask("squeue", "--noheader", "--format=%T").split() == ["RUNNING"], 30)
    site = tmp_path / "site"
    site.mkdir()
    driver = {
        "kind": "slurm",
        "shared": str(site / "shared"),
        "conf": str(elm.conf),
        "memory_mb_per_gpu": 500,
        "look_s": 1.0,
        "pools": {"a100": {"gres": "gpu:a100", "gpus_per_node": 2}},
    }
    pools = [{"name": "a100", "gpu": "A100", "gpus": 4, "reserve": "1.20"}]
    agent = AgentProcess(site, broker.url, driver=driver, pools=pools)
    agent.start()
    try:
        until(lambda: broker.offers, 30)
        assert [offer.pools[0].gpus for offer in broker.offers] == [2]
        broker.lease(a_lease(command=steps_until_told(), gpus=2))
        until(lambda: _state(broker, "a1") is AttemptState.RUNNING, 30)
        elm.ask("sbatch", "--gres=gpu:a100:2", *LOCAL)  # it waits: nothing is left beyond our own
        until(lambda: broker.offers[-1].pools[0].gpus == 0, 30)
        assert _state(broker, "a1") is AttemptState.RUNNING  # the broker leaves it where it is
        (site / "shared" / "work" / "job-a1" / "finish").touch()
        until(lambda: broker.end("a1"), 30)
    finally:
        agent.close()


def _state(broker: FakeBroker, attempt: str) -> AttemptState | None:
    if not broker.syncs:
        return None
    return next((s.state for s in broker.syncs[-1].attempts if s.attempt == attempt), None)
