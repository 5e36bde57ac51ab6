"""A node of the test's cluster: registers itself, runs its pods as processes, serves their logs.

    python -m tests.kubernetes.kubelet SETTINGS.json

Settings: kubeconfig, node, gpus, product, port, folder, certificate, key, authority, images.
Kept truthful where the driver depends on it: expansion of $(NAME), downward API volumes that follow
the pod, exit codes and reasons, termination messages, deletion grace, logs by the kubelet's own
HTTPS address with a client certificate, host names of pods with a subdomain. A kubelet that is
killed leaves its containers running and finds them again when it is back.
"""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agents.clock import SystemClock
from agents.drivers.kubernetes.access import from_kubeconfig
from agents.drivers.kubernetes.server import ApiServer, ServerAway, ServerRefused
from tests.kubernetes.containers import Container, Json, Volumes, environment, hostname, stamp

TICK_S = 0.1
HEARTBEAT_S = 0.5
NOT_FOUND = 'rpc error: code = NotFound desc = failed to pull and unpack image "{}": not found'


class Pod:
    """One pod bound to this node."""

    def __init__(self, folder: Path, value: Json, address: str) -> None:
        self.folder = folder
        self.value = value
        self.address = address
        self.uid: str = value["metadata"]["uid"]
        self.began = time.time()
        self.volumes = Volumes(folder / "volumes", value["spec"])
        self.containers = [
            Container(folder / container["name"], container)
            for container in value["spec"]["containers"]
        ]
        self.told: Json = {}
        self.stopping: float | None = None
        self.evicted = False

    def path(self) -> str:
        metadata = self.value["metadata"]
        return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"

    def sync(self, hosts: str, images: list[str]) -> None:
        """Bring the host to what the pod says."""
        self.volumes.refresh(self.value)
        names = self.folder / "hosts"
        if not names.exists() or names.read_text() != hosts:
            names.write_text(hosts)  # in place: it is mounted
        for container in self.containers:
            known = container.spec["image"] in images
            if known and container.started is None and not container.folder.exists():
                self._start(container)
            container.keep_memory_limit()
        if self.evicted or self.value["metadata"].get("deletionTimestamp"):
            self._stop()

    def _start(self, container: Container) -> None:
        if self.value["metadata"].get("deletionTimestamp"):
            return
        mounts = self.volumes.mounts(container.spec)
        mounts.append([str(self.folder / "hosts"), "/etc/hosts", "rw"])
        container.start(mounts, environment(self.value, container.spec))

    def _stop(self) -> None:
        grace = float(self.value["metadata"].get("deletionGracePeriodSeconds") or 0)
        if self.stopping is None:
            self.stopping = time.monotonic()
            for container in self.containers:
                container.signal(signal.SIGTERM)
        elif time.monotonic() > self.stopping + grace:
            for container in self.containers:
                container.signal(signal.SIGKILL)

    def gone(self) -> bool:
        """Everything of a deleted pod has ended, or was never started."""
        return bool(self.value["metadata"].get("deletionTimestamp")) and all(
            one.ended is not None or one.started is None for one in self.containers
        )

    def status(self, images: list[str]) -> Json:
        statuses = [one.status(self._waiting(one, images)) for one in self.containers]
        ended = [one.ended for one in self.containers]
        phase = "Pending"
        if all(one.started is not None for one in self.containers):
            phase = "Running"
        if all(one is not None for one in ended):
            failed = any(one is not None and one["code"] != 0 for one in ended)
            phase = "Failed" if failed else "Succeeded"
        ready = "True" if phase == "Running" and all(one is None for one in ended) else "False"
        found: Json = {
            "phase": phase,
            "startTime": stamp(self.began),
            "hostIP": "127.0.0.1",
            "podIP": self.address,
            "containerStatuses": statuses,
            "conditions": [
                {"type": kind, "status": ready if "eady" in kind else "True"}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
        }
        if self.evicted:
            why = "The node was low on resource: memory."
            found.update(phase="Failed", reason="Evicted", message=why)
        return found

    def _waiting(self, container: Container, images: list[str]) -> Json | None:
        image = container.spec["image"]
        if image in images:
            return None
        backing_off = time.time() - self.began > 1.0
        reason = "ImagePullBackOff" if backing_off else "ErrImagePull"
        message = f'Back-off pulling image "{image}"' if backing_off else NOT_FOUND.format(image)
        return {"reason": reason, "message": message}


class Kubelet:
    def __init__(self, settings: Json) -> None:
        self.settings = settings
        self.node: str = settings["node"]
        self.folder = Path(settings["folder"])
        self.pods: dict[str, Pod] = {}
        self.server = ApiServer(
            from_kubeconfig(Path(settings["kubeconfig"])), SystemClock(), namespace="default"
        )
        self._beaten = 0.0
        self._addresses = 0

    def run(self) -> None:
        while True:
            try:
                self._beat()
                self._look()
            except (ServerAway, ServerRefused) as error:
                print(f"kubelet {self.node}: {error}", file=sys.stderr, flush=True)  # noqa: T201
                self._keep()
            time.sleep(TICK_S)

    def _keep(self) -> None:
        """The API server is away: pods live on as they were."""
        for pod in self.pods.values():
            pod.sync((pod.folder / "hosts").read_text(), self.settings["images"])

    def _beat(self) -> None:
        if time.monotonic() < self._beaten + HEARTBEAT_S:
            return
        self._beaten = time.monotonic()
        path = f"/api/v1/nodes/{self.node}"
        labels = {"nvidia.com/gpu.product": self.settings["product"], "tier": "test"}
        try:
            self.server.create(
                "/api/v1/nodes",
                {"metadata": {"name": self.node, "labels": labels}, "kind": "Node"},
            )
        except ServerRefused as error:
            if error.status != 409:
                raise
        now = stamp(time.time())
        has = {"cpu": "64", "memory": "64Gi", "pods": "110"}
        has["nvidia.com/gpu"] = str(self.settings["gpus"])
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        self.server.patch(
            f"{path}/status",
            {
                "status": {
                    "capacity": has,
                    "allocatable": has,
                    "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": self.settings["port"]}},
                    "conditions": [{**ready, "lastHeartbeatTime": now}],
                    "nodeInfo": {"kubeletVersion": "v1.20.2", "operatingSystem": "linux"},
                }
            },
        )

    def _look(self) -> None:
        everything = self.server.all_of("/api/v1/pods")
        services = {
            (one["metadata"]["namespace"], one["metadata"]["name"]): one
            for one in self.server.all_of("/api/v1/services")
        }
        ours = {
            one["metadata"]["uid"]: one
            for one in everything
            if one["spec"].get("nodeName") == self.node
        }
        hosts = names(everything, services)
        for uid in self.pods.keys() - ours.keys():
            self._drop(uid)
        for uid, value in ours.items():
            pod = self._pod(uid, value)
            pod.value = value
            pod.evicted = (self.folder / "evict" / value["metadata"]["name"]).exists()
            pod.sync(hosts, self.settings["images"])
            self._tell(pod)

    def _pod(self, uid: str, value: Json) -> Pod:
        if uid not in self.pods:
            self._addresses += 1
            address = f"127.{20 + int(self.settings['number'])}.0.{self._addresses}"
            folder = self.folder / "pods" / uid
            folder.mkdir(parents=True, exist_ok=True)
            self.pods[uid] = Pod(folder, value, address)
        return self.pods[uid]

    def _tell(self, pod: Pod) -> None:
        status = pod.status(self.settings["images"])
        if status != pod.told:
            self.server.patch(f"{pod.path()}/status", {"status": status})
            pod.told = status
        if pod.gone():
            self.server.delete(pod.path(), grace_s=0)

    def _drop(self, uid: str) -> None:
        """Removed from the books by force, or gone: nothing of it goes on here."""
        pod = self.pods[uid]
        for container in pod.containers:
            container.signal(signal.SIGKILL)
        if all(one.ended is not None or one.started is None for one in pod.containers):
            shutil.rmtree(pod.folder, ignore_errors=True)
            del self.pods[uid]


def names(pods: list[Json], services: dict[tuple[str, str], Json]) -> str:
    """What the cluster's DNS would say: pods with a host name under a headless service."""
    lines = ["127.0.0.1 localhost"]
    for pod in pods:
        address = (pod.get("status") or {}).get("podIP")
        subdomain = pod["spec"].get("subdomain")
        service = services.get((pod["metadata"]["namespace"], subdomain or ""))
        if not address or service is None:
            continue
        labels = pod["metadata"].get("labels") or {}
        chosen = (service["spec"].get("selector") or {}).items()
        if service["spec"].get("clusterIP") == "None" and chosen <= labels.items():
            lines.append(f"{address} {hostname(pod)}.{subdomain} {hostname(pod)}")
    return "\n".join(lines) + "\n"


class Logs(BaseHTTPRequestHandler):
    """GET /containerLogs/<namespace>/<pod>/<container>, asked by the API server."""

    kubelet: Kubelet

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        data = self._log(parts, query) if parts[0] == "containerLogs" else None
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def _log(self, parts: list[str], query: dict[str, str]) -> bytes | None:
        _, namespace, name, container = parts
        for pod in list(self.kubelet.pods.values()):
            metadata = pod.value["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return select(pod.folder / container / "log", query)
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def select(path: Path, query: dict[str, str]) -> bytes:
    if not path.exists():
        return b""
    since = query.get("sinceTime", "")[:19]  # whole seconds, as the API server passes them on
    limit = int(query.get("limitBytes", 0)) or None
    stamped = query.get("timestamps") == "true"
    found = bytearray()
    with path.open("rb") as file:
        for line in file:
            if line[:19].decode() < since:
                continue
            found += line if stamped else line.partition(b" ")[2]
            if limit is not None and len(found) >= limit:
                return bytes(found[:limit])
    return bytes(found)


def serve(kubelet: Kubelet) -> None:
    settings = kubelet.settings
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings["authority"])
    tls.load_cert_chain(settings["certificate"], settings["key"])
    tls.verify_mode = ssl.CERT_REQUIRED
    handler = type("BoundLogs", (Logs,), {"kubelet": kubelet})
    server = ThreadingHTTPServer(("127.0.0.1", settings["port"]), handler)
    server.daemon_threads = True
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main(path: Path) -> None:
    kubelet = Kubelet(json.loads(path.read_text()))
    serve(kubelet)
    kubelet.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
