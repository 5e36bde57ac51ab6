"""The pod of one rank: the job's container with its guard, and the one that tells its progress.

    /run/hanse/   own/script   orders/orders   run/{progress.jsonl,clock,over}   work/   end

`own` and `orders` are annotations of the pod itself, `run` is shared by the two containers, `end`
is the termination message. Values and words reach the job as they are: no shell sees them, and
what Kubernetes would replace in them is escaped.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any

from agents.drivers.base import Task
from agents.drivers.environment import THREAD_LIMITS, job_environment
from agents.drivers.kubernetes.settings import KubernetesSettings
from agents.drivers.kubernetes.terms import (
    CENTI,
    FORWARD,
    INDEX,
    JOB,
    LONGEST_CS,
    ORDERS,
    SCRIPT,
    Terms,
    base_name,
)
from agents.drivers.settings import DriverSettings

Json = dict[str, Any]
BASE = PurePosixPath("/run/hanse")  #: ours in a container
RUN, WORK = BASE / "run", BASE / "work"
MASTER_PORT = 29500
SHELL = 'if command -v bash >/dev/null 2>&1; then exec bash "$0"; else exec sh "$0"; fi'
GUARD = Path(__file__).with_name("guard.sh")
FORWARDER = Path(__file__).with_name("forward.sh")
DROPPED = ("PATH", "CUDA_VISIBLE_DEVICES")  #: the image's and the device plugin's to say


def pod_of(
    name: str, task: Task, terms: Terms, site: str, settings: DriverSettings, rank: int | None
) -> Json:
    own: KubernetesSettings = settings.own
    gang: Json = {"subdomain": base_name(task.attempt)} if terms.ranks > 1 else {}
    if terms.ranks > 1 and rank is not None:
        gang["hostname"] = name
    image = own.pool(task.pool).image or own.image
    run = {"name": "HANSE_RUN", "value": str(RUN)}
    return {
        **gang,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": math.ceil(task.grace_s) + 5,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": own.selector(task.pool),
        "tolerations": [{"key": own.resource, "operator": "Exists", "effect": "NoSchedule"}],
        "imagePullSecrets": [{"name": secret} for secret in own.image_pull_secrets],
        "securityContext": _identity(own),
        "containers": [
            {
                "name": JOB,
                "image": image,
                "command": ["/bin/sh", "-c", _shell(GUARD), "guard", *_words(task, own)],
                "env": [*_environment(task, terms, site, settings, rank), run],
                "resources": _resources(task, terms, settings),
                "terminationMessagePath": str(BASE / "end"),
                "securityContext": _rights(own),
                "volumeMounts": [
                    {"name": "own", "mountPath": str(BASE / "own"), "readOnly": True},
                    {"name": "orders", "mountPath": str(BASE / "orders"), "readOnly": True},
                    {"name": "run", "mountPath": str(RUN)},
                    {"name": "memory", "mountPath": "/dev/shm"},  # noqa: S108 - the pod's own
                    {"name": "work", "mountPath": str(WORK), **_share_of(task, own)},
                ],
            },
            {
                "name": FORWARD,
                "image": image,
                "command": ["/bin/sh", "-c", _shell(FORWARDER), "forward"],
                "env": [run],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"},
                    "limits": {"memory": "64Mi"},
                },
                "securityContext": _rights(own),
                "volumeMounts": [{"name": "run", "mountPath": str(RUN)}],
            },
        ],
        "volumes": [
            _annotation("own", {"script": SCRIPT}),
            _annotation("orders", {"orders": ORDERS}),
            {"name": "run", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "work", **_work(own)},
        ],
    }


def _identity(own: KubernetesSettings) -> Json:
    """With a user who is not root, what the restricted pod security standard asks for."""
    if not own.run_as_user:
        return {}
    user = own.run_as_user
    profile = {"seccompProfile": {"type": "RuntimeDefault"}}
    return {"runAsUser": user, "runAsGroup": user, "fsGroup": user, "runAsNonRoot": True, **profile}


def _rights(own: KubernetesSettings) -> Json:
    dropped = {"capabilities": {"drop": ["ALL"]}} if own.run_as_user else {}
    return {"allowPrivilegeEscalation": False, **dropped}


def _annotation(name: str, files: dict[str, str]) -> Json:
    """A volume that the kubelet keeps equal to annotations of the pod."""
    items = [
        {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{key}']"}}
        for file, key in files.items()
    ]
    return {"name": name, "downwardAPI": {"items": items}}


def _shell(program: Path) -> str:
    """A program of ours as one word."""
    return plain(program.read_text(encoding="utf-8"))


def _words(task: Task, own: KubernetesSettings) -> list[str]:
    """The guard's own arguments, then the job's words."""
    limits = [task.max_runtime_s, task.grace_s, own.start_within_s]
    numbers = [str(min(round(limit * CENTI), LONGEST_CS)) for limit in limits]
    words = list(task.argv) or ["sh", "-c", SHELL, str(BASE / "own" / "script")]
    return [*numbers, *(plain(word) for word in words)]


def _environment(
    task: Task, terms: Terms, site: str, settings: DriverSettings, rank: int | None
) -> list[Json]:
    values = job_environment(
        task,
        site=site,
        site_env=settings.env,
        work=Path(WORK),
        progress=Path(RUN / "progress.jsonl"),
        threads_per_gpu=settings.threads_per_gpu,
    )
    for name in DROPPED:
        if name not in settings.env:
            values.pop(name, None)
    if settings.threads_per_gpu is not None:
        threads = settings.threads_per_gpu * task.gpus // terms.ranks  # of one node
        said = task.env.keys() | settings.env.keys()
        values.update({name: str(threads) for name in THREAD_LIMITS if name not in said})
    gang = _place(task.attempt, terms, rank) if terms.ranks > 1 else []
    taken = {item["name"] for item in gang}
    own = [
        {"name": name, "value": plain(text)} for name, text in values.items() if name not in taken
    ]
    return [*own, *gang]


def _place(attempt: str, terms: Terms, rank: int | None) -> list[Json]:
    """What torchrun and MPI-like launchers want to know of their place."""
    base = base_name(attempt)
    first = f"{base}-0" if rank is None else base
    values = {
        "MASTER_ADDR": f"{first}.{base}",
        "MASTER_PORT": str(MASTER_PORT),
        "NNODES": str(terms.ranks),
        "HANSE_NODES": str(terms.ranks),
        "HANSE_GPUS_PER_NODE": str(terms.gpus // terms.ranks),
    }
    found: list[Json] = [{"name": name, "value": text} for name, text in values.items()]
    place: Json = {"value": str(rank)}
    if rank is None:
        place = {"valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}
    names = ("NODE_RANK", "PET_NODE_RANK", "HANSE_NODE_RANK")
    return [*found, *({"name": name, **place} for name in names)]


def _resources(task: Task, terms: Terms, settings: DriverSettings) -> Json:
    """Of one rank."""
    own: KubernetesSettings = settings.own
    gpus = task.gpus // terms.ranks
    limits = {own.resource: str(gpus)}
    if settings.memory_mb_per_gpu is not None:
        limits["memory"] = f"{settings.memory_mb_per_gpu * gpus}Mi"
    found: Json = {"limits": limits}
    if settings.threads_per_gpu is not None:
        found["requests"] = {"cpu": str(settings.threads_per_gpu * gpus)}
    return found


def _work(own: KubernetesSettings) -> Json:
    if own.claim:
        return {"persistentVolumeClaim": {"claimName": own.claim}}
    if own.host_path:
        return {"hostPath": {"path": own.host_path, "type": "DirectoryOrCreate"}}
    return {"emptyDir": {}}


def _share_of(task: Task, own: KubernetesSettings) -> Json:
    """Attempts of one job share a folder where the volume outlives the pod."""
    return {"subPath": task.job} if own.claim or own.host_path else {}


def plain(text: str) -> str:
    """Kubernetes replaces $(NAME) in words and values: a doubled $ is one that it leaves alone."""
    return text.replace("$", "$$")
