"""What Slurm's commands print, as values. Pure.

Two shapes of JSON are about: until 22.05 a number is plain and a state is one word; since 23.02 a
number is {"set", "infinite", "number"} and a state a list of words. Both are read at every place,
whatever the version says, because vendors patch. Text is read where there is no JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

QUEUE_FORMAT = "%A|%T|%r|%u|%P|%D|%b|%j"  #: the name last: it may hold anything
QUEUE_FIELDS = 8
PAIR = re.compile(r"(\w+)=(\S*)")
TIME = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")
UNAVAILABLE = frozenset(
    {
        *("DOWN", "DRAIN", "DRAINING", "DRAINED", "FAIL", "FAILING", "ERROR", "UNKNOWN", "FUTURE"),
        *("NOT_RESPONDING", "NO_RESPOND", "MAINT", "MAINTENANCE", "REBOOT_REQUESTED", "INVALID"),
        *("POWERED_DOWN", "POWERING_DOWN", "INVALID_REG", "REBOOT_ISSUED"),
    }
)


@dataclass(frozen=True, slots=True)
class JobSeen:
    job: int
    name: str
    states: frozenset[str]  #: in capitals; more than one when it is, say, completing as well
    reason: str = ""  #: why it waits or ended, Slurm's word
    user: str = ""
    partition: str = ""
    gpus: int = 0  #: held, or asked for while it waits


@dataclass(frozen=True, slots=True)
class NodeSeen:
    name: str
    states: frozenset[str]
    partitions: frozenset[str]
    gpus: dict[str, int]  #: kind of GPU ("" when Slurm names none) -> count
    gpus_used: dict[str, int]
    cores: int = 0
    memory_mb: int = 0

    @property
    def available(self) -> bool:
        return not self.states & UNAVAILABLE


def number(value: Any) -> int | None:
    """Either shape; None when it is not set, infinite or no number."""
    if isinstance(value, dict):
        if value.get("infinite") or value.get("set") is False:
            return None
        value = value.get("number")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value)


def words(value: Any) -> frozenset[str]:
    """States of either shape, in capitals."""
    given = value if isinstance(value, list) else [value]
    text = " ".join(str(item) for item in given if item is not None)
    return frozenset(re.findall(r"[A-Z_]+", text.upper()))


def gpus(text: str) -> dict[str, int]:
    """`gpu:a100:4(S:0-1),gpu:2` or `gres/gpu:a100=4` -> kind to count; other gres aside."""
    found: dict[str, int] = {}
    plain = re.sub(r"\([^)]*\)", "", text.replace(":(null)", "").replace("=", ":"))
    for item in plain.split(","):
        first, *parts = re.sub(r"^gres[:/]", "", item.strip()).split(":")
        if first != "gpu":
            continue
        count = int(parts.pop()) if parts and parts[-1].isdecimal() else 1
        kind = parts[0] if parts else ""
        found[kind] = found.get(kind, 0) + count
    return found


def jobs(text: str) -> list[JobSeen]:
    """Of `squeue --json` or `scontrol show job --json`; raises ValueError when it is neither."""
    return [_job(item) for item in _items(text, "jobs")]


def nodes(text: str) -> list[NodeSeen]:
    """Of `sinfo --json` (22.05) or `scontrol show node --json`; raises ValueError otherwise."""
    return [_node(item) for item in _items(text, "nodes")]


def jobs_of_text(text: str) -> list[JobSeen]:
    """Of `squeue --noheader --format=QUEUE_FORMAT`."""
    found = []
    for line in text.splitlines():
        fields = line.split("|", QUEUE_FIELDS - 1)
        if len(fields) < QUEUE_FIELDS or not fields[0].isdigit():
            continue
        job, state, reason, user, partition, count, gres, name = fields
        nodes_asked = int(count) if count.isdigit() else 1
        asked = sum(gpus(gres).values()) * nodes_asked
        found.append(JobSeen(int(job), name, words(state), reason, user, partition, asked))
    return found


def nodes_of_text(text: str) -> list[NodeSeen]:
    """Of `scontrol --details --oneliner show node`."""
    found = []
    for line in text.splitlines():
        item = dict(PAIR.findall(line))
        if "NodeName" not in item:
            continue
        found.append(
            NodeSeen(
                name=item["NodeName"],
                states=words(item.get("State", "").replace("*", " NOT_RESPONDING")),
                partitions=frozenset(filter(None, item.get("Partitions", "").split(","))),
                gpus=gpus(item.get("Gres", "")),
                gpus_used=gpus(item.get("GresUsed", "")),
                cores=int(item.get("CPUTot", "0") or 0),
                memory_mb=int(item.get("RealMemory", "0") or 0),
            )
        )
    return found


def partition_limits(text: str) -> dict[str, float | None]:
    """Of `scontrol --oneliner show partition`: name -> longest job in seconds, None = no limit.

    The default partition is there once more under the empty name.
    """
    found: dict[str, float | None] = {}
    for line in text.splitlines():
        item = dict(PAIR.findall(line))
        if "PartitionName" in item:
            found[item["PartitionName"]] = seconds(item.get("MaxTime", ""))
            if item.get("Default") == "YES":
                found[""] = found[item["PartitionName"]]
    return found


def seconds(text: str) -> float | None:
    """`2-03:04:05`, `03:04:05` or `04:05`; None for UNLIMITED and what is no time."""
    match = TIME.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)


def states_of_accounting(text: str) -> frozenset[str]:
    """Of `sacct --noheader --allocations --parsable2 --format=State`: `CANCELLED by 0`."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return words(first.split(" by ")[0]) if first else frozenset()


def _items(text: str, name: str) -> list[dict[str, Any]]:
    value = json.loads(text)
    items = value.get(name) if isinstance(value, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"there is no list of {name} in it")
    return items


def _job(item: dict[str, Any]) -> JobSeen:
    return JobSeen(
        job=number(item.get("job_id")) or 0,
        name=str(item.get("name") or ""),
        states=words(item.get("job_state")) | (words(item.get("job_state_flags")) - {"NONE"}),
        reason=str(item.get("state_reason") or ""),
        user=str(item.get("user_name") or item.get("user_id") or ""),
        partition=str(item.get("partition") or ""),
        gpus=_gpus_of_job(item),
    )


def _node(item: dict[str, Any]) -> NodeSeen:
    return NodeSeen(
        name=str(item.get("name") or ""),
        states=words(item.get("state")) | words(item.get("state_flags")),
        partitions=frozenset(str(name) for name in item.get("partitions") or ()),
        gpus=gpus(str(item.get("gres") or "")),
        gpus_used=gpus(str(item.get("gres_used") or "")),
        cores=number(item.get("cpus")) or 0,
        memory_mb=number(item.get("real_memory")) or 0,
    )


def _gpus_of_job(item: dict[str, Any]) -> int:
    """Held where Slurm says so, else as asked for: per job, per node, per task."""
    held = _count(item.get("gres_detail") or ())
    if held:
        return held
    for name in ("tres_alloc_str", "tres_req_str", "tres_per_job"):
        asked = gpus(str(item.get(name) or ""))
        if asked:
            return asked.get("") or sum(asked.values())  # "" counts all kinds together
    per_node = _count([str(item.get("tres_per_node") or "")])
    per_task = _count([str(item.get("tres_per_task") or "")])
    nodes_asked, tasks = number(item.get("node_count")) or 1, number(item.get("tasks")) or 1
    return per_node * nodes_asked or per_task * tasks


def _count(texts: Iterable[Any]) -> int:
    return sum(sum(gpus(str(text)).values()) for text in texts)
