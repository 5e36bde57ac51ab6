"""What of the Slurm driver needs no Slurm: answers, verdicts, the fence, the words for sbatch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.config import Config
from agents.drivers.base import Exit
from agents.drivers.slurm import answers, fence, submission
from agents.drivers.slurm.answers import JobSeen
from agents.drivers.slurm.command import complaint
from agents.drivers.slurm.fence import LAG_S, Fence
from agents.drivers.slurm.settings import PoolSettings
from agents.drivers.slurm.states import Evidence, Silence, hopeless, verdict
from agents.drivers.slurm.supply import pool_supply
from agents.errors import ConfigError, DriverFailed
from agents.protocol import EndReason
from tests.agents.making import a_config, a_task

RECORDED = Path(__file__).parent / "recorded"
QUEUE = (RECORDED / "squeue-22.05.json").read_text()
NODES = (RECORDED / "nodes-22.05.json").read_text()
NUMBERS = frozenset(
    {"exit_code", "time_limit", "start_time", "node_count", "tasks", "array_job_id"}
)


def newer(text: str, name: str, state: str) -> str:
    """The same answer in the shape of 23.02 and later."""
    value = json.loads(text)
    for item in value[name]:
        for key in NUMBERS & item.keys():
            item[key] = {"set": item[key] is not None, "infinite": False, "number": item[key] or 0}
        item[state] = [item[state].upper()]
    return json.dumps(value)


# -- answers --------------------------------------------------------------------------------------


def test_both_shapes_of_json_say_the_same() -> None:
    [ours, other] = answers.jobs(QUEUE)
    assert ours == JobSeen(1, "hanse-x1", frozenset({"RUNNING"}), "None", "root", "gpu", gpus=2)
    assert (other.states, other.reason, other.gpus) == ({"PENDING"}, "Resources", 2)
    assert answers.jobs(newer(QUEUE, "jobs", "job_state")) == [ours, other]
    nodes = answers.nodes(NODES)
    assert [(node.name, node.gpus, node.gpus_used) for node in nodes] == [
        ("elm-n1", {"a100": 2}, {"a100": 1}),
        ("elm-n2", {"a100": 2}, {"a100": 1}),
    ]
    assert answers.nodes(newer(NODES, "nodes", "state")) == nodes


@pytest.mark.parametrize("text", ["", "null", "[]", '{"jobs": 3}', '{"jobs": [1]}', "slurm: error"])
def test_what_is_no_answer_is_told_apart(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own is one too
        answers.jobs(text)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:(null):4(IDX:0-3)", {"": 4}),
        ("gpu:2", {"": 2}),
        ("gpu:1080ti:1(IDX:0),gpu:980gtx:1(IDX:1)", {"1080ti": 1, "980gtx": 1}),
        ("gpu:a100:0(IDX:N/A)", {"a100": 0}),
        ("gres:gpu:a100:2", {"a100": 2}),
        ("cpu=2,mem=200M,gres/gpu=2,gres/gpu:a100=2", {"": 2, "a100": 2}),
        ("gpu", {"": 1}),
        ("craynetwork:4,shard:8", {}),
        ("(null)", {}),
        ("N/A", {}),
        ("", {}),
    ],
)
def test_gres_is_read_as_slurm_writes_it(text: str, counts: dict[str, int]) -> None:
    assert answers.gpus(text) == counts


@given(st.text(max_size=60))
def test_no_gres_text_is_a_surprise(text: str) -> None:
    assert all(count >= 0 for count in answers.gpus(text).values())


def test_text_is_read_where_there_is_no_json() -> None:
    line = "17|PENDING|Resources|alice|gpu|2|gres:gpu:a100:2|a|name|with|bars"
    [seen] = answers.jobs_of_text(f"{line}\nsomething else\n")
    assert seen == JobSeen(
        17, "a|name|with|bars", frozenset({"PENDING"}), "Resources", "alice", "gpu", 4
    )
    words = "NodeName=n1 CPUTot=8 RealMemory=16000 Gres=gpu:a100:2 GresUsed=gpu:a100:1(IDX:0)"
    [up] = answers.nodes_of_text(f"{words} State=MIXED+CLOUD Partitions=gpu,local ")
    assert (up.gpus, up.gpus_used, up.cores, up.available) == ({"a100": 2}, {"a100": 1}, 8, True)
    assert up.partitions == {"gpu", "local"}
    [down] = answers.nodes_of_text("NodeName=n2 State=IDLE* Gres=(null)")
    assert not down.available


def test_times_and_limits_of_partitions() -> None:
    text = "PartitionName=gpu Default=YES MaxTime=1-02:00:00\nPartitionName=b MaxTime=UNLIMITED"
    assert answers.partition_limits(text) == {"gpu": 93600.0, "": 93600.0, "b": None}
    assert answers.seconds("04:05") == 245.0


def test_accounting_names_the_state_without_who_did_it() -> None:
    assert answers.states_of_accounting("CANCELLED by 1000\n") == {"CANCELLED"}
    assert answers.states_of_accounting("\n") == frozenset()


def test_a_complaint_is_slurms_sentence_alone() -> None:
    text = "sbatch: error: Batch job submission failed: Invalid account or account/partition\n"
    assert (
        complaint(text * 2) == "Batch job submission failed: Invalid account or account/partition"
    )


def test_the_supply_is_what_local_users_leave() -> None:
    pool = PoolSettings(gres="gpu:a100", partition="gpu")
    jobs = [
        *answers.jobs(QUEUE),
        JobSeen(9, "held", frozenset({"PENDING"}), "JobHeldUser", partition="gpu", gpus=2),
    ]
    found = pool_supply(pool, answers.nodes(NODES), jobs)
    assert (found.gpus, found.used, found.ours, found.waiting, found.left) == (4, 2, 2, 2, 2)
    assert pool_supply(PoolSettings(gres="gpu:h100"), answers.nodes(NODES), jobs).gpus == 0


# -- verdicts -------------------------------------------------------------------------------------


def evidence(**changes: Any) -> Evidence:
    values: dict[str, Any] = {
        "record": None,
        "claimed": True,
        "seen": Silence.UNKNOWN,
        "settled": True,
        "fence_passed": False,
        "others_ended": True,
        "stop": None,
    }
    return Evidence(**{**values, **changes})


def job(*states: str, reason: str = "") -> JobSeen:
    return JobSeen(1, "hanse-a1", frozenset(states), reason)


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("TIMEOUT", EndReason.RUNTIME_LIMIT, None),
        ("DEADLINE", EndReason.RUNTIME_LIMIT, None),
        ("OUT_OF_MEMORY", EndReason.EXITED, 137),
        ("PREEMPTED", EndReason.DRIVER_FAILED, None),
        ("CANCELLED", EndReason.DRIVER_FAILED, None),
        ("BOOT_FAIL", EndReason.DRIVER_FAILED, None),
        ("FAILED", EndReason.LOST, None),
        ("COMPLETED", EndReason.LOST, None),
    ],
)
def test_slurms_word_when_the_guard_left_none(
    state: str, reason: EndReason, code: int | None
) -> None:
    claimed = state != "BOOT_FAIL"
    end = verdict(evidence(seen=job(state), claimed=claimed))
    assert end is not None
    assert (end.reason, end.exit_code) == (reason, code)
    assert end.message
    assert verdict(evidence(seen=job(state), claimed=claimed, settled=False)) is None
    assert verdict(evidence(seen=job(state, "COMPLETING"), claimed=claimed)) is None


@pytest.mark.parametrize("seen", [job("NODE_FAIL"), Silence.ABSENT])
def test_what_may_still_run_is_over_at_its_fence(seen: JobSeen | Silence) -> None:
    assert verdict(evidence(seen=seen)) is None
    end = verdict(evidence(seen=seen, fence_passed=True))
    assert end is not None
    assert end.reason is EndReason.LOST
    never = verdict(evidence(seen=Silence.ABSENT, claimed=False))
    assert never is not None
    assert never.reason is EndReason.DRIVER_FAILED


def test_silence_decides_nothing() -> None:
    assert verdict(evidence(fence_passed=True)) is None


def test_the_guards_record_counts_once_all_nodes_have_ended() -> None:
    record = Exit(EndReason.EXITED, 3)
    assert verdict(evidence(record=record)) == record
    assert verdict(evidence(record=record, others_ended=False, seen=job("RUNNING"))) is None
    assert verdict(evidence(record=record, others_ended=False, seen=job("FAILED"))) == record
    assert verdict(evidence(record=record, others_ended=False, seen=job("NODE_FAIL"))) is None
    passed = evidence(record=record, others_ended=False, seen=job("NODE_FAIL"), fence_passed=True)
    assert verdict(passed) == record


@pytest.mark.parametrize("state", ["PREEMPTED", "CANCELLED", "TIMEOUT", "NODE_FAIL"])
def test_who_told_the_guard_to_stop_is_slurms_to_say(state: str) -> None:
    told = Exit(EndReason.DRIVER_FAILED, 143, "the guard was told to stop on this host", 7.0)
    assert verdict(evidence(record=told, seen=job("COMPLETING"), settled=False)) is None
    end = verdict(evidence(record=told, seen=job(state)))
    alone = verdict(evidence(seen=job(state), fence_passed=True))
    assert end is not None
    assert alone is not None
    assert (end.reason, end.message, end.ended) == (alone.reason, alone.message, 7.0)


def test_a_kill_is_memory_when_slurm_says_so() -> None:
    killed = Exit(EndReason.EXITED, 137, "ended by signal 9")
    memory = verdict(evidence(record=killed, seen=job("OUT_OF_MEMORY")))
    assert memory is not None
    assert "memory" in memory.message
    assert verdict(evidence(record=killed, seen=job("FAILED"))) == killed


def test_a_wish_of_the_broker_is_the_reason_it_ended() -> None:
    stop = (EndReason.REVOKED, "outbid")
    end = verdict(evidence(seen=job("CANCELLED"), stop=stop, claimed=False))
    assert end == Exit(EndReason.REVOKED, message="outbid")


@pytest.mark.parametrize(
    ("reason", "never"),
    [
        ("PartitionTimeLimit", True),
        ("AssocMaxWallDurationPerJobLimit", True),
        ("QOSMaxGRESPerJob", True),
        ("AccountNotAllowed", True),
        ("JobHeldAdmin", True),
        ("Resources", False),
        ("Priority", False),
        ("QOSMaxJobsPerUserLimit", False),
        ("AssocGrpGRES", False),
        ("ReqNodeNotAvail", False),
    ],
)
def test_waits_without_hope_are_told_from_the_others(reason: str, never: bool) -> None:
    assert hopeless(job("PENDING", reason=reason)) is never
    assert not hopeless(job("RUNNING", reason=reason))


# -- the fence ------------------------------------------------------------------------------------


def test_on_the_agents_host_the_fence_is_its_moment() -> None:
    renewal = fence.renewal(500.0, now=400.0, boot="b")
    found = Fence(0.0).read(renewal, now=450.0, boot="b", age_s=lambda: 1e9)
    assert found.at == 500.0


@given(st.floats(0, 1000), st.floats(-1e6, 1e6))
def test_on_another_host_neither_clock_has_to_be_right(age: float, node: float) -> None:
    """The agent's boottime is 400 at writing; the node's differs by `node`."""
    renewal = fence.renewal(500.0, now=400.0, boot="agent")
    now = 400.0 + age + node
    found = Fence(now).read(renewal, now=now, boot="node", age_s=lambda: age)
    assert found.at - node == pytest.approx(500.0, abs=1e-6)


@given(st.floats(-1e5, 1e5), st.floats(0, 5))
def test_a_clock_set_in_mid_job_moves_the_fence_by_the_lag_at_most(step: float, age: float) -> None:
    first = fence.renewal(500.0, now=400.0, boot="agent")
    found = Fence(0.0).read(first, now=1000.0, boot="node", age_s=lambda: 0.0)
    found = found.read(first, now=1010.0, boot="node", age_s=lambda: 1e9)
    assert found.at == 1100.0  # the same renewal is not judged again
    second = fence.renewal(550.0, now=411.0, boot="agent")
    moved = found.read(second, now=1011.0 + age, boot="node", age_s=lambda: age + step)
    assert 1150.0 - LAG_S - 1.0 <= moved.at <= 1150.0 + age + 1e-6


# -- words for sbatch -----------------------------------------------------------------------------


def slurm(folder: Path, **driver: Any) -> Config:
    return a_config(folder, driver={"kind": "slurm", "shared": "shared", **driver})


def words(config: Config, **changes: Any) -> list[str]:
    return submission.words(
        a_task(**changes),
        settings=config.driver,
        slurm=config.driver.own,
        folder=Path("/s/a1"),
        code=Path("/s/code"),
        longest_s=changes.pop("longest_s", None),
    )


def test_a_task_becomes_words(tmp_path: Path) -> None:
    config = slurm(
        tmp_path,
        pools={"a100": {"gres": "gpu:a100", "gpus_per_node": 4, "partition": "p", "qos": "low"}},
        accounts={"alder": "proj-17"},
        account="federation",
        threads_per_gpu=8,
        memory_mb_per_gpu=1000,
        options=["--reservation=hanse"],
    )
    found = words(config, gpus=8, tenant="alder", max_runtime_s=3600.0, grace_s=30.0)
    for word in (
        *("--nodes=2", "--gres=gpu:a100:4", "--cpus-per-task=32", "--mem=4000M", "--no-requeue"),
        *("--partition=p", "--qos=low", "--account=proj-17", "--reservation=hanse"),
        *("--job-name=hanse-a1", "--comment=a1", "--time=62", "--signal=B:TERM@30"),
    ):
        assert word in found
    assert found[-4:] == ["/s/code/batch.py", "/s/code", "/s/a1", "gang"]
    assert "--account=federation" in words(config, tenant="birch")


@pytest.mark.parametrize(
    ("gpus", "nodes", "each"), [(1, 1, 1), (4, 1, 4), (6, 2, 3), (8, 2, 4), (5, 5, 1)]
)
def test_a_gang_has_as_many_gpus_on_each_node(gpus: int, nodes: int, each: int) -> None:
    found = submission.gang(a_task(gpus=gpus), PoolSettings(gpus_per_node=4))
    assert (found.nodes, found.gpus_per_node) == (nodes, each)


def test_slurms_limit_lies_beyond_ours_where_it_can() -> None:
    task = a_task(max_runtime_s=3600.0, grace_s=60.0)
    assert submission.minutes(task, None) == 62
    assert submission.minutes(task, 3600.0) == 60
    with pytest.raises(DriverFailed, match="allows 30"):
        submission.minutes(task, 1800.0)


@pytest.mark.parametrize(
    ("driver", "path", "why"),
    [
        ({"kind": "slurm"}, "driver.shared", "missing"),
        ({"pools": {"b200": {}}}, "driver.pools.b200", "unknown"),
        ({"pools": {"a100": {"gres": "--x"}}}, "driver.pools.a100.gres", "not a name"),
        ({"pools": {"a100": {"gpus_per_node": 0}}}, "driver.pools.a100.gpus_per_node", "least 1"),
        ({"accounts": ["x"]}, "driver.accounts", "mapping"),
        ({"accounts": {"alder": "a b"}}, "driver.accounts.alder", "not a name"),
        ({"options": ["-N4"]}, "driver.options[0]", "long option"),
        ({"options": ["--requeue"]}, "driver.options[0]", "agent's to set"),
        ({"python": "/a b/python"}, "driver.python", "spaces"),
        ({"look_s": 0}, "driver.look_s", "more than zero"),
        ({"sharde": "x"}, "driver.sharde", "unknown"),
    ],
)
def test_mistakes_in_the_settings(
    tmp_path: Path, driver: dict[str, Any], path: str, why: str
) -> None:
    value = driver if "kind" in driver else {"kind": "slurm", "shared": "s", **driver}
    with pytest.raises(ConfigError) as caught:
        a_config(tmp_path, driver=value)
    assert caught.value.path == path
    assert why in caught.value.why


def test_jobs_folders_are_shared_too(tmp_path: Path) -> None:
    assert slurm(tmp_path).driver.work == tmp_path / "shared" / "work"
    assert slurm(tmp_path, work="w").driver.work == tmp_path / "w"
