"""A Kubernetes driver in virtual time beside a stub of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.clock import VirtualClock
from agents.drivers.base import Exit, Handle
from agents.drivers.kubernetes.driver import KubernetesDriver
from tests.agents.kubernetes_stub import (
    Stub,
    kubeconfig,
    serving,
)
from tests.agents.making import a_config, a_task

Json = dict[str, Any]
POOLS = [{"name": "a100", "gpu": "A100", "gpus": 64, "reserve": "1.20"}]
AHEAD = 500_000.0  #: seconds that the nodes have been up longer than we


class Bench:
    def __init__(self, stub: Stub, folder: Path, **own: Any) -> None:
        self.stub = stub
        self.folder = folder
        self.clock = VirtualClock()
        values: Json = {"image": "i:1", "kubeconfig": str(kubeconfig(folder, stub.url, stub.token))}
        values |= {"namespace": "hanse-jobs", "look_s": 0.5, **own}
        self.config = a_config(folder, pools=POOLS, driver={"kind": "kubernetes", **values})
        self.drivers: list[KubernetesDriver] = []
        self.driver = self.make()

    def make(self, root: str = "attempts") -> KubernetesDriver:
        self.driver = KubernetesDriver(
            root=self.folder / root,
            site="birch",
            settings=self.config.driver,
            clock=self.clock,
            boot="boot-1",
        )
        self.drivers.append(self.driver)
        return self.driver

    def close(self) -> None:
        for driver in self.drivers:
            driver.close()

    def start(self, attempt: str = "a1", *, fence_s: float = 600.0, **changes: Any) -> Handle:
        fence = self.clock.boottime() + fence_s
        handle = self.driver.start(a_task(attempt, fence_at=fence, **changes))
        self.clock.advance(1.0)
        return handle

    def begun(self, attempt: str = "a1", **changes: Any) -> Handle:
        handle = self.start(attempt, **changes)
        self.stub.begin(attempt, clock=self.clock.boottime() + AHEAD)
        assert self.look(handle) is None
        return handle

    def look(self, handle: Handle, seconds: float = 1.0) -> Exit | None:
        self.clock.advance(seconds)
        return self.driver.poll(handle).exit

    def end(self, handle: Handle, code: int, words: str, **terminated: Any) -> Exit:
        self.stub.end(handle.attempt, code, words, **terminated)
        over = self.look(handle)
        assert over is not None
        return over


@contextmanager
def benches(folder: Path) -> Iterator[Callable[..., Bench]]:
    """Makes drivers beside one server; they are closed at the end."""
    made: list[Bench] = []
    with serving(Stub()) as stub:

        def one(minor: int = 20, **own: Any) -> Bench:
            stub.minor = minor
            made.append(Bench(stub, folder, **own))
            return made[-1]

        yield one
        for bench in made:
            bench.close()
