"""A stand-in for a Ray head: the part of its REST API that the driver speaks, on loopback.

It runs entrypoints as real processes, hands out GPUs by number and keeps a queue. Its answers are
checked against a recorded conversation with a real head (`fixtures/ray/conversation.json`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agents.clock import SystemClock
from agents.drivers import processes
from tests.agents.making import until

FIXTURE = Path(__file__).parent / "fixtures" / "ray" / "conversation.json"
WAITS = (
    "Job has not started yet. It may be waiting for resources (CPUs, GPUs, memory, custom "
    "resources) to become available. It may be waiting for the runtime environment to be set up."
)
MESSAGES = {
    "PENDING": WAITS,
    "RUNNING": "Job is currently running.",
    "STOPPED": "Job was intentionally stopped.",
    "SUCCEEDED": "Job finished successfully.",
}
CLUSTER = ("/api/version", "/api/v0/nodes", "/api/cluster_status")
KNOWN = {
    *("entrypoint", "submission_id", "runtime_env", "metadata", "entrypoint_num_cpus"),
    *("entrypoint_num_gpus", "entrypoint_memory", "entrypoint_resources"),
}


class ShiftedClock:
    """This host's clock as another host would have it."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s
        self._clock = SystemClock()

    def boottime(self) -> float:
        return self._clock.boottime() + self.ahead_s

    def monotonic(self) -> float:
        return self._clock.monotonic() + self.ahead_s

    def wall(self) -> datetime:
        return self._clock.wall()


@dataclass
class StubJob:
    body: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    gpus: list[int] = field(default_factory=list)
    status: str = "PENDING"
    exit_code: int | None = None
    kill_at: float | None = None  #: monotonic; it was told to stop
    began: int = 0
    ended: int | None = None
    wish: str = ""  #: why nobody starts it: a message of Ray's

    def shown(self) -> dict[str, Any]:
        """As Ray's JobDetails."""
        begun = self.process is not None
        failed = f"Job entrypoint command failed with exit code {self.exit_code}"
        log = ", last available logs (truncated to 20,000 chars):\nRunning entrypoint for job\n"
        message = MESSAGES.get(self.status, self.wish or failed + log)
        kind = "JOB_ENTRYPOINT_COMMAND_ERROR" if self.status == "FAILED" else None
        return {
            "type": "SUBMISSION",
            "job_id": None,
            "submission_id": self.body["submission_id"],
            "driver_info": None,
            "status": self.status,
            "entrypoint": self.body["entrypoint"],
            "message": message,
            "error_type": kind,
            "start_time": self.began,
            "end_time": self.ended,
            "metadata": self.body.get("metadata"),
            "runtime_env": self.body.get("runtime_env"),
            "driver_agent_http_address": "http://127.0.0.1:1" if begun else None,
            "driver_node_id": "n" if begun else None,
            "driver_exit_code": self.exit_code,
        }


class RayStub:
    def __init__(self, *, gpus: int = 4, resources: dict[str, float] | None = None) -> None:
        self.lock = threading.RLock()
        self.totals = {"CPU": 8.0, "GPU": float(gpus), "memory": 2.0**34, **(resources or {})}
        self.free = list(range(gpus))
        self.jobs: dict[str, StubJob] = {}
        self.submitted: list[StubJob] = []  # the forgotten too
        self.tokens: set[str] = set()  # that came along
        self.url = ""
        #: what a test makes of an answer (method, path, status, text); None: it never arrives
        self.answer_with: Callable[[str, str, int, str], tuple[int, str] | None] | None = None

    def look(self) -> None:
        """Start what fits, note what ended, kill what has had its grace."""
        with self.lock:
            for job in self.jobs.values():
                if job.status == "PENDING" and not job.wish:
                    self._start(job)
                elif job.status == "RUNNING":
                    self._watch(job)

    def _start(self, job: StubJob) -> None:
        wanted = int(job.body.get("entrypoint_num_gpus") or 0)
        if wanted > len(self.free):
            return
        job.gpus, self.free = self.free[:wanted], self.free[wanted:]
        told = (job.body.get("runtime_env") or {}).get("env_vars", {})
        env = {"PATH": os.environ["PATH"], "RAY_ADDRESS": "127.0.0.1:1", **told}
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.gpus))
        words = ["/bin/sh", "-c", job.body["entrypoint"]]
        null = subprocess.DEVNULL
        job.process = subprocess.Popen(
            words, env=env, start_new_session=True, stdout=null, stderr=null
        )
        job.status = "RUNNING"

    def _watch(self, job: StubJob) -> None:
        assert job.process is not None
        if job.kill_at is not None and time.monotonic() > job.kill_at:
            for process in processes.descendants(job.process.pid):
                processes.kill(process)
            job.process.kill()
        code = job.process.poll()
        if code is None:
            return
        stopped = job.kill_at is not None
        job.status = "STOPPED" if stopped else "FAILED" if code else "SUCCEEDED"
        job.exit_code = None if stopped else code
        job.ended = milliseconds()
        self.free += job.gpus

    # -- the API ----------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: Any) -> tuple[int, str]:
        path = path.partition("?")[0]
        with self.lock:
            if method == "GET" and path in CLUSTER:
                return 200, json.dumps(self._cluster(path))
            if path == "/api/jobs/":
                return self._submit(body) if method == "POST" else self._list()
            found = re.fullmatch(r"/api/jobs/([^/]+)(/stop)?", path)
            job = self.jobs.get(found[1]) if found else None
            if found is None or job is None:
                return 404, f"Job {found[1]} does not exist" if found else "404: Not Found"
            if found[2]:
                return self._stop(job)
            return self._delete(job) if method == "DELETE" else (200, json.dumps(job.shown()))

    def _cluster(self, path: str) -> dict[str, Any]:
        if path == "/api/cluster_status":
            return self._load()
        if path == "/api/version":
            return {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
        node = {
            "node_id": "n",
            "node_ip": "127.0.0.1",
            "is_head_node": True,
            "state": "ALIVE",
            "state_message": None,
            "node_name": "127.0.0.1",
            "resources_total": {**self.totals, "node:127.0.0.1": 1.0},
            "labels": {},
            "start_time_ms": milliseconds(),
            "end_time_ms": 0,
        }
        listed = {"total": 1, "num_after_truncation": 1, "num_filtered": 1, "result": [node]}
        listed.update(partial_failure_warning="", warnings=None)
        return {"result": True, "msg": "", "data": {"result": listed}}

    def _load(self) -> dict[str, Any]:
        """GPUs in use, and what waits; Ray says much more."""
        used = sum(len(job.gpus) for job in self.jobs.values() if job.status == "RUNNING")
        waits = [job.body for job in self.jobs.values() if job.status == "PENDING"]
        demand = [[{"GPU": float(body["entrypoint_num_gpus"])}, 1] for body in waits]
        usage = {"n": {"GPU": [float(used), self.totals["GPU"]]}}
        report = {"usageByNode": usage, "resourceDemand": demand}
        return {"result": True, "data": {"clusterStatus": {"loadMetricsReport": report}}}

    def _submit(self, body: dict[str, Any]) -> tuple[int, str]:
        for key in body:
            if key not in KNOWN:
                why = f"JobSubmitRequest.__init__() got an unexpected keyword argument '{key}'"
                return 400, f"Traceback (most recent call last):\nTypeError: {why}\n"
        name = body["submission_id"]
        if name in self.jobs:
            why = f"Job with submission_id {name} already exists. Please use a different "
            return 500, f"Traceback (most recent call last):\nValueError: {why}submission_id.\n.\n"
        self.jobs[name] = StubJob(body, began=milliseconds())
        self.submitted.append(self.jobs[name])
        return 200, json.dumps({"job_id": name, "submission_id": name})

    def _list(self) -> tuple[int, str]:
        return 200, json.dumps([job.shown() for job in self.jobs.values()])

    def _stop(self, job: StubJob) -> tuple[int, str]:
        """As Ray: SIGTERM to every process; one that waits is only marked."""
        running = job.status in ("PENDING", "RUNNING")
        if job.status == "RUNNING" and job.process is not None and job.kill_at is None:
            wait_s = float(job.body["runtime_env"]["env_vars"].get("RAY_JOB_STOP_WAIT_TIME_S", 3))
            job.kill_at = time.monotonic() + wait_s
            for pid in (job.process.pid, *(p.pid for p in processes.descendants(job.process.pid))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        return 200, json.dumps({"stopped": running})

    def _delete(self, job: StubJob) -> tuple[int, str]:
        name = job.body["submission_id"]
        if job.status in ("PENDING", "RUNNING"):
            why = (
                f"Attempted to delete job '{name}', but it is in a non-terminal state {job.status}."
            )
            return 500, f"Traceback (most recent call last):\nRuntimeError: {why}\n.\n"
        del self.jobs[name]
        return 200, json.dumps({"deleted": True})


class Handler(BaseHTTPRequestHandler):
    server: Server

    def handle_any(self) -> None:
        stub = self.server.stub
        if "Authorization" in self.headers:
            stub.tokens.add(self.headers["Authorization"])
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        found: tuple[int, str] | None = stub.answer(self.command, self.path, body)
        if stub.answer_with is not None and found is not None:
            found = stub.answer_with(self.command, self.path, *found)
        if found is None:
            self.close_connection = True
            return
        data = found[1].encode()
        with suppress(ConnectionError):
            self.send_response(found[0])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, stub: RayStub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stub = stub


@contextmanager
def serving(stub: RayStub) -> Iterator[RayStub]:
    server = Server(stub)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    over = threading.Event()

    def schedule() -> None:
        while not over.wait(0.02):
            stub.look()

    threads = [
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True),
        threading.Thread(target=schedule, daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield stub
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()
        for job in stub.submitted:
            if job.process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(job.process.pid, signal.SIGKILL)
                job.process.wait()


def milliseconds() -> int:
    return int(time.time() * 1000)


# -- the recorded conversation --------------------------------------------------------------------

Ask = Callable[[str, str, Any], tuple[int, str]]
NAMES = ("runs", "waits", "fails")
SCRUBBED = {
    *("ray_commit", "session_name", "node_id", "node_ip", "node_name", "driver_node_id"),
    *("driver_agent_http_address", "start_time", "end_time", "start_time_ms", "labels"),
}


def conversation(ask: Ask) -> list[dict[str, Any]]:
    """Everything that the driver may ask of a head, and what the head answers."""
    told: list[dict[str, Any]] = []

    def say(name: str, method: str, path: str, body: Any = None) -> Any:
        status, content = ask(method, path, body)
        try:
            answer = scrubbed(json.loads(content))
            if isinstance(answer, list):  # a head may list other jobs too
                answer = [job for job in answer if job["submission_id"] in NAMES]
        except ValueError:
            lines = [line.strip() for line in content.splitlines() if len(line.strip()) > 1]
            answer = lines[-1]
        told.append({"name": name, "asked": f"{method} {path}", "status": status, "answer": answer})
        return answer

    def submit(name: str, entrypoint: str, gpus: int) -> None:
        body = {
            "submission_id": name,
            "entrypoint": entrypoint,
            "entrypoint_num_gpus": gpus,
            "entrypoint_resources": {},
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "1"}},
            "metadata": {"hanse_attempt": name},
        }
        say(f"submit {name}", "POST", "/api/jobs/", body)

    def job(name: str, status: str) -> None:
        def there() -> bool:
            return bool(json.loads(ask("GET", f"/api/jobs/{name}", None)[1])["status"] == status)

        until(there, 60)
        say(f"{name} is {status}", "GET", f"/api/jobs/{name}")

    say("version", "GET", "/api/version")
    say("nodes", "GET", "/api/v0/nodes?detail=1&limit=10000")
    submit("runs", "sleep 600", 4)
    job("runs", "RUNNING")
    submit("runs", "sleep 600", 4)
    submit("waits", "true", 4)
    job("waits", "PENDING")
    told.append({"name": "load", "asked": "GET /api/cluster_status", "answer": load(ask)})
    say("delete too early", "DELETE", "/api/jobs/waits")
    say("stop what runs", "POST", "/api/jobs/runs/stop")
    job("runs", "STOPPED")
    job("waits", "SUCCEEDED")
    submit("fails", "exit 3", 1)
    job("fails", "FAILED")
    say("list", "GET", "/api/jobs/")
    for name in NAMES:
        say(f"delete {name}", "DELETE", f"/api/jobs/{name}")
    say("missing", "GET", "/api/jobs/never")
    say("stop missing", "POST", "/api/jobs/never/stop")
    say("delete missing", "DELETE", "/api/jobs/never")
    say("not understood", "POST", "/api/jobs/", {"entry": "true"})
    return told


def load(ask: Ask) -> dict[str, Any]:
    """What the driver reads of it, once the head has noticed that somebody waits."""

    def report() -> dict[str, Any]:
        value = json.loads(ask("GET", "/api/cluster_status", None)[1])
        found: dict[str, Any] = value["data"]["clusterStatus"]["loadMetricsReport"]
        return found

    found = until(lambda: (told := report())["resourceDemand"] and told, 60)
    used = [node["GPU"] for node in found["usageByNode"].values()]
    return {"GPU": used, "resourceDemand": found["resourceDemand"]}


def scrubbed(value: Any, key: str = "") -> Any:
    """Without what differs from machine to machine and from run to run."""
    if isinstance(value, list):
        return sorted((scrubbed(item) for item in value), key=lambda item: json.dumps(item))
    if key == "resources_total":
        return sorted(name for name in value if not name.startswith("node:"))
    if key in SCRUBBED and value is not None:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {name: scrubbed(item, name) for name, item in sorted(value.items())}
    if key == "message" and isinstance(value, str):
        return value.partition(", last available logs")[0]
    return value
