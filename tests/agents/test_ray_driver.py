"""The Ray driver beside a stand-in for the head: the contract on one host and across two, and what
a head, a node or a shared folder can do to a job. The real head: `make test-ray`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from agents.clock import Clock, SystemClock, boot_id
from agents.config import Config
from agents.drivers import processes
from agents.drivers.base import Driver, Handle, Phase
from agents.drivers.ray.driver import RayDriver, make, state_id
from agents.drivers.ray.folder import AttemptFolder, Pulse
from agents.drivers.ray.server import RayServer
from agents.drivers.ray.sight import SLACK_S, STALE_S, Sight
from agents.drivers.ray.watch import HANG_S
from agents.errors import ConfigError, DriverFailed
from agents.protocol import EndReason
from tests.agents.driver_contract import RunsCommands, over, samples, text
from tests.agents.making import a_config, a_task, alive, kill_guard, steps, until
from tests.agents.ray_stub import FIXTURE, RayStub, ShiftedClock, conversation, serving

T = TypeVar("T")
ELSEWHERE = "another-boot"
CHILD = "setsid sleep 600 & echo $! > child; while :; do sleep 0.1; done"


class StubBench:
    begin_s = 2.0
    late_s = 1.0

    def __init__(self, stub: RayStub, folder: Path, *, elsewhere: bool = False, **own: Any) -> None:
        self.stub = stub
        self.work = folder / "shared" / "work"
        self.root = folder / "shared" / "work.attempts" / "birch"
        self.clock: Clock = ShiftedClock(5000.0) if elsewhere else SystemClock()
        self.boot = ELSEWHERE if elsewhere else boot_id()
        self.config = ray_config(folder, stub.url, **own)
        self.driver: Driver = self.restarted()

    def restarted(self) -> RayDriver:
        return RayDriver(
            root=self.root,
            site="birch",
            settings=self.config.driver,
            ray=self.config.driver.own,
            server=RayServer(self.config.driver.own.address, clock=self.clock),
            clock=self.clock,
            pools=("a100",),
            boot=self.boot,
        )

    def now(self) -> float:
        return self.clock.boottime()

    def until(self, found: Callable[[], T], seconds: float = 15.0) -> T:
        """As in an agent's loop: a guard that waits for the fence in its clock is answered."""

        def look() -> T:
            for path in self.root.iterdir():
                renewal = AttemptFolder(path).renewal()
                if renewal is not None and renewal["boot"] == ELSEWHERE:
                    self.driver.poll(Handle(path.name, "", 0.0))
            return found()

        return until(look, seconds)

    def folder(self, attempt: str = "a1") -> AttemptFolder:
        return AttemptFolder(self.root / attempt)

    def guards(self, attempt: str = "a1") -> tuple[int, int]:
        """Keeper and guard."""
        claim = until(self.folder(attempt).identity)
        inner = until(lambda: [p for p in processes.everybody() if p.parent == claim.pid])
        return claim.pid, inner[0].pid

    def close(self) -> None:
        for folder in self.root.iterdir():
            if folder.is_dir():
                kill_guard(folder)


def ray_config(folder: Path, address: str, **own: Any) -> Config:
    driver = {"kind": "ray", "address": address, "work": "shared/work", "look_s": 0.1, **own}
    pools = [{"name": "a100", "gpu": "A100", "gpus": 4, "reserve": "1.20"}]
    return a_config(folder, driver=driver, pools=pools)


@pytest.fixture
def stub() -> Iterator[RayStub]:
    with serving(RayStub(resources={"accelerator_type:A100": 1.0})) as found:
        yield found


@pytest.fixture
def make_bench(stub: RayStub, tmp_path: Path) -> Iterator[Callable[..., StubBench]]:
    made: list[StubBench] = []

    def build(**own: Any) -> StubBench:
        made.append(StubBench(stub, tmp_path, **own))
        return made[-1]

    yield build
    for bench in made:
        bench.close()


@pytest.fixture(params=["here", "elsewhere"])
def bench(request: pytest.FixtureRequest, make_bench: Callable[..., StubBench]) -> StubBench:
    """Agent and node on one host, and on two whose clocks have nothing in common."""
    return make_bench(elsewhere=request.param == "elsewhere")


@pytest.fixture
def here(make_bench: Callable[..., StubBench]) -> StubBench:
    return make_bench()


@pytest.fixture
def far(make_bench: Callable[..., StubBench]) -> StubBench:
    return make_bench(elsewhere=True)


class TestRay(RunsCommands):
    """Its bench is above."""


def test_the_stand_in_answers_as_a_real_head_was_recorded(stub: RayStub) -> None:
    stub.totals["object_store_memory"] = 1.0
    with httpx.Client(base_url=stub.url, trust_env=False) as client:

        def ask(method: str, path: str, body: Any) -> tuple[int, str]:
            answer = client.request(method, path, json=body)
            return answer.status_code, answer.text

        assert conversation(ask) == json.loads(FIXTURE.read_text())


# -- starting once --------------------------------------------------------------------------------


def test_a_submission_whose_answer_is_lost_is_taken_back_or_runs_once(
    here: StubBench, stub: RayStub
) -> None:
    stub.answer_with = lambda method, path, status, told: (
        None if (method, path) == ("POST", "/api/jobs/") else (status, told)
    )
    with pytest.raises(DriverFailed, match="does not answer"):
        here.driver.start(a_task(command="touch ran"))
    stub.answer_with = None
    assert len(stub.submitted) == 1
    job = stub.jobs["hanse-a1"]
    until(lambda: job.status == "FAILED")  # its guard found the folder taken
    assert not (here.work / "job-a1" / "ran").exists()
    assert here.driver.readopt("a1") is None


def test_a_guard_that_was_faster_than_a_lost_answer_keeps_its_job(
    here: StubBench, stub: RayStub
) -> None:
    def lost(method: str, path: str, status: int, told: str) -> tuple[int, str] | None:
        if (method, path) != ("POST", "/api/jobs/"):
            return status, told
        until(here.folder().identity)
        return None

    stub.answer_with = lost
    handle = here.driver.start(a_task(command="echo ran"))
    stub.answer_with = None
    assert over(here, handle).exit_code == 0
    assert text(here.driver) == "ran\n"


def test_another_owners_job_of_the_same_name_is_left_alone(
    here: StubBench, make_bench: Callable[..., StubBench], tmp_path: Path
) -> None:
    (tmp_path / "twin").mkdir()
    twin = StubBench(here.stub, tmp_path / "twin")
    handle = here.driver.start(a_task(command=steps(10_000)))
    until(lambda: samples(here.driver))
    with pytest.raises(DriverFailed, match="already exists"):
        twin.driver.start(a_task(command="touch ran"))
    twin.driver.cleanup("a1")
    due = twin.now() + 4.0
    until(lambda: twin.now() > due)
    twin.driver.cleanup("a1")  # what it would delete is due by now
    assert here.stub.jobs["hanse-a1"].status == "RUNNING"
    assert here.driver.poll(handle).phase is Phase.RUNNING
    assert twin.driver.known() == frozenset()


def test_an_agent_that_died_while_it_submitted_finds_nothing_running(here: StubBench) -> None:
    folder = here.folder()
    folder.path.mkdir()
    assert here.driver.readopt("a1") is None
    assert not folder.withdraw(boot="", now=0.0)  # a late guard finds it taken
    assert here.driver.readopt("a1") is None


def test_a_head_that_is_away_starts_nothing(here: StubBench, stub: RayStub) -> None:
    stub.answer_with = lambda *_: None
    with pytest.raises(DriverFailed, match="does not answer"):
        here.driver.start(a_task())
    assert here.driver.known() == frozenset()
    with pytest.raises(DriverFailed):
        here.driver.capacity()


def test_something_else_at_the_address_is_no_head(here: StubBench, stub: RayStub) -> None:
    stub.answer_with = lambda *_: (200, "<html>")
    with pytest.raises(DriverFailed, match="not Ray"):
        here.driver.capacity()


def test_what_ray_does_not_start_in_time_is_given_up(make_bench: Callable[..., StubBench]) -> None:
    bench = make_bench(start_within_s=0.3)
    running = bench.driver.start(a_task("a1", command=steps(10_000), gpus=4))
    until(lambda: samples(bench.driver, "a1"))
    waiting = bench.driver.start(a_task("a2", command="touch ran"))
    end = over(bench, waiting)
    assert end.reason is EndReason.DRIVER_FAILED
    assert end.message == "Ray did not start the job within 0.3 s"
    bench.driver.stop(running, grace_s=0.0, reason=EndReason.REVOKED, why="")
    until(lambda: bench.stub.jobs["hanse-a2"].status != "PENDING")
    over(bench, running)
    assert not (bench.work / "job-a2" / "ran").exists()


def test_a_head_that_lost_its_queue_is_noticed(here: StubBench, stub: RayStub) -> None:
    here.driver.start(a_task("a1", command=steps(10_000), gpus=4))
    waiting = here.driver.start(a_task("a2"))
    with stub.lock:
        del stub.jobs["hanse-a2"]
    end = over(here, waiting)
    assert end.reason is EndReason.DRIVER_FAILED
    assert "was its head restarted?" in end.message


def test_a_job_too_large_for_any_node_says_so(here: StubBench) -> None:
    with pytest.raises(DriverFailed, match=r"asks for 5 GPUs of pool a100.* holds 4"):
        here.driver.start(a_task(gpus=5))


# -- the fence and the end ------------------------------------------------------------------------


def test_a_guard_on_another_host_waits_for_the_fence_in_its_own_clock(far: StubBench) -> None:
    handle = far.driver.start(a_task(command="echo ran", fence_at=far.now() + 600))
    until(far.folder().pulse)
    renewal = far.folder().renewal()
    assert renewal is not None
    assert renewal["boot"] == ELSEWHERE
    assert text(far.driver) == ""  # nobody has answered its clock
    status = far.driver.poll(handle)
    assert status.phase is Phase.RUNNING
    assert over(far, handle).exit_code == 0
    told = far.folder().renewal()
    assert told is not None
    assert told["boot"] == boot_id()
    assert told["fence_at"] <= SystemClock().boottime() + 600


def test_a_guard_that_is_never_answered_never_starts_its_job(far: StubBench) -> None:
    far.driver.start(a_task(command="touch ran", fence_at=far.now() + 1.0))
    record = until(far.folder().over)
    assert (record["reason"], record["exit_code"]) == ("fenced", None)
    assert not (far.work / "job-a1" / "ran").exists()


def test_its_times_are_told_in_the_agents_clock(far: StubBench) -> None:
    handle = far.driver.start(a_task(command="sleep 0.3"))
    until(lambda: far.driver.poll(handle).phase is Phase.OVER)
    status = far.driver.poll(handle)
    assert status.exit is not None
    assert status.held_since is not None
    assert status.exit.ended is not None
    assert handle.started <= status.held_since <= status.exit.ended <= far.now()
    assert abs(status.ahead_s + 5000.0) < 2 * SLACK_S


def test_a_pulse_never_moves_a_fence_too_far() -> None:
    true_offset, delay = 5000.0, 7.0
    sight = Sight(Pulse("node", 100.0, 50.0), changed=100.0 + true_offset + delay, monotonic=90.0)
    assert sight.offset("agent") == true_offset + delay
    assert sight.offset("node") == 0.0
    assert not sight.silent(sight.changed + STALE_S)
    assert sight.silent(sight.changed + STALE_S + 0.1)


def test_a_node_that_is_silent_counts_as_lost_only_after_its_fence(far: StubBench) -> None:
    """Its guard may live on without us: nothing may start elsewhere before it has ended itself."""
    fence = far.now() + 100.0
    handle = far.driver.start(a_task(command=steps(10_000), fence_at=fence))
    until(lambda: far.driver.poll(handle).phase is Phase.RUNNING and samples(far.driver))
    keeper, inner = far.guards()
    child = until(lambda: [p.pid for p in processes.everybody() if p.parent == inner])[0]
    with far.stub.lock:
        far.stub.jobs.clear()  # the head has lost it too
    for pid in (keeper, inner):
        os.kill(pid, signal.SIGSTOP)
    assert isinstance(far.clock, ShiftedClock)
    far.clock.ahead_s += STALE_S + 1.0
    assert far.driver.poll(handle).phase is Phase.RUNNING
    far.driver.renew(handle, fence + 1000.0)  # the silent are told nothing
    far.clock.ahead_s += 100.0 - STALE_S
    assert far.driver.poll(handle).phase is Phase.RUNNING
    far.clock.ahead_s += HANG_S + 5.0
    end = far.driver.poll(handle).exit
    assert end is not None
    assert end.reason is EndReason.LOST
    for pid in (keeper, inner):
        os.kill(pid, signal.SIGCONT)
    assert alive(child)  # it was this test that stopped the guards; they are ended with the bench


def test_a_keeper_that_ray_saw_end_needs_no_record(far: StubBench) -> None:
    """The share was full at the last moment: no record, and yet no doubt."""
    handle = far.driver.start(a_task(command="exit 3"))
    until(lambda: far.driver.poll(handle).phase is Phase.OVER)
    until(lambda: far.stub.jobs["hanse-a1"].status == "FAILED")  # it has read its own record
    (far.folder().path / "exit.json").unlink()
    assert isinstance(far.clock, ShiftedClock)
    assert far.driver.poll(handle).phase is Phase.RUNNING
    far.clock.ahead_s += STALE_S + 1.0
    end = over(far, handle)
    assert end.reason is EndReason.LOST
    assert "failed with exit code 3" in end.message


def test_a_guard_that_hangs_is_ended_by_its_keeper_soon_after_the_fence(here: StubBench) -> None:
    """As on a share that answers no more: the guard is stuck, the keeper needs no file."""
    handle = here.driver.start(a_task(command=CHILD, fence_at=here.now() + 3.0))
    file = here.work / "job-a1" / "child"
    child = int(until(lambda: file.exists() and file.read_text().strip()))
    _, inner = here.guards()
    os.kill(inner, signal.SIGSTOP)
    until(lambda: not alive(child), 3.0 + HANG_S + 5.0)
    end = over(here, handle)
    assert end.reason is EndReason.FENCED
    assert "hung" in end.message


def test_what_is_written_again_and_again_needs_no_room(here: StubBench) -> None:
    handle = here.driver.start(a_task(command=CHILD))
    files = [here.folder().path / name for name in ("renewal.json", "pulse.json")]
    until(lambda: all(file.exists() for file in files))
    first = here.folder().pulse()
    before = [file.stat() for file in files]
    here.driver.renew(handle, here.now() + 50_000.0)
    until(lambda: here.folder().pulse() not in (None, first))
    assert [(s.st_ino, s.st_size) for s in before] == [
        (file.stat().st_ino, file.stat().st_size) for file in files
    ]


def test_a_stop_that_cannot_be_written_down_goes_through_ray(here: StubBench) -> None:
    handle = here.driver.start(a_task(command=steps(10_000)))
    until(lambda: samples(here.driver))
    (here.folder().path / "stop.json.new").mkdir()  # as on a full disk: the write fails
    here.driver.stop(handle, grace_s=1.0, reason=EndReason.REVOKED, why="outbid")
    assert over(here, handle).reason is EndReason.DRIVER_FAILED


def test_taken_back_without_room_for_a_record_is_still_over(here: StubBench) -> None:
    here.driver.start(a_task("a1", command=steps(10_000), gpus=4))
    until(lambda: samples(here.driver, "a1"))
    handle = here.driver.start(a_task("a2"))
    folder = here.folder("a2")
    (folder.path / "exit.json.new").mkdir()
    here.driver.stop(handle, grace_s=1.0, reason=EndReason.REVOKED, why="outbid")
    end = here.driver.poll(handle).exit
    assert end is not None
    assert (end.reason, end.message) == (EndReason.REVOKED, "outbid")


@pytest.mark.parametrize("whom", ["keeper", "guard", "both"])
def test_nothing_is_left_when_its_guardians_are_killed(here: StubBench, whom: str) -> None:
    handle = here.driver.start(a_task(command=CHILD))
    file = here.work / "job-a1" / "child"
    child = int(until(lambda: file.exists() and file.read_text().strip()))
    keeper, inner = here.guards()
    for pid in {"keeper": [keeper], "guard": [inner], "both": [keeper, inner]}[whom]:
        os.kill(pid, signal.SIGKILL)
    assert over(here, handle).reason is EndReason.LOST
    until(lambda: not alive(child))


def test_ended_submissions_leave_rays_list(here: StubBench, stub: RayStub) -> None:
    handle = here.driver.start(a_task())
    over(here, handle)
    here.driver.cleanup("a1")
    assert here.driver.known() == frozenset()
    assert "hanse-a1" in stub.jobs  # a little later: see `leftover`
    again = here.driver.start(a_task("a2"))
    until(lambda: here.driver.poll(again) and "hanse-a1" not in stub.jobs)


def test_a_job_of_ours_without_a_folder_is_found_and_ended(here: StubBench, stub: RayStub) -> None:
    handle = here.driver.start(a_task(command=steps(10_000)))
    until(lambda: samples(here.driver))
    spec = here.folder().spec()
    here.driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="")
    over(here, handle)
    here.folder().remove()
    here.driver = here.restarted()
    assert spec
    assert here.driver.known() == {"a1"}
    assert here.driver.readopt("a1") is None
    here.driver.cleanup("a1")
    until(lambda: (here.driver.cleanup("a1"), "hanse-a1" not in stub.jobs)[1])


# -- configuration --------------------------------------------------------------------------------


def test_the_configuration_is_read_strictly(tmp_path: Path) -> None:
    for own, why in (
        ({"address": "head:8265"}, "an address such as"),
        ({"address": "http://head:8265", "token_file": "t"}, "would show the token"),
        ({"pools": {"b200": {}}}, "no pool is called b200"),
        ({"pools": {"a100": {"resources": {"GPU": 1}}}}, "follows from the lease"),
        ({"prefix": "a b"}, "letters, digits"),
        ({"colour": "red"}, "unknown key"),
        ({"pin_cpus": True}, "driver.pin_cpus: Ray picks the node"),
    ):
        with pytest.raises(ConfigError, match=why):
            ray_config(tmp_path, **{"address": "http://127.0.0.1:1", **own})
    config = ray_config(
        tmp_path,
        "http://127.0.0.1:1/",
        pools={"a100": {"accelerator": "A100", "resources": {"x": 2}}},
    )
    assert config.driver.own.address == "http://127.0.0.1:1"
    assert config.driver.own.resources == {"a100": {"x": 2.0, "accelerator_type:A100": 0.001}}


def test_what_ray_decides_cannot_be_configured(tmp_path: Path) -> None:
    pool = {"name": "a100", "gpu": "A100", "gpus": 1, "reserve": "1", "devices": ["0"]}
    with pytest.raises(ConfigError, match="Ray picks the GPUs"):
        a_config(tmp_path, driver={"kind": "ray", "work": "w"}, pools=[pool])
    with pytest.raises(ConfigError, match="all nodes of Ray and the agent share"):
        a_config(tmp_path, driver={"kind": "ray"})


def test_attempts_lie_beside_the_work_apart_for_each_agent(tmp_path: Path) -> None:
    config = ray_config(tmp_path, "http://127.0.0.1:1")
    made = make(config, config.state / "attempts", "birch", SystemClock())
    assert isinstance(made, RayDriver)
    name = state_id(config.state)
    assert state_id(config.state) == name != state_id(tmp_path / "other")
    assert (tmp_path / "shared" / "work.attempts" / name / "attempts").is_dir()


def test_a_token_goes_along(stub: RayStub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    config = ray_config(tmp_path, stub.url, token_file="token")
    driver = make(config, config.state / "attempts", "birch", SystemClock())
    driver.capacity()
    assert stub.tokens == {"Bearer secret"}


def test_capacity_and_kinds_come_from_living_nodes(here: StubBench) -> None:
    assert here.driver.capacity().cores == 8
    assert here.driver.capacity().memory_bytes == 2**34
    assert here.restarted().kinds() == {"A100": (4, 4)}


def test_local_users_come_first(here: StubBench, stub: RayStub) -> None:
    local = {"submission_id": "local", "entrypoint": "sleep 600", "entrypoint_num_gpus": 1}
    stub.answer("POST", "/api/jobs/", local)
    until(lambda: stub.jobs["local"].status == "RUNNING")
    handle = here.driver.start(a_task(command=steps(10_000), gpus=2))
    until(lambda: samples(here.driver))
    stub.answer("POST", "/api/jobs/", {**local, "submission_id": "next", "entrypoint_num_gpus": 2})
    here.driver.start(a_task("a2", gpus=2))  # waits too, but is nobody's but ours
    pool = here.restarted().supply().pools["a100"]
    assert (pool.gpus, pool.gpus_per_node, pool.used, pool.ours) == (4, 4, 3, 2)
    assert (pool.waiting, pool.left) == (2, 1)
    here.driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="")
    over(here, handle)


def test_a_handle_of_nothing_is_harmless(here: StubBench) -> None:
    ghost = Handle("ghost", "hanse-ghost", 0.0)
    here.driver.renew(ghost, 1.0)
    here.driver.stop(ghost, grace_s=0.0, reason=EndReason.REVOKED, why="")
    here.driver.cleanup("ghost")
    assert here.driver.logs("ghost", 0, 10).data == b""
