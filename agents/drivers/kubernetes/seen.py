"""What the API server's objects say of an attempt: pure reading, no calls.

Every ending has a reason that fits whose doing it was, and a sentence in the cluster's own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.drivers.base import Exit
from agents.drivers.kubernetes.terms import FORWARD, INDEX, JOB, RANK
from agents.protocol import EndReason

Json = dict[str, Any]
#: A container that waits for one of these will not start by waiting longer.
HOPELESS = frozenset(
    {
        *("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"),
        *("CreateContainerError", "RunContainerError", "ImageInspectError"),
    }
)
PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
NOT_STARTED = frozenset({"ContainerCannotRun", "StartError", "CreateContainerError"})
LONGEST = 1000  #: characters of a sentence from the cluster
#: The guard's words that are no EndReason of their own.
DELETED = "its pod was deleted at the site: by hand, by a drain or by a preemption"
WORDS = {
    "deleted": (EndReason.DRIVER_FAILED, DELETED),
    "unconfirmed": (EndReason.FENCED, "no agent released it before its patience was over"),
    "failed": (EndReason.DRIVER_FAILED, "its work folder is not usable"),
    "gang": (EndReason.LOST, "another node of the job was over"),
}
FENCED = "the broker was out of reach for too long"
LIMIT = "the runtime limit was reached"


@dataclass(frozen=True, slots=True)
class Pod:
    """One rank's pod as last seen."""

    name: str
    uid: str
    rank: int
    node: str
    phase: str
    running: bool  #: the job's container, guard included
    telling: bool  #: the forwarder's container has begun, so its log can be read
    told: bool  #: the forwarder has ended, so its log is whole
    begun: bool  #: the job's container has begun, so its log can be read
    ready: bool
    leaving: bool  #: somebody deleted it
    trouble: str  #: why it does not start, in the cluster's words
    hopeless: bool
    pulling: bool  #: an image that could not be pulled so far
    exit: Exit | None  #: `ended` is left out
    ended_cs: int | None  #: on the pod's own clock
    said: str = ""  #: the guard's word for it


def pod(value: Json) -> Pod:
    metadata, status = value["metadata"], value.get("status") or {}
    job, forward = _container(status, JOB), _container(status, FORWARD)
    state = job.get("state") or {}
    waiting = state.get("waiting") or {}
    word, code, ended_cs = _last_words((state.get("terminated") or {}).get("message") or "")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        rank=_rank(metadata),
        node=(value.get("spec") or {}).get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        running="running" in state,
        telling=_has_begun(forward),
        told="terminated" in (forward.get("state") or {}),
        begun=_has_begun(job),
        ready=_condition(status, "Ready").get("status") != "False",
        leaving=bool(metadata.get("deletionTimestamp")),
        trouble=_trouble(status, waiting),
        hopeless=waiting.get("reason") in HOPELESS,
        pulling=waiting.get("reason") in PULLING,
        exit=_ending(status, state.get("terminated"), word, code),
        ended_cs=ended_cs,
        said=word,
    )


def failed_by_deadline(job: Json) -> bool:
    """The control plane's own fence has ended it."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(
        item.get("type") == "Failed"
        and item.get("status") == "True"
        and item.get("reason") == "DeadlineExceeded"
        for item in conditions
    )


def _rank(metadata: Json) -> int:
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    text = labels.get(RANK) or notes.get(INDEX) or "0"
    return int(text) if text.isdigit() else 0


def _container(status: Json, name: str) -> Json:
    for item in status.get("containerStatuses") or []:
        if item.get("name") == name:
            return dict(item)
    return {}


def _has_begun(container: Json) -> bool:
    state = container.get("state") or {}
    return "running" in state or "terminated" in state


def _condition(status: Json, kind: str) -> Json:
    for item in status.get("conditions") or []:
        if item.get("type") == kind:
            return dict(item)
    return {}


def _trouble(status: Json, waiting: Json) -> str:
    """The forwarder has the same image, so the job's container speaks for both."""
    if waiting.get("reason"):
        return _sentence(waiting["reason"], waiting.get("message"))
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return _sentence(scheduled.get("reason"), scheduled.get("message"))
    return ""


def _sentence(reason: str | None, message: str | None) -> str:
    return ": ".join(part for part in (reason, message) if part)[:LONGEST]


def _last_words(message: str) -> tuple[str, int | None, int | None]:
    """The guard's REASON, CODE and the time on its clock; empty when it could not write them."""
    parts = message.split()
    if len(parts) != 3 or not parts[2].isdigit():
        return "", None, None
    return parts[0], int(parts[1]) if parts[1].isdigit() else None, int(parts[2])


def _ending(status: Json, terminated: Json | None, word: str, code: int | None) -> Exit | None:
    if status.get("reason") == "Evicted":
        return Exit(EndReason.DRIVER_FAILED, code, _sentence("evicted", status.get("message")))
    if terminated is not None:
        return _ended(terminated, word, code)
    if status.get("phase") in ("Failed", "Succeeded"):
        why = _sentence(status.get("reason"), status.get("message")) or "without a reason"
        return Exit(
            EndReason.DRIVER_FAILED, None, f"the pod ended before its container was seen: {why}"
        )
    return None


def _ended(terminated: Json, word: str, code: int | None) -> Exit:
    reason = terminated.get("reason") or ""
    said = _sentence(reason, None if word else terminated.get("message"))
    if reason == "OOMKilled":
        code = terminated.get("exitCode") if code is None else code
        return Exit(EndReason.EXITED, code, "OOMKilled: it used more memory than its limit")
    if reason in NOT_STARTED:
        return Exit(EndReason.DRIVER_FAILED, None, f"its container could not be started: {said}")
    if not word:
        raw = terminated.get("exitCode")
        return Exit(EndReason.LOST, raw, f"its container was killed with the guard in it: {said}")
    if word in WORDS:
        known, why = WORDS[word]
        return Exit(known, code, why)
    return Exit(_reason(word), code, _why(word, code))


def _reason(word: str) -> EndReason:
    try:
        return EndReason(word)
    except ValueError:
        return EndReason.LOST


def _why(word: str, code: int | None) -> str:
    if word == EndReason.FENCED:
        return FENCED
    if word == EndReason.RUNTIME_LIMIT:
        return LIMIT
    if word == EndReason.EXITED and code is not None and code > 128:
        return f"ended by signal {code - 128}"
    return ""
