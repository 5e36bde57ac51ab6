"""A cluster of the tests' own: a real control plane, two nodes with GPUs, the agent's rights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from agents.clock import SystemClock, boot_id
from agents.drivers.base import Exit, Handle, Task
from agents.drivers.kubernetes.driver import KubernetesDriver
from agents.drivers.kubernetes.server import ApiServer
from tests.agents.making import ROOT, a_config, a_task, until
from tests.kubernetes.control_plane import NAMESPACE, ControlPlane, answered, free_ports

T = TypeVar("T")
Json = dict[str, Any]
RIGHTS = ROOT / "deploy" / "kubernetes" / "agent-rbac.yaml"
IMAGE = "registry.example.org/train:1"
PRODUCTS = {"n1": "NVIDIA-A100", "n2": "NVIDIA-A100"}
GPUS = 4
PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plane = ControlPlane(folder / "plane")
        self.kubelets: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = dict(zip(PRODUCTS, free_ports(len(PRODUCTS)), strict=True))

    def start(self) -> None:
        self.plane.start()
        self.admin = self.plane.client()
        self._grant()
        for node in PRODUCTS:
            self.start_node(node)
        for node in PRODUCTS:
            self.wait_usable(node)

    def start_node(self, node: str) -> None:
        folder = self.folder / node
        (folder / "evict").mkdir(parents=True, exist_ok=True)
        of = self.plane.authority
        settings = {
            "kubeconfig": str(self.plane.admin),
            "node": node,
            "number": node[1:],
            "gpus": GPUS,
            "product": PRODUCTS[node],
            "port": self.ports[node],
            "folder": str(folder),
            "certificate": of.file("kubelet"),
            "key": of.key("kubelet"),
            "authority": of.file("ca"),
            "images": [IMAGE],
        }
        file = folder / "settings.json"
        file.write_text(json.dumps(settings))
        with (folder / "kubelet.log").open("ab") as log:
            self.kubelets[node] = subprocess.Popen(
                [sys.executable, "-m", "tests.kubernetes.kubelet", str(file)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def kill_node(self, node: str) -> None:
        """The node is cut off: its containers go on, nobody hears of them."""
        self.kubelets[node].kill()
        self.kubelets[node].wait()

    def wait_usable(self, node: str) -> None:
        """Ready, and without the taint of a node that is not."""

        def usable() -> bool:
            value = self.admin.get(f"/api/v1/nodes/{node}")
            return not value["spec"].get("taints") and bool(value["status"].get("allocatable"))

        answered(usable)

    def evict(self, pod: str) -> None:
        for node in PRODUCTS:
            (self.folder / node / "evict" / pod).touch()

    def kubeconfig(self) -> Path:
        """Of the agent's own service account, with a token that the server made."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/hanse-agent/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self.admin.create(path, request)["status"]["token"]
        return self.plane.kubeconfig("agent", token=token)

    def pods(self, attempt: str) -> list[Json]:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        return self.admin.all_of(path, labelSelector=f"hanse/attempt={attempt}")

    def jobs(self, attempt: str = "") -> list[Json]:
        query = {"labelSelector": f"hanse/attempt={attempt}"} if attempt else {}
        return self.admin.all_of(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", **query)

    def clear(self) -> None:
        """Between tests: no Jobs, no pods, both nodes there."""
        for job in self.jobs():
            self.admin.delete(
                f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job['metadata']['name']}"
            )
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        for pod in self.admin.all_of(path):
            self.admin.delete(f"{path}/{pod['metadata']['name']}", grace_s=0)
        until(lambda: not self.admin.all_of(path), 30.0)
        for node, process in self.kubelets.items():
            if process.poll() is not None:
                self.start_node(node)
            self.wait_usable(node)

    def close(self) -> None:
        for process in self.kubelets.values():
            process.kill()
            process.wait()
        for file in self.folder.glob("n*/pods/*/*/running.json"):
            kill_container(file)
        self.admin.close()
        self.plane.close()

    def _grant(self) -> None:
        for value in yaml.safe_load_all(RIGHTS.read_text()):
            namespace = value["metadata"].get("namespace", "")
            path = PATHS[value["kind"]].format(namespace=namespace)
            self.admin.create(path, value)


def kill_container(file: Path) -> None:
    """What a test left running: the first process of a container takes the rest with it."""
    running = json.loads(file.read_text())
    if (file.parent / "ended.json").exists():
        return
    for pid in (running["unshare"], running["shim"]):
        words = Path(f"/proc/{pid}/cmdline")
        if words.exists() and str(file.parent).encode() in words.read_bytes():
            os.killpg(os.getpgid(pid), signal.SIGKILL)


class Bench:
    """A driver with the agent's own rights on that cluster, and how to wait for it."""

    begin_s = 5.0
    late_s = 1.5

    def __init__(self, cluster: Cluster, folder: Path, **own: Any) -> None:
        self.cluster = cluster
        self.clock = SystemClock()
        self.folder = folder
        self.work = folder / "work"
        settings = {
            "kind": "kubernetes",
            "kubeconfig": str(cluster.kubeconfig()),
            "image": IMAGE,
            "pools": {"a100": {"product": "NVIDIA-A100", "gpus_per_node": GPUS}},
            "work_volume": {"host_path": str(self.work)},
            "look_s": 0.1,
            **own,
        }
        self.pools = [{"name": "a100", "gpu": "A100", "gpus": 8, "reserve": "1.20"}]
        self.config = a_config(folder, pools=self.pools, driver=settings)
        self.drivers: list[KubernetesDriver] = []
        self.driver = self.make()

    def make(self, *, root: str = "attempts") -> KubernetesDriver:
        """As an agent that starts anew."""
        self.driver = KubernetesDriver(
            root=self.folder / root,
            site="birch",
            settings=self.config.driver,
            clock=self.clock,
            boot=boot_id(),
            pools=("a100",),
        )
        self.drivers.append(self.driver)
        return self.driver

    def restarted(self) -> KubernetesDriver:
        return self.make()

    def now(self) -> float:
        return self.clock.boottime()

    def close(self) -> None:
        for driver in self.drivers:
            driver.close()

    @property
    def admin(self) -> ApiServer:
        return self.cluster.admin

    def start(self, attempt: str, **task: Any) -> Handle:
        return self.driver.start(self.task(attempt, **task))

    def task(self, attempt: str, **changes: Any) -> Task:
        values = {"fence_at": self.clock.boottime() + 600.0, **changes}
        return a_task(attempt, **values)

    def until(self, found: Callable[[], T], seconds: float = 30.0) -> T:
        return until(found, seconds)

    def over(self, handle: Handle, seconds: float = 30.0) -> Exit:
        found = self.until(lambda: self.driver.poll(handle).exit, seconds)
        assert found is not None
        return found

    def samples(self, handle: Handle) -> list[int]:
        self.driver.poll(handle)
        data = self.driver.progress(handle.attempt, 0, 1 << 20)
        return [json.loads(line)["samples"] for line in data.splitlines()]

    def log(self, attempt: str) -> str:
        return self.driver.logs(attempt, 0, 1 << 24).data.decode()
