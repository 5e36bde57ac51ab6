"""The driver on a real control plane: start, follow, stop, endings, clean-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents.drivers.base import Phase
from agents.drivers.kubernetes.nodes import GpuKind
from agents.drivers.kubernetes.supply import NodesSupply
from agents.errors import DriverFailed
from agents.protocol import EndReason
from tests.agents.making import steps, steps_until_told
from tests.kubernetes.site import IMAGE, Bench

SAVES = """
trap 'echo "{\\"samples\\": 7}" >> "$HANSE_PROGRESS"; echo saved; exit 0' TERM
echo "{\\"samples\\": 1}" >> "$HANSE_PROGRESS"
while :; do sleep 0.05; done"""
STUBBORN = """
trap '' TERM
echo "{\\"samples\\": 1}" >> "$HANSE_PROGRESS"
while :; do sleep 0.05; done"""


def test_it_runs_to_its_end_with_progress_and_log(bench: Bench) -> None:
    handle = bench.start("a1", command=steps(3), samples_wanted=3)
    assert bench.driver.poll(handle).phase is Phase.RUNNING
    end = bench.over(handle)
    assert (end.reason, end.exit_code, end.message) == (EndReason.EXITED, 0, "")
    assert end.ended is not None
    assert handle.started <= end.ended <= bench.clock.boottime()
    assert bench.samples(handle) == [1, 2, 3]
    assert bench.log("a1") == "step 1\nstep 2\nstep 3\n"
    assert bench.driver.logs("a1", 3, 4).data == b"p 1\n"


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("exit 3", 3, ""),
        ("kill -9 $$", 137, "ended by signal 9"),
        ("no-such-program", 127, ""),
    ],
)
def test_exit_codes_come_through(bench: Bench, command: str, code: int, message: str) -> None:
    end = bench.over(bench.start("a1", command=command))
    assert (end.reason, end.exit_code, end.message) == (EndReason.EXITED, code, message)


def test_words_and_values_reach_the_job_as_they_are(bench: Bench) -> None:
    value = "a $(HANSE_JOB) $$ \"'` ü\n$X $(nothing)"
    words = ("python3", "-c", "import os, sys; print(repr((os.environ['V'], sys.argv[1])))", value)
    bench.over(bench.start("a1", command="", argv=words, env={"V": value}))
    assert bench.log("a1") == repr((value, value)) + "\n"


def test_the_work_folder_is_kept_for_the_jobs_next_attempt(bench: Bench) -> None:
    command = 'cat "$HANSE_CHECKPOINT_DIR/step" 2>/dev/null; echo 5 > "$HANSE_CHECKPOINT_DIR/step"'
    bench.over(bench.start("a1", job="job-1", command=command))
    bench.over(bench.start("a2", job="job-1", command=command))
    assert (bench.log("a1"), bench.log("a2")) == ("", "5\n")


def test_a_stop_gives_time_to_save_and_loses_nothing(bench: Bench) -> None:
    handle = bench.start("a1", command=SAVES)
    bench.until(lambda: bench.samples(handle))
    for _ in range(2):
        bench.driver.stop(handle, grace_s=10.0, reason=EndReason.REVOKED, why="outbid")
    end = bench.over(handle)
    assert (end.reason, end.message, end.exit_code) == (EndReason.REVOKED, "outbid", 0)
    assert bench.samples(handle) == [1, 7]
    assert bench.log("a1").endswith("saved\n")


def test_a_stop_kills_what_does_not_heed_it(bench: Bench) -> None:
    handle = bench.start("a1", command=STUBBORN)
    bench.until(lambda: bench.samples(handle))
    bench.driver.stop(handle, grace_s=0.5, reason=EndReason.REVOKED, why="outbid")
    end = bench.over(handle)
    assert (end.reason, end.message, end.exit_code) == (EndReason.REVOKED, "outbid", 137)


def test_a_stop_reaches_an_attempt_that_has_no_node(bench: Bench) -> None:
    first = [bench.start(f"a{i}", gpus=4, command=steps_until_told()) for i in (1, 2)]
    bench.until(lambda: all(bench.samples(handle) for handle in first))
    handle = bench.start("a3", command="true")
    bench.until(lambda: bench.cluster.pods("a3"))
    bench.driver.stop(handle, grace_s=5.0, reason=EndReason.REVOKED, why="outbid")
    end = bench.over(handle)
    assert (end.reason, end.message, end.exit_code) == (EndReason.REVOKED, "outbid", None)
    bench.until(lambda: not bench.cluster.jobs("a3"))


def test_the_runtime_limit_counts_from_its_beginning(bench: Bench) -> None:
    end = bench.over(bench.start("a1", command=steps(10_000), max_runtime_s=1.0, grace_s=1.0))
    assert (end.reason, end.exit_code) == (EndReason.RUNTIME_LIMIT, 143)
    assert end.message == "the runtime limit was reached"


def test_the_server_itself_refuses_a_second_start(bench: Bench) -> None:
    bench.start("a1", command=steps_until_told())
    with pytest.raises(DriverFailed, match="started here before"):
        bench.start("a1")
    bench.make(root="another-agent")
    with pytest.raises(DriverFailed, match="its Job is in the cluster"):
        bench.start("a1")
    with pytest.raises(DriverFailed, match="its Job is in the cluster"):
        bench.start("a1", gpus=8)
    assert len(bench.cluster.jobs("a1")) == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"attempt": "../x"}, "cannot be a label"),
        ({"gpus": 6}, "cannot be spread evenly"),
        ({"command": "x" * 300_000}, "may have 204800 bytes"),
        ({"env": {"X": "y" * 2_000_000}}, "variables take 20"),
    ],
)
def test_what_cannot_run_is_refused_with_a_sentence(
    bench: Bench, changes: dict[str, object], why: str
) -> None:
    with pytest.raises(DriverFailed, match=why):
        bench.start(str(changes.pop("attempt", "a1")), **changes)
    assert bench.cluster.jobs() == []


def test_an_image_that_cannot_be_pulled_is_told_in_the_nodes_words(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(image="registry.example.org/none:1", image_within_s=2)
    end = bench.over(bench.start("a1"))
    assert end.reason is EndReason.DRIVER_FAILED
    assert "registry.example.org/none:1" in end.message
    assert "ull" in end.message


def test_a_job_that_no_node_takes_is_told_why(make_bench: Callable[..., Bench]) -> None:
    pools = {"a100": {"product": "NVIDIA-H100"}}
    bench = make_bench(pools=pools, start_within_s=2)
    end = bench.over(bench.start("a1"))
    assert end.reason is EndReason.DRIVER_FAILED
    assert "0/2 nodes are available" in end.message


def test_more_memory_than_its_limit_is_the_jobs_own_doing(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(memory_mb_per_gpu=64)
    words = ("python3", "-c", "import time; x = b'x' * 200_000_000; time.sleep(60)")
    end = bench.over(bench.start("a1", command="", argv=words))
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 137)
    assert end.message.startswith("OOMKilled")


def test_an_evicted_pod_is_the_sites_doing(bench: Bench) -> None:
    handle = bench.start("a1", command=steps_until_told())
    bench.until(lambda: bench.samples(handle))
    [pod] = bench.cluster.pods("a1")
    bench.cluster.evict(pod["metadata"]["name"])
    end = bench.over(handle)
    assert end.reason is EndReason.DRIVER_FAILED
    assert "low on resource: memory" in end.message


def test_a_pod_deleted_by_hand_is_told_and_nothing_runs_in_its_place(bench: Bench) -> None:
    handle = bench.start("a1", command=f"echo began >> began; {SAVES}")
    bench.until(lambda: bench.samples(handle))
    [pod] = bench.cluster.pods("a1")
    name = pod["metadata"]["name"]
    bench.admin.delete(f"/api/v1/namespaces/hanse-jobs/pods/{name}")
    end = bench.over(handle)
    assert end.reason is EndReason.DRIVER_FAILED
    assert "deleted at the site" in end.message
    assert (bench.work / "job-a1" / "began").read_text() == "began\n"


def test_a_job_deleted_by_hand_is_over_when_its_pod_has_saved_its_work(bench: Bench) -> None:
    saves = """
    trap 'sleep 5; touch saved; exit 0' TERM
    echo "{\\"samples\\": 1}" >> "$HANSE_PROGRESS"
    while :; do sleep 0.05; done"""
    handle = bench.start("a1", command=saves, grace_s=20.0)
    bench.until(lambda: bench.samples(handle))
    bench.admin.delete("/apis/batch/v1/namespaces/hanse-jobs/jobs/hanse-a1")
    end = bench.over(handle)
    assert end.reason is EndReason.DRIVER_FAILED
    assert "deleted at the site" in end.message
    assert (bench.work / "job-a1" / "saved").exists()


def test_a_log_is_read_once_as_it_grows_and_cut_at_its_cap(bench: Bench) -> None:
    command = 'printf "1%%\\r2%%\\r3%%\\n"; head -c 300000 /dev/zero | tr "\\0" x; echo; seq 40000'
    handle = bench.start("a1", command=f"{command}; {steps_until_told()}", log_cap_bytes=400_000)
    got = b""
    bench.until(lambda: bench.samples(handle))
    while True:
        part = bench.driver.logs("a1", len(got), 50_000)
        got += part.data
        if part.truncated:
            break
    assert got.startswith(b"1%\r2%\r3%\nxxx")
    whole = "".join(f"{i}\n" for i in range(1, 40001)).encode()
    shown, _, mark = got[9 + 300_001 :].partition(b"\n[hanse:")
    assert whole.startswith(shown)
    assert len(got) == 400_000
    assert mark


def test_a_flood_of_log_hides_no_progress(bench: Bench) -> None:
    command = f"yes $(printf %01023d 0) | head -c 1073741824; {steps(3)}"
    handle = bench.start("a1", command=command, log_cap_bytes=1 << 20)
    end = bench.over(handle, 60.0)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 0)
    assert bench.samples(handle) == [1, 2, 3]
    assert len(bench.log("a1")) == 1 << 20


def test_clean_up_leaves_nothing(bench: Bench) -> None:
    handle = bench.start("a1", gpus=8, command="true")
    bench.over(handle)
    assert bench.driver.known() == {"a1"}
    bench.driver.cleanup("a1")
    bench.until(lambda: not bench.cluster.jobs())
    bench.until(lambda: not bench.cluster.pods("a1"))
    services = "/api/v1/namespaces/hanse-jobs/services"
    bench.until(lambda: not bench.admin.all_of(services))
    bench.until(lambda: not bench.driver.known())


def test_the_nodes_say_what_there_is_and_local_users_what_is_left(bench: Bench) -> None:
    capacity = bench.driver.capacity()
    assert (capacity.cores, capacity.memory_bytes) == (128, 2 * 64 * 1024**3)
    assert bench.driver.kinds() == (GpuKind("NVIDIA-A100", 2, 8, 8, 0, 4),)
    local: dict[str, Any] = {
        "metadata": {"name": "local-user"},
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": IMAGE,
                    "command": ["sleep", "600"],
                    "resources": {"limits": {"nvidia.com/gpu": "3"}},
                }
            ]
        },
    }
    bench.admin.create("/api/v1/namespaces/hanse-jobs/pods", local)
    bench.until(lambda: bench.driver.kinds() == (GpuKind("NVIDIA-A100", 2, 8, 5, 3, 4),))
    handle = bench.start("a1", gpus=2, command=steps_until_told())
    bench.until(lambda: bench.samples(handle))
    assert bench.driver.kinds() == (GpuKind("NVIDIA-A100", 2, 8, 3, 3, 4),)
    assert bench.driver.supply().pools == {"a100": NodesSupply(gpus=8, local=3)}
    local["metadata"] = {"name": "waits-for-a-node"}
    local["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "4"
    bench.admin.create("/api/v1/namespaces/hanse-jobs/pods", local)
    waiting = NodesSupply(gpus=8, local=3, wished=4)
    bench.until(lambda: bench.driver.supply().pools == {"a100": waiting})
    assert waiting.left == 1
