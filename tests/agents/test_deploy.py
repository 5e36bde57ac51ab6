"""What is handed to systemd, to a container builder and to Kubernetes is whole and closed."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_group

from agents.cli import app
from agents.config import parse
from tests.agents.making import ROOT

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "hanse-agent.service"
DOCKERFILE = DEPLOY / "container" / "agent.Dockerfile"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DEPLOYMENT = DEPLOY / "kubernetes" / "agent-deployment.yaml"
EXPOSURE = "40"  #: tenths: systemd's own measure, which calls 0 to 49 OK or better
USER = 10001


def unit() -> dict[str, str]:
    """Keys of [Service]; each stands once."""
    reader = ConfigParser(interpolation=None, strict=True)
    reader.optionxform = str  # type: ignore[assignment,method-assign] - keys keep their case
    reader.read_string(UNIT.read_text())
    return dict(reader["Service"])


def is_agent_command(words: list[str]) -> bool:
    """`hanse agent run --config FILE`, as the program itself knows it."""
    name, group, command, option, _ = words
    known = get_group(app).commands[command]
    flags = {flag for parameter in known.params for flag in parameter.opts}
    return Path(name).name == "hanse" and group == "agent" and option in flags


# -- systemd --------------------------------------------------------------------------------------


def test_the_unit_runs_the_agent_and_leaves_its_jobs_alone() -> None:
    service = unit()
    assert is_agent_command(service["ExecStart"].split())
    assert service["User"] not in ("", "root", "0")
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert service["Restart"] == "on-failure"
    # jobs that outlive a restart keep their files and their shared memory
    assert service["PrivateTmp"] == service["RemoveIPC"] == "no"
    assert "RuntimeDirectory" not in service


def test_the_unit_is_closed() -> None:
    service = unit()
    yes = ("NoNewPrivileges", "ProtectClock", "ProtectControlGroups", "ProtectHostname")
    yes += ("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectHome")
    yes += ("RestrictSUIDSGID", "RestrictRealtime", "LockPersonality")
    assert {service[key] for key in yes} == {"yes"}
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ""
    assert service["ReadWritePaths"] == f"/var/lib/{service['StateDirectory']}"
    assert service["UMask"] == "0077"


def test_systemd_itself_finds_it_closed() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    words = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}"]
    done = subprocess.run([*words, str(UNIT)], capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than 250 and reads no files")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


# -- container ------------------------------------------------------------------------------------


def instructions() -> list[list[str]]:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
    lines = instructions()
    images = [line[1] for line in lines if line[0] == "FROM"]
    assert images
    assert all(re.fullmatch(r"python:[0-9]+\.[0-9]+\.[0-9]+-slim-[a-z]+", name) for name in images)
    [user] = [line[1] for line in lines if line[0] == "USER"]
    assert user == f"{USER}:{USER}"
    assert not any(line[0] in ("ADD", "EXPOSE") for line in lines)


def test_the_image_has_what_it_copies_and_the_base_install_alone() -> None:
    lines = instructions()
    sources = [
        w for line in lines if line[0] == "COPY" and "--from" not in line[1] for w in line[1:-1]
    ]
    assert all((ROOT / source).exists() for source in sources)
    packages = re.search(
        r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert packages is not None
    assert set(re.findall(r'"(\w+)"', packages[1])) <= set(sources)
    [requirements] = [line[1].partition("=")[2] for line in lines if line[0] == "ARG"]
    pinned = (ROOT / requirements).read_text().lower()
    assert not re.search(r"^(django|numpy|cvxpy|scipy)\b", pinned, re.MULTILINE)


def test_the_image_starts_the_agent() -> None:
    words: list[str] = []
    for line in instructions():
        if line[0] in ("ENTRYPOINT", "CMD"):
            words += yaml.safe_load(" ".join(line[1:]))
    assert is_agent_command(words)


# -- Kubernetes -----------------------------------------------------------------------------------


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def of_kind(kind: str) -> dict[str, Any]:
    [found] = [one for one in documents(DEPLOYMENT) if one["kind"] == kind]
    return found


def containers() -> list[dict[str, Any]]:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_whole_and_hold_no_secret(path: Path) -> None:
    found = documents(path)
    assert found
    for one in found:
        assert one["apiVersion"]
        assert one["kind"] != "Secret"
        assert one["metadata"]["name"]
    text = path.read_text()
    assert not re.search(r"hs_[A-Za-z0-9]{8,}|BEGIN [A-Z ]*PRIVATE KEY|password", text)


def test_one_agent_at_a_time_with_a_disk_of_its_own() -> None:
    deployment = of_kind("Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in deployment["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [of_kind("PersistentVolumeClaim")["metadata"]["name"]]


def test_the_pod_is_closed() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == USER
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not any("hostPath" in volume for volume in pod["volumes"])
    known = {volume["name"] for volume in pod["volumes"]}
    for container in containers():
        locked = container["securityContext"]
        assert locked["allowPrivilegeEscalation"] is False
        assert locked["readOnlyRootFilesystem"] is True
        assert locked["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} == container["resources"]["limits"].keys()
        assert {mount["name"] for mount in container["volumeMounts"]} <= known
        assert "env" not in container
        assert not re.search(r":latest$|/[^:]+$", container["image"])
    [policy] = [one for one in documents(DEPLOYMENT) if one["kind"] == "NetworkPolicy"]
    assert (policy["spec"]["policyTypes"], policy["spec"]["ingress"]) == (["Ingress"], [])


def test_its_account_is_the_one_with_least_rights() -> None:
    rights = [one for path in MANIFESTS for one in documents(path)]
    account = of_kind("Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    place = of_kind("Deployment")["metadata"]["namespace"]
    accounts = [
        (one["metadata"]["name"], one["metadata"]["namespace"])
        for one in rights
        if one["kind"] == "ServiceAccount"
    ]
    assert (account, place) in accounts
    rules = [rule for one in rights for rule in one.get("rules", ())]
    for rule in rules:
        assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
        assert not {"secrets", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])


def test_its_configuration_is_one_that_the_agent_reads(tmp_path: Path) -> None:
    [(name, text)] = of_kind("ConfigMap")["data"].items()
    config = parse(yaml.safe_load(text), folder=tmp_path)
    assert config.driver.kind == "kubernetes"
    *_, agent = containers()
    assert is_agent_command([*agent["command"], *agent["args"]])
    mounts = {mount["name"]: mount["mountPath"] for mount in agent["volumeMounts"]}
    assert f"{mounts['configuration']}/{name}" == agent["args"][-1]
    assert mounts["state"] == str(config.state)


def test_the_join_step_is_a_script_that_a_shell_reads() -> None:
    join, _ = containers()
    [script] = join["args"]
    done = subprocess.run(["sh", "-n", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "hanse agent join" in script
    assert "join" in get_group(app).commands
