"""Jobs over two nodes: all begin together, find each other, and end together."""

from __future__ import annotations

import re

import pytest

from agents.drivers.kubernetes import follower
from agents.protocol import EndReason
from tests.kubernetes.control_plane import NAMESPACE
from tests.kubernetes.site import Bench, Json

MEETING = """
exec python3 -c '
import json, os, socket
rank, nodes = int(os.environ["NODE_RANK"]), int(os.environ["NNODES"])
where = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
print("gpus", os.environ["HANSE_GPUS"], "here", os.environ["HANSE_GPUS_PER_NODE"])
if rank == 0:
    server = socket.create_server(where)
    other, _ = server.accept()
    total = 1 + int(other.recv(10))
    other.sendall(str(total).encode())
    with open(os.environ["HANSE_PROGRESS"], "a") as file:
        file.write(json.dumps({"samples": total}) + "\\n")
else:
    while True:
        try:
            first = socket.create_connection(where)
            break
        except OSError:
            pass
    first.sendall(b"41")
    print("total", first.recv(10).decode())
'
"""
WAITS = """
echo "{\\"samples\\": 1}" >> "$HANSE_PROGRESS"
trap 'echo told $NODE_RANK; exit 0' TERM
while [ ! -e "fail-$NODE_RANK" ]; do
  read -r up rest < /proc/uptime; echo "$up" > "new-$NODE_RANK"
  mv "new-$NODE_RANK" "beat-$NODE_RANK"; sleep 0.05
done
exit 5"""


def test_two_nodes_meet_and_end_as_one(bench: Bench) -> None:
    handle = bench.start("a1", gpus=8, command=MEETING)
    end = bench.over(handle)
    assert (end.reason, end.exit_code, end.message) == (EndReason.EXITED, 0, "")
    assert bench.samples(handle) == [42]
    lines = bench.log("a1").splitlines()
    assert sorted(lines) == ["[0] gpus 8 here 4", "[1] gpus 8 here 4", "[1] total 42"]


def test_the_pods_are_on_two_nodes_under_one_service(bench: Bench) -> None:
    handle = bench.start("a1", gpus=8, command=WAITS)
    bench.until(lambda: bench.samples(handle))
    pods = bench.cluster.pods("a1")
    assert {pod["spec"]["nodeName"] for pod in pods} == {"n1", "n2"}
    service = bench.admin.get(f"/api/v1/namespaces/{NAMESPACE}/services/hanse-a1")
    assert service["spec"]["clusterIP"] == "None"


def is_running(pod: Json) -> bool:
    return bool((pod.get("status") or {}).get("phase") == "Running")


def test_half_a_gang_does_not_begin(bench: Bench) -> None:
    other = bench.start("b1", command=WAITS)
    bench.until(lambda: bench.samples(other))
    handle = bench.start("a1", gpus=8, command="touch began")
    running = bench.until(lambda: [pod for pod in bench.cluster.pods("a1") if is_running(pod)])
    assert len(running) == 1
    assert bench.driver.poll(handle).exit is None
    assert not (bench.work / "job-a1" / "began").exists()
    bench.driver.stop(other, grace_s=5.0, reason=EndReason.REVOKED, why="outbid")
    bench.over(other)
    assert bench.over(handle).exit_code == 0


def test_one_rank_that_fails_ends_the_others(bench: Bench) -> None:
    handle = bench.start("a1", gpus=8, command=WAITS)
    bench.until(lambda: bench.samples(handle))
    bench.until(lambda: (bench.work / "job-a1" / "beat-1").exists())
    (bench.work / "job-a1" / "fail-1").touch()
    end = bench.over(handle)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 5)
    assert end.message.startswith("rank 1 on node n")
    assert "[0] told 0" in bench.log("a1")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_lost_under_a_gang_is_told_and_never_doubles_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setattr(follower, "SLACK_S", 2.0)
    fence_s = 8.0
    handle = bench.start("a1", gpus=8, command=WAITS, grace_s=1.0, **fence(bench, fence_s))
    bench.until(lambda: bench.samples(handle))
    name = "hanse-a1-1-" if rank else "hanse-a1-"
    [lost] = [
        pod["spec"]["nodeName"]
        for pod in bench.cluster.pods("a1")
        if re.fullmatch(f"{name}[a-z0-9]{{5}}", pod["metadata"]["name"])
    ]
    bench.until(lambda: all((bench.work / "job-a1" / f"beat-{i}").exists() for i in (0, 1)))
    bench.cluster.kill_node(lost)
    ended = False
    while not ended:  # the other node is well, and the broker goes on renewing
        bench.driver.renew(handle, bench.clock.boottime() + fence_s)
        ended = bench.driver.poll(handle).exit is not None
    end = bench.over(handle)
    assert (end.reason, end.message) == (
        EndReason.LOST,
        f"rank {rank} on node {lost}: node {lost} does not answer; its fence has passed",
    )
    beats = [float((bench.work / "job-a1" / f"beat-{rank}").read_text()) for rank in (0, 1)]
    assert end.ended is not None
    assert max(beats) <= end.ended
    assert beats[rank] < end.ended - 1.0  # it had stopped itself before it was given up


def fence(bench: Bench, seconds: float) -> dict[str, float]:
    return {"fence_at": bench.clock.boottime() + seconds, "fence_lead_s": 0.5}
