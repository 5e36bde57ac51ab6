"""What we ask the API server to keep for one attempt: Jobs, and for a gang a headless service.

    one node     Job hanse-<attempt>, one pod
    more nodes   Indexed Job hanse-<attempt> where the server has them (1.22 and later), else Jobs
                 hanse-<attempt>-0, -1, ...; and Service hanse-<attempt>, so that ranks find rank 0

All of a gang's pods carry one label. Ranks are Jobs even on old servers, not bare pods: the
deadline of a Job may be raised at each renewal, that of a pod may only be lowered, and a Job cleans
up after itself. Script and guard travel inside the Job, so one create is the whole start on one
node, and its name, made from the attempt, lets the server itself refuse a second.

Pure: values in, JSON out. Times are seconds.
"""

from __future__ import annotations

from typing import Any

from agents.drivers.base import Task
from agents.drivers.kubernetes.podspec import MASTER_PORT, pod_of
from agents.drivers.kubernetes.settings import LABEL_VALUE, KubernetesSettings
from agents.drivers.kubernetes.terms import (
    ATTEMPT,
    MADE,
    ORDERS,
    RANK,
    SCRIPT,
    SITE,
    SLACK_S,
    TERMS,
    Terms,
    base_name,
    deadline,
    job_names,
    site_label,
)
from agents.drivers.settings import DriverSettings
from agents.errors import DriverFailed

Json = dict[str, Any]
QUEUE = "kueue.x-k8s.io/queue-name"
MAX_SCRIPT = 200 * 1024  #: bytes; the server takes 256 KiB of annotations
MAX_ENV = 500_000  #: bytes; the server takes 1.5 MiB in all, escaped
KEPT_S = 24 * 3600  #: an ended Job that nobody removes goes by itself after this


def ranks_of(task: Task, settings: KubernetesSettings) -> int:
    """How many nodes a task is spread over; each has the same number of GPUs."""
    per_node = settings.pool(task.pool).gpus_per_node
    if per_node is None or task.gpus <= per_node:
        return 1
    if task.gpus % per_node:
        raise DriverFailed(
            f"{task.gpus} GPUs cannot be spread evenly over nodes with {per_node} each"
        )
    return task.gpus // per_node


def terms_of(task: Task, settings: KubernetesSettings, *, indexed: bool) -> Terms:
    ranks = ranks_of(task, settings)
    return Terms(
        gpus=task.gpus,
        ranks=ranks,
        grace_s=task.grace_s,
        lead_s=task.fence_lead_s,
        log_cap_bytes=task.log_cap_bytes,
        indexed=indexed and ranks > 1,
    )


def jobs_of(
    task: Task,
    *,
    terms: Terms,
    site: str,
    settings: DriverSettings,
    fence_s: float,
    made: str,
) -> list[Json]:
    """The Jobs to create, the one that a second start collides with first.

    `fence_s`: from now to the fence. `made` tells this start from any other.
    """
    own: KubernetesSettings = settings.own
    if not LABEL_VALUE.fullmatch(task.attempt):
        raise DriverFailed("the attempt's id cannot be the value of a label")
    size = sum(len(name.encode()) + len(text.encode()) for name, text in task.env.items())
    if size > MAX_ENV:
        raise DriverFailed(f"its variables take {size} bytes; Kubernetes takes {MAX_ENV}")
    if len(script_of(task).encode()) > MAX_SCRIPT:
        raise DriverFailed(f"command and setup may have {MAX_SCRIPT} bytes together on Kubernetes")
    names = job_names(task.attempt, terms)
    return [
        _job(
            name,
            task=task,
            terms=terms,
            site=site,
            settings=settings,
            rank=None if terms.indexed else rank,
            deadline_s=own.start_within_s + max(fence_s, 0.0) + SLACK_S,
            made=made,
        )
        for rank, name in enumerate(names)
    ]


def service_of(attempt: str, *, site: str, owner: Json) -> Json:
    """Gives the pods of a gang their names; goes with the Job that owns it."""
    labels = {ATTEMPT: attempt, SITE: site_label(site)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": base_name(attempt),
            "labels": labels,
            "ownerReferences": [_reference(owner)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [{"name": "rendezvous", "port": MASTER_PORT}],
        },
    }


def _job(
    name: str,
    *,
    task: Task,
    terms: Terms,
    site: str,
    settings: DriverSettings,
    rank: int | None,
    deadline_s: float,
    made: str,
) -> Json:
    own: KubernetesSettings = settings.own
    labels = {ATTEMPT: task.attempt, SITE: site_label(site)}
    if rank is not None:
        labels[RANK] = str(rank)
    queue = {QUEUE: own.queue} if own.queue else {}
    indexed = {"completionMode": "Indexed"} if rank is None else {}
    pods = terms.ranks if rank is None else 1
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": {**labels, **queue},
            "annotations": {TERMS: terms.text(), MADE: made},
        },
        "spec": {
            "completions": pods,
            "parallelism": pods,
            **indexed,
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline(deadline_s),
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {ORDERS: "", SCRIPT: script_of(task)},
                },
                "spec": pod_of(name, task, terms, site, settings, rank),
            },
        },
    }


def script_of(task: Task) -> str:
    """The tenant's own words; a set-up that fails ends the attempt."""
    setup = f"set -e\n{task.setup}\nset +e\n" if task.setup.strip() else ""
    return f"{setup}{task.command}\n"


def _reference(owner: Json) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
