"""The manifest's rights are enough for the driver, and nothing beyond it is allowed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agents.clock import SystemClock
from agents.drivers.kubernetes.access import from_kubeconfig, in_cluster
from agents.drivers.kubernetes.server import ApiServer, ServerRefused
from tests.kubernetes.control_plane import NAMESPACE
from tests.kubernetes.site import Bench

CORE = "/api/v1/namespaces"
POD = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "main", "image": "i", "command": ["true"]}]},
}


@pytest.fixture
def agent(bench: Bench) -> Iterator[ApiServer]:
    access = from_kubeconfig(bench.cluster.kubeconfig())
    client = ApiServer(access, SystemClock(), namespace=NAMESPACE)
    yield client
    client.close()


@pytest.mark.parametrize(
    "path",
    [
        f"{CORE}/{NAMESPACE}/secrets",
        f"{CORE}/{NAMESPACE}/configmaps",
        f"{CORE}/{NAMESPACE}/services",
        f"{CORE}/{NAMESPACE}/serviceaccounts",
        f"{CORE}/default/secrets",
        "/apis/batch/v1/namespaces/default/jobs",
        "/apis/batch/v1/namespaces/kube-system/jobs",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/api/v1/persistentvolumes",
    ],
)
def test_it_cannot_read_what_it_does_not_need(agent: ApiServer, path: str) -> None:
    with pytest.raises(ServerRefused) as refused:
        agent.get(path)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{CORE}/{NAMESPACE}/pods", POD),
        (f"{CORE}/default/pods", POD),
        (f"{CORE}/{NAMESPACE}/secrets", {"metadata": {"name": "s"}}),
        (f"{CORE}/{NAMESPACE}/pods/p/exec", {}),
        ("/apis/batch/v1/namespaces/default/jobs", {"metadata": {"name": "j"}}),
    ],
)
def test_it_cannot_make_what_it_does_not_need(
    agent: ApiServer, path: str, value: dict[str, object]
) -> None:
    with pytest.raises(ServerRefused) as refused:
        agent.create(path, value)
    assert refused.value.status == 403


@pytest.mark.parametrize("path", [f"{CORE}/{NAMESPACE}/pods/p", "/api/v1/nodes/n1"])
def test_it_cannot_remove_pods_or_change_nodes(agent: ApiServer, path: str) -> None:
    with pytest.raises(ServerRefused) as refused:
        agent.delete(path)
    assert refused.value.status == 403


def test_a_pod_of_a_job_has_no_token(bench: Bench) -> None:
    handle = bench.start("a1", command="ls /var/run/secrets/kubernetes.io 2>&1; true")
    bench.over(handle)
    [pod] = bench.cluster.pods("a1")
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "No such file" in bench.log("a1")


def test_a_mounted_token_is_read_anew_for_each_call(bench: Bench) -> None:
    """As in a pod of the agent's own: address by environment, token and authority by files."""
    folder = bench.folder / "serviceaccount"
    folder.mkdir()
    kubeconfig = bench.cluster.kubeconfig()
    (folder / "token").write_text("not-yet-a-token")
    (folder / "namespace").write_text(NAMESPACE)
    plane = bench.cluster.plane
    authority = plane.folder / "certificates" / "ca.pem"
    (folder / "ca.crt").write_bytes(authority.read_bytes())
    port = str(plane.ports["kube-apiserver"])
    where = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
    access = in_cluster(where, folder=folder)
    client = ApiServer(access, SystemClock(), namespace=access.namespace)
    path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    with pytest.raises(ServerRefused) as refused:
        client.get(path)
    assert refused.value.status == 401
    (folder / "token").write_text(from_kubeconfig(kubeconfig).token() + "\n")
    assert client.get(path)["kind"] == "JobList"
    client.close()


def test_a_client_certificate_is_enough(bench: Bench) -> None:
    access = from_kubeconfig(bench.cluster.plane.kubeconfig("operator"))
    client = ApiServer(access, SystemClock(), namespace=NAMESPACE)
    assert client.get("/api/v1/nodes")["kind"] == "NodeList"
    client.close()
