"""One pod on this host: its volumes, its containers as processes, and the status they give.

As the kubelet does: $(NAME) is replaced in words and values, annotations become files, a container
ends with its first process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.drivers import processes

Json = dict[str, Any]
SHIM = Path(__file__).with_name("shim.py")
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FIELD = re.compile(r"metadata\.annotations\['(.*)'\]")
UNITS = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def expand(text: str, env: dict[str, str]) -> str:
    """$(NAME) by the value known so far, $$ by $; everything else stays."""

    def value(match: re.Match[str]) -> str:
        whole = match.group(0)
        return "$" if whole == "$$" else env.get(whole[2:-1], whole)

    return re.sub(r"\$\$|\$\([^()$]*\)", value, text)


class Container:
    def __init__(self, folder: Path, spec: Json) -> None:
        self.folder = folder
        self.spec = spec
        self.name: str = spec["name"]
        self.asked_to_stop: float | None = None

    def start(self, mounts: list[list[str]], env: dict[str, str]) -> None:
        self.folder.mkdir(parents=True)
        end = self.folder / "end"
        end.touch()
        end.chmod(0o666)
        path = self.spec.get("terminationMessagePath") or "/dev/termination-log"
        target = path if path.startswith("/run/") else "/run/termination-log"
        argv = [expand(word, env) for word in self.spec["command"] + (self.spec.get("args") or [])]
        value = {"argv": argv, "env": env, "mounts": [*mounts, [str(end), target, "rw"]]}
        (self.folder / "container.json").write_text(json.dumps(value))
        subprocess.Popen(
            [sys.executable, str(SHIM), str(self.folder)],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def started(self) -> Json | None:
        return read(self.folder / "running.json")

    @property
    def ended(self) -> Json | None:
        return read(self.folder / "ended.json")

    def first_process(self) -> int | None:
        """Process 1 of the container, as this host counts."""
        running = self.started
        if running is None or self.ended is not None:
            return None
        children = [p for p in processes.everybody() if p.parent == running["unshare"]]
        return children[0].pid if children else None

    def signal(self, number: int) -> None:
        pid = self.first_process()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def keep_memory_limit(self) -> None:
        """What the kernel does in a memory cgroup: the largest process is killed."""
        limit = bytes_of(((self.spec.get("resources") or {}).get("limits") or {}).get("memory"))
        pid = self.first_process()
        if limit is None or pid is None:
            return
        sizes = {one.pid: resident(one.pid) for one in processes.descendants(pid)}
        if sum(sizes.values()) > limit:
            (self.folder / "oom").touch()
            with contextlib.suppress(ProcessLookupError):
                os.kill(max(sizes, key=lambda one: sizes[one]), signal.SIGKILL)

    def status(self, waiting: Json | None) -> Json:
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": "",
            "restartCount": 0,
            "ready": self.started is not None and self.ended is None,
            "started": self.started is not None,
            "state": self._state(waiting),
        }

    def _state(self, waiting: Json | None) -> Json:
        started, ended = self.started, self.ended
        if started is None:
            return {"waiting": waiting or {"reason": "ContainerCreating"}}
        if ended is None:
            return {"running": {"startedAt": stamp(started["at"])}}
        reason = "Completed" if ended["code"] == 0 else "Error"
        return {
            "terminated": {
                "exitCode": ended["code"],
                "reason": "OOMKilled" if (self.folder / "oom").exists() else reason,
                "message": (self.folder / "end").read_text()[:4096],
                "startedAt": stamp(started["at"]),
                "finishedAt": stamp(ended["at"]),
            }
        }


class Volumes:
    """Folders and files of one pod; those made of annotations follow the pod."""

    def __init__(self, folder: Path, spec: Json) -> None:
        self.folder = folder
        self.spec = {volume["name"]: volume for volume in spec.get("volumes") or []}

    def refresh(self, pod: Json) -> None:
        for name, volume in self.spec.items():
            path = self.folder / name
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)
            for item in (volume.get("downwardAPI") or {}).get("items") or []:
                replace(path / item["path"], field(pod, item["fieldRef"]["fieldPath"]))

    def mounts(self, container: Json) -> list[list[str]]:
        found = []
        for mount in container.get("volumeMounts") or []:
            host = (self.spec[mount["name"]].get("hostPath") or {}).get("path")
            source = Path(host) if host else self.folder / mount["name"]
            source = source / mount["subPath"] if "subPath" in mount else source
            source.mkdir(parents=True, exist_ok=True)
            how = "ro" if mount.get("readOnly") else "rw"
            found.append([str(source), mount["mountPath"], how])
        return found


def environment(pod: Json, container: Json) -> dict[str, str]:
    env: dict[str, str] = {"PATH": IMAGE_PATH, "HOSTNAME": hostname(pod)}
    for item in container.get("env") or []:
        source = item.get("valueFrom")
        env[item["name"]] = (
            field(pod, source["fieldRef"]["fieldPath"])
            if source
            else expand(item.get("value", ""), env)
        )
    return env


def hostname(pod: Json) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])


def field(pod: Json, path: str) -> str:
    match = FIELD.fullmatch(path)
    if match:
        return str((pod["metadata"].get("annotations") or {}).get(match.group(1), ""))
    value: Any = pod
    for part in path.split("."):
        value = value[part]
    return str(value)


def replace(path: Path, text: str) -> None:
    """Only when it changed, and whole."""
    if path.exists() and path.read_text() == text:
        return
    draft = path.with_name(f".{path.name}")
    draft.write_text(text)
    draft.chmod(0o644)
    os.replace(draft, path)


def bytes_of(text: str | None) -> int | None:
    if text is None:
        return None
    return int(text[:-2]) * UNITS[text[-2:]] if text[-2:] in UNITS else int(text)


def resident(pid: int) -> int:
    """Bytes."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def read(path: Path) -> Json | None:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None
