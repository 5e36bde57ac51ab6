"""The REST API of a Ray head: jobs, and what its nodes have.

Spoken to Ray 2.60 (API version "4"). Every call has a short time limit, because the agent's one
loop makes it; after a head did not answer it is left in peace for a moment.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from agents.clock import Clock
from agents.config import is_loopback
from agents.errors import DriverFailed

CONNECT_S = 2.0
ANSWER_S = 5.0
SUBMIT_S = 20.0  #: Ray answers when the job is written down, which a busy head is slow at
PEACE_S = 3.0
MAX_ANSWER = 64 * 1024 * 1024  #: bytes
TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
WORDS = 600  #: characters of Ray's messages worth passing on


class RayAway(DriverFailed):
    """No answer that can be relied on: what was asked may have been done or not."""


class RayRefused(DriverFailed):
    """The head said no, and did nothing."""


@dataclass(frozen=True, slots=True)
class RayJob:
    submission: str
    status: str  #: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED
    message: str
    exit_code: int | None  #: of the entrypoint; None = Ray has not seen it end
    metadata: dict[str, str]

    @property
    def over(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Submission:
    submission: str
    entrypoint: str
    env: Mapping[str, str]
    metadata: Mapping[str, str]
    gpus: int
    resources: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Node:
    """One living node. `resources` are totals by Ray's names."""

    name: str
    resources: Mapping[str, float]
    identity: str = ""

    @property
    def gpus(self) -> int:
        return int(self.resources.get("GPU", 0))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Ray's names of the accelerators: `A100`, `H100`, ..."""
        mark = "accelerator_type:"
        return tuple(sorted(n.removeprefix(mark) for n in self.resources if n.startswith(mark)))

    def has(self, wanted: Mapping[str, float]) -> bool:
        return all(self.resources.get(name, 0.0) >= amount for name, amount in wanted.items())


@dataclass(frozen=True, slots=True)
class Usage:
    gpus: Mapping[str, float]  #: in use, by the node's identity
    waiting: tuple[tuple[Mapping[str, float], int], ...]  #: resources asked for, and how often


class RayServer:
    def __init__(
        self,
        address: str,
        *,
        clock: Clock,
        token_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> None:
        parts = urlsplit(address)
        verify: ssl.SSLContext | bool = True
        if parts.scheme == "https":
            verify = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        self.address = address
        self._clock = clock
        self._token_file = token_file
        self.quiet_until = 0.0  # boottime
        self._http = httpx.Client(
            base_url=address,
            verify=verify,
            trust_env=not is_loopback(parts.hostname or ""),
            limits=httpx.Limits(max_keepalive_connections=0),  # a driver has no end to close them
        )

    def version(self) -> str:
        """Ray's own version, such as 2.60.0."""
        return str(_mapping(self._call("GET", "/api/version")).get("ray_version", ""))

    def submit(self, what: Submission) -> None:
        """Raises RayRefused when it will not run, RayAway when nobody knows."""
        body = {
            "submission_id": what.submission,
            "entrypoint": what.entrypoint,
            "entrypoint_num_gpus": what.gpus,
            "entrypoint_resources": dict(what.resources),
            "runtime_env": {"env_vars": dict(what.env)},
            "metadata": dict(what.metadata),
        }
        self._call("POST", "/api/jobs/", body=body, timeout_s=SUBMIT_S)

    def job(self, submission: str) -> RayJob | None:
        """None when the head has no such job."""
        value = self._call("GET", _path(submission), missing=True)
        return None if value is None else _job(_mapping(value))

    def jobs(self) -> list[RayJob]:
        """All that came in by submission, the finished too."""
        value = self._call("GET", "/api/jobs/")
        found = [_job(_mapping(item)) for item in value] if isinstance(value, list) else []
        return [job for job in found if job.submission]

    def stop(self, submission: str) -> None:
        """SIGTERM to all of a running job's processes; one that waits ends when it would begin."""
        self._call("POST", f"{_path(submission)}/stop", missing=True)

    def delete(self, submission: str) -> None:
        """Forget a job that is over; raises RayAway for one that is not."""
        self._call("DELETE", _path(submission), missing=True)

    def nodes(self) -> list[Node]:
        """Nodes that are alive."""
        value = _mapping(self._call("GET", "/api/v0/nodes?detail=1&limit=10000"))
        try:
            rows = value["data"]["result"]["result"]
            return [_node(row) for row in rows if row["state"] == "ALIVE"]
        except (KeyError, TypeError, ValueError) as error:
            raise RayAway(
                f"the list of nodes of Ray at {self.address} is not understood"
            ) from error

    def usage(self) -> Usage:
        """What is in use and what waits, by anybody's jobs, tasks and actors."""
        value = _mapping(self._call("GET", "/api/cluster_status"))
        try:
            load = value["data"]["clusterStatus"]["loadMetricsReport"]
            used = {
                str(k): float(v["GPU"][0]) for k, v in load["usageByNode"].items() if "GPU" in v
            }
            waits = tuple((dict(what), int(count)) for what, count in load["resourceDemand"])
        except (KeyError, TypeError, ValueError) as error:
            raise RayAway(f"the load of Ray at {self.address} is not understood") from error
        return Usage(used, waits)

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        missing: bool = False,
        timeout_s: float = ANSWER_S,
    ) -> Any:
        """The answer's JSON; None for 404 where that is an answer."""
        if self._clock.boottime() < self.quiet_until:
            raise RayAway(f"Ray at {self.address} does not answer: it did not a moment ago")
        try:
            answer, content = self._exchange(method, path, body, timeout_s)
        except (httpx.HTTPError, OSError) as error:
            self.quiet_until = self._clock.boottime() + PEACE_S
            raise RayAway(
                f"Ray at {self.address} does not answer: {type(error).__name__}: {error}"
            ) from error
        if missing and answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_success:
            return _read(content, self.address)
        words = f"Ray at {self.address} answered HTTP {answer.status_code}: {last_words(content)}"
        if answer.is_client_error:
            raise RayRefused(words)
        raise RayAway(words)

    def _exchange(
        self, method: str, path: str, body: Any, timeout_s: float
    ) -> tuple[httpx.Response, bytes]:
        headers = {"Accept": "application/json"}
        if self._token_file is not None:  # read anew: it may have been changed
            token = self._token_file.read_text(encoding="utf-8").strip()
            headers["Authorization"] = f"Bearer {token}"
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
        content = bytearray()
        with self._http.stream(method, path, json=body, headers=headers, timeout=timeout) as answer:
            for part in answer.iter_bytes():
                content += part
                if len(content) > MAX_ANSWER:
                    raise RayAway(f"the answer is larger than {MAX_ANSWER} bytes")
        return answer, bytes(content)


def last_words(content: bytes | str) -> str:
    """Ray answers with tracebacks: the last line of one says what it was."""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 1]
    return lines[-1][:WORDS] if lines else ""


def told(message: str) -> str:
    """Why Ray says that a job is over: its sentence, and the end of the log that it adds."""
    first, _, log = message.strip().partition("\n")
    ours = ("Running entrypoint for job", "Runtime env is setting up")
    lines = [line for line in log.splitlines() if not any(mark in line for mark in ours)]
    sentence, last = first.partition(", last available logs")[0], last_words("\n".join(lines))
    return f"{sentence}: {last}"[:WORDS] if last else sentence[:WORDS]


def _path(submission: str) -> str:
    return f"/api/jobs/{quote(submission, safe='')}"


def _read(content: bytes, address: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise RayAway(f"something that is not Ray answered at {address}") from None


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RayAway("an object was expected in Ray's answer")
    return value


def _job(value: dict[str, Any]) -> RayJob:
    code = value.get("driver_exit_code")
    metadata = value.get("metadata")
    return RayJob(
        submission=str(value.get("submission_id") or ""),
        status=str(value.get("status") or ""),
        message=str(value.get("message") or ""),
        exit_code=code if isinstance(code, int) else None,
        metadata={str(k): str(v) for k, v in metadata.items()}
        if isinstance(metadata, dict)
        else {},
    )


def _node(row: dict[str, Any]) -> Node:
    totals = {str(name): float(amount) for name, amount in row["resources_total"].items()}
    return Node(str(row["node_name"]), totals, str(row["node_id"]))
