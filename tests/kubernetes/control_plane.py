"""A real etcd, kube-apiserver, kube-scheduler and kube-controller-manager on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from agents.clock import SystemClock
from agents.drivers.kubernetes.access import from_kubeconfig
from agents.drivers.kubernetes.server import ApiServer, ServerAway, ServerRefused
from tests.kubernetes.certificates import Authority

PROGRAMS = ("etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager")
CONTROLLERS = (
    "job,namespace,garbagecollector,nodelifecycle,podgc,endpoint,serviceaccount,"
    "serviceaccount-token,ttl-after-finished"
)
ADMIN = "admin-of-this-test"
NAMESPACE = "hanse-jobs"


def programs() -> Path:
    home = Path.home() / ".cache" / "hanse" / "kubernetes"
    return Path(os.environ.get("HANSE_KUBERNETES") or home) / "bin"


def missing() -> list[str]:
    return [name for name in PROGRAMS if not os.access(programs() / name, os.X_OK)]


class ControlPlane:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "certificates")
        self.ports = dict(
            zip(
                ("etcd", "peer", "kube-apiserver", "kube-scheduler", "kube-controller-manager"),
                free_ports(5),
                strict=True,
            )
        )
        self.url = f"https://127.0.0.1:{self.ports['kube-apiserver']}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._prepare()
        self.admin = self.kubeconfig("admin", token=ADMIN)

    def start(self) -> None:
        for name in PROGRAMS:
            self.run(name)
        self.wait_ready()

    def run(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(programs() / name), *getattr(self, f"_{name.replace('-', '_')}")()],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

    def kill(self, name: str) -> None:
        """kill -9, as a crash would."""
        self._running[name].kill()
        self._running[name].wait()

    def close(self) -> None:
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def client(self, namespace: str = NAMESPACE) -> ApiServer:
        return ApiServer(from_kubeconfig(self.admin), SystemClock(), namespace=namespace)

    def wait_ready(self) -> None:
        client = self.client()
        answered(lambda: client.text("/readyz") == b"ok")
        answered(lambda: client.get("/api/v1/namespaces/default"))
        client.close()

    def kubeconfig(self, name: str, *, token: str = "", namespace: str = NAMESPACE) -> Path:
        """By token, or without one by the client certificate of that name."""
        user: dict[str, Any] = {"token": token}
        if not token:
            user = {
                "client-certificate": self.authority.file(name),
                "client-key": self.authority.key(name),
            }
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": self.authority.file("ca")}
        context = {"cluster": "test", "user": name, "namespace": namespace}
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(value))
        return path

    def _prepare(self) -> None:
        sign = self.authority.sign
        sign("apiserver", "/CN=apiserver", addresses="IP:127.0.0.1,DNS:localhost,IP:10.0.0.1")
        sign("to-kubelet", "/O=system:masters/CN=apiserver-to-kubelet")
        sign("kubelet", "/CN=kubelet", addresses="IP:127.0.0.1")
        sign("operator", "/O=system:masters/CN=operator")
        self.authority.key_pair("accounts")
        (self.folder / "tokens.csv").write_text(f"{ADMIN},admin,1,system:masters\n")

    def _etcd(self) -> list[str]:
        client = f"http://127.0.0.1:{self.ports['etcd']}"
        peer = f"http://127.0.0.1:{self.ports['peer']}"
        return [
            *("--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}", "--log-level", "warn"),
        ]

    def _kube_apiserver(self) -> list[str]:
        of = self.authority
        return [
            f"--etcd-servers=http://127.0.0.1:{self.ports['etcd']}",
            f"--secure-port={self.ports['kube-apiserver']}",
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={of.file('apiserver')}",
            f"--tls-private-key-file={of.key('apiserver')}",
            f"--client-ca-file={of.file('ca')}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={of.file('accounts')}",
            f"--service-account-signing-key-file={of.key('accounts')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--kubelet-certificate-authority={of.file('ca')}",
            f"--kubelet-client-certificate={of.file('to-kubelet')}",
            f"--kubelet-client-key={of.key('to-kubelet')}",
            "--kubelet-preferred-address-types=InternalIP",
            "--disable-admission-plugins=ServiceAccount",
            "--default-not-ready-toleration-seconds=2",
            "--default-unreachable-toleration-seconds=2",
            "--feature-gates=TTLAfterFinished=true",
        ]

    def _kube_scheduler(self) -> list[str]:
        return [*self._common("kube-scheduler")]

    def _kube_controller_manager(self) -> list[str]:
        return [
            *self._common("kube-controller-manager"),
            f"--controllers={CONTROLLERS}",
            f"--service-account-private-key-file={self.authority.key('accounts')}",
            f"--root-ca-file={self.authority.file('ca')}",
            "--node-monitor-period=500ms",
            "--node-monitor-grace-period=4s",
            "--pod-eviction-timeout=2s",
            "--feature-gates=TTLAfterFinished=true",
        ]

    def _common(self, name: str) -> list[str]:
        return [
            f"--kubeconfig={self.admin}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.ports[name]}",
            "--port=0",
            f"--cert-dir={self.folder / name}",
        ]


def answered(found: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until the server answers with something true."""
    deadline = time.monotonic() + seconds
    while True:
        value, why = None, "nothing true"
        try:
            value = found()
        except (ServerAway, ServerRefused) as error:
            why = str(error)
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain: {why}"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
