"""As much of an API server as the driver asks, in memory; a test plays scheduler and kubelet.

What it answers is checked against answers of a real server, recorded by
`python -m tests.kubernetes.record` into fixtures/kubernetes/: `conversation` is held with both.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import yaml

Json = dict[str, Any]
NAMESPACE = "hanse-jobs"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
KINDS = {JOBS: "Job", PODS: "Pod", SERVICES: "Service", "/api/v1/nodes": "Node"}
GROUPS = {"Job": ("jobs.batch", "batch", "jobs"), "Pod": ("pods", "", "pods")}
GROUPS |= {"Service": ("services", "", "services"), "Node": ("nodes", "", "nodes")}
DNS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
IMMUTABLE = ("completions", "selector", "template")
FIXTURES = Path(__file__).parent / "fixtures" / "kubernetes"


class Dropped(Exception):
    """The request is carried out, its answer is lost."""


@dataclass
class Stub:
    """Objects by path. `minor` is the server's release."""

    minor: int = 20
    objects: dict[str, Json] = field(default_factory=dict)
    logs: dict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    token: str = "let-me-in"
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    away: bool = False
    drops: Callable[[str, str], bool] = lambda method, path: False
    refuses: Callable[[str, str], bool] = lambda method, path: False
    url: str = ""
    _last: int = 0
    _made: int = 0

    # what a test does in the cluster's place

    def pod(self, attempt: str, rank: int = 0) -> Json:
        for path, value in self.objects.items():
            ours = path.startswith(f"{PODS}/") and _labels(value).get("hanse/attempt") == attempt
            if ours and _rank(value) == rank:
                return value
        raise KeyError(attempt)

    def begin(self, attempt: str, rank: int = 0, *, node: str = "n1", clock: float = 0.0) -> None:
        """Its containers run; the guard tells the time in seconds."""
        pod = self.pod(attempt, rank)
        pod["spec"]["nodeName"] = node
        job = self.objects[f"{JOBS}/{pod['metadata']['ownerReferences'][0]['name']}"]
        job["status"].setdefault("startTime", _stamp(self.now))
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        self._state(pod, job=running, progress=running, phase="Running")
        self.say(attempt, "progress", f"clock {round(clock * 100)}\n", rank)

    def say(self, attempt: str, container: str, text: str, rank: int = 0) -> None:
        """One line of a container's log, a millisecond after the one before."""
        self._last += 10**6
        name = self.pod(attempt, rank)["metadata"]["name"]
        self.logs.setdefault((name, container), []).append((self._last, text))

    def end(self, attempt: str, code: int, words: str, rank: int = 0, **terminated: Any) -> None:
        """The guard's last words are the termination message."""
        pod = self.pod(attempt, rank)
        done = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        reason = "Completed" if code == 0 else "Error"
        ended = {"exitCode": code, "reason": reason, "message": words, **terminated}
        phase = "Succeeded" if code == 0 else "Failed"
        self._state(pod, job={"terminated": ended}, progress=done, phase=phase)

    def wait(self, attempt: str, reason: str, message: str) -> None:
        """Its container does not start."""
        waiting = {"waiting": {"reason": reason, "message": message}}
        self._state(self.pod(attempt), job=waiting, progress=waiting, phase="Pending")

    def orders(self, attempt: str, rank: int = 0) -> str:
        return str(self.pod(attempt, rank)["metadata"]["annotations"]["hanse/orders"])

    def remove(self, path: str) -> None:
        """With all that it owns."""
        gone = self.objects.pop(path)
        for other, value in list(self.objects.items()):
            owners = value["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == gone["metadata"]["uid"] for owner in owners):
                self.remove(other)

    def _state(self, pod: Json, *, job: Json, progress: Json, phase: str) -> None:
        statuses = [
            {"name": name, "state": state, "restartCount": 0, "ready": "running" in state}
            for name, state in (("job", job), ("progress", progress))
        ]
        ready = {"type": "Ready", "status": "True" if phase == "Running" else "False"}
        pod["status"].update(phase=phase, containerStatuses=statuses, conditions=[ready])

    # what it answers

    def answer(self, method: str, path: str, query: Json, body: Json | None) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"major": "1", "minor": str(self.minor), "gitVersion": "v1"}
        if path.endswith("/log"):
            return self._log(path.removesuffix("/log"), query)
        if path in KINDS:
            return self._create(path, body) if method == "POST" else self._list(path, query)
        if path.rpartition("/")[0] not in KINDS:
            return _no(403, "Forbidden", f"{path} is forbidden")
        if path not in self.objects:
            kind, name = KINDS[path.rpartition("/")[0]], path.rpartition("/")[2]
            return _no(404, "NotFound", f'{GROUPS[kind][0]} "{name}" not found')
        return self._one(method, path, body or {})

    def _one(self, method: str, path: str, body: Json) -> tuple[int, Any]:
        if method == "DELETE":
            self.remove(path)
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        if method == "PATCH":
            if any(name in body.get("spec", {}) for name in IMMUTABLE):
                return _no(422, "Invalid", "field is immutable")
            merge(self.objects[path], body)
        return 200, self.objects[path]

    def _list(self, path: str, query: Json) -> tuple[int, Any]:
        wanted = dict(item.split("=") for item in query.get("labelSelector", "").split(",") if item)
        items = [
            {key: item for key, item in value.items() if key not in ("kind", "apiVersion")}
            for name, value in self.objects.items()
            if name.rpartition("/")[0] == path and wanted.items() <= _labels(value).items()
        ]
        version = "batch/v1" if KINDS[path] == "Job" else "v1"
        head = {"kind": f"{KINDS[path]}List", "apiVersion": version}
        return 200, {**head, "metadata": {"resourceVersion": "1"}, "items": items}

    def _create(self, path: str, body: Json | None) -> tuple[int, Any]:
        value = deepcopy(body or {})
        kind, name = KINDS[path], str(value["metadata"].get("name", ""))
        if not DNS.fullmatch(name):
            why = f'{kind}.batch "{name}" is invalid: metadata.name: Invalid value'
            return _no(422, "Invalid", why)
        if f"{path}/{name}" in self.objects:
            return _no(409, "AlreadyExists", f'{GROUPS[kind][0]} "{name}" already exists')
        self._add(path, name, value)
        if kind == "Job":
            for index in range(value["spec"]["completions"]):
                self._add_pod(value, index)
        return 201, value

    def _add(self, path: str, name: str, value: Json) -> None:
        self._made += 1
        uid = f"uid-{self._made}"
        value["metadata"].update(name=name, uid=uid, namespace=NAMESPACE, resourceVersion="1")
        value["metadata"]["creationTimestamp"] = _stamp(self.now)
        value.setdefault("status", {})
        self.objects[f"{path}/{name}"] = value

    def _add_pod(self, job: Json, index: int) -> None:
        """What the job controller makes of the template."""
        template = deepcopy(job["spec"]["template"])
        name = f"{job['metadata']['name']}-{self._made:05d}"
        template["metadata"].setdefault("annotations", {})
        if job["spec"].get("completionMode") == "Indexed":
            key = "batch.kubernetes.io/job-completion-index"
            template["metadata"]["annotations"][key] = str(index)
        owner = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        template["metadata"]["ownerReferences"] = [{**owner, "apiVersion": "batch/v1"}]
        template["status"] = {"phase": "Pending"}
        self._add(PODS, name, template)

    def _log(self, path: str, query: Json) -> tuple[int, Any]:
        if path not in self.objects:
            return _no(404, "NotFound", f'pods "{path.rpartition("/")[2]}" not found')
        name, container = path.rpartition("/")[2], query["container"]
        states = self.objects[path]["status"].get("containerStatuses") or []
        if not any(one["name"] == container and "waiting" not in one["state"] for one in states):
            why = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            return _no(400, "BadRequest", why)
        since = query.get("sinceTime", "")
        lines = [
            f"{stamp} {text}"
            for nano, text in self.logs.get((name, container), [])
            if (stamp := _nano_stamp(nano)) >= since.removesuffix("Z")
        ]
        data = "".join(lines).encode()
        limit = int(query.get("limitBytes", 0))
        return 200, data[:limit] if limit else data


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        stub = self.server.stub
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if stub.away:
            self.close_connection = True
            return
        stub.calls.append((self.command, url.path))
        if self.headers.get("Authorization") != f"Bearer {stub.token}":
            self._send(*_no(401, "Unauthorized", "Unauthorized"))
            return
        if stub.refuses(self.command, url.path):
            self._send(*_no(503, "ServiceUnavailable", "the server is busy"))
            return
        status, value = stub.answer(self.command, url.path, query, body)
        if stub.drops(self.command, url.path):
            self.close_connection = True
            return
        self._send(status, value)

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _send(self, status: int, value: Any) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response_only(status)
        self.send_header("Date", format_datetime(self.server.stub.now, usegmt=True))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, stub: Stub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stub = stub


@contextmanager
def serving(stub: Stub) -> Iterator[Stub]:
    server = Server(stub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(folder: Path, url: str, token: str) -> Path:
    value = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(value))
    return file


# -- the same conversation with the stub and with a real server ------------------------------------


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    status: int
    answer: Any


def conversation(
    http: httpx.Client, job: Json, wait: Callable[[str], object]
) -> Iterator[Exchange]:
    """Each call that the driver makes, and the answers it must understand.

    `wait` is told "pod", "running" and "ended" and returns when that is so of the job's pod.
    """

    def say(name: str, method: str, path: str, body: Json | None = None, **query: str) -> Exchange:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": kind}
        answer = http.request(method, path, content=content, params=query, headers=headers)
        plain = answer.headers.get("Content-Type", "").startswith("text/plain")
        value: Any = answer.text
        if not plain:
            try:
                value = answer.json()
            except ValueError:
                value = answer.text
        return Exchange(name, answer.status_code, value)

    name = job["metadata"]["name"]
    select = f"hanse/attempt={job['metadata']['labels']['hanse/attempt']}"
    yield say("version", "GET", "/version")
    yield say("forbidden", "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets")
    yield say("no-jobs", "GET", JOBS, labelSelector=select)
    yield say("create", "POST", JOBS, job)
    yield say("create-again", "POST", JOBS, job)
    bad = {**job, "metadata": {**job["metadata"], "name": "Not_A_Name"}}
    yield say("create-bad-name", "POST", JOBS, bad)
    yield say("get", "GET", f"{JOBS}/{name}")
    yield say(
        "raise-deadline", "PATCH", f"{JOBS}/{name}", {"spec": {"activeDeadlineSeconds": 9000}}
    )
    immutable = {"spec": {"completions": 7}}
    yield say("change-completions", "PATCH", f"{JOBS}/{name}", immutable)
    note = {"metadata": {"annotations": {"hanse/stop": "{}"}}}
    yield say("note-on-job", "PATCH", f"{JOBS}/{name}", note)
    yield say("jobs", "GET", JOBS, labelSelector=select)
    wait("pod")
    pods = say("pods-pending", "GET", PODS, labelSelector=select)
    yield pods
    pod = f"{PODS}/{pods.answer['items'][0]['metadata']['name']}"
    wait("running")
    yield say("pods-running", "GET", PODS, labelSelector=select)
    orders = {"metadata": {"annotations": {"hanse/orders": "1000000000000 0 - -"}}}
    yield say("order-to-pod", "PATCH", pod, orders)
    wait("ended")
    yield say("pods-ended", "GET", PODS, labelSelector=select)
    yield say("log", "GET", f"{pod}/log", container="job", timestamps="true")
    yield say("log-cut", "GET", f"{pod}/log", container="job", timestamps="true", limitBytes="40")
    late = "2099-01-01T00:00:00Z"
    yield say("log-since-later", "GET", f"{pod}/log", container="job", sinceTime=late)
    yield say("no-pod", "PATCH", f"{PODS}/not-there", note)
    yield say("no-log", "GET", f"{PODS}/not-there/log", container="job")
    yield say("delete", "DELETE", f"{JOBS}/{name}", {"propagationPolicy": "Background"})
    yield say("delete-again", "DELETE", f"{JOBS}/{name}", {"propagationPolicy": "Background"})
    yield say("get-deleted", "GET", f"{JOBS}/{name}")


def merge(target: Json, change: Json) -> None:
    """RFC 7386."""
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


def _no(status: int, reason: str, message: str) -> tuple[int, Json]:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return status, {**head, "reason": reason, "message": message, "code": status}


def _labels(value: Json) -> Json:
    return value["metadata"].get("labels") or {}


def _rank(pod: Json) -> int:
    notes = pod["metadata"]["annotations"]
    index = notes.get("batch.kubernetes.io/job-completion-index")
    return int(_labels(pod).get("hanse/rank") or index or 0)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _nano_stamp(nano: int) -> str:
    whole = datetime.fromtimestamp(1_750_000_000 + nano // 10**9, UTC)
    return f"{whole.strftime('%Y-%m-%dT%H:%M:%S')}.{nano % 10**9:09d}Z"
