"""Life of a job: one piece of a tenant's work, over all its attempts."""

from __future__ import annotations

from enum import StrEnum

from federation.machines.base import Machine


class JobState(StrEnum):
    PENDING = "pending"  #: in the queue: the next book holds its bid
    RESERVED = "reserved"  #: awarded; its lease is not yet at the agent
    DISPATCHED = "dispatched"  #: the agent has the lease
    STARTING = "starting"  #: the local scheduler has it
    RUNNING = "running"  #: it has reported progress
    CHECKPOINTING = "checkpointing"  #: told to stop; saving its work
    RECOVERING = "recovering"  #: its site is silent; nothing is killed, nothing placed elsewhere
    CANCELLING = "cancelling"  #: the tenant wants it stopped; the site has not confirmed yet
    SUCCEEDED = "succeeded"  #: its command ended with exit code 0
    FAILED = "failed"  #: it ended otherwise, or could not be kept running
    CANCELLED = "cancelled"  #: stopped by the tenant
    EXPIRED = "expired"  #: its deadline passed while it waited
    REJECTED = "rejected"  #: no site can ever run it as it is


_PLACED = (JobState.RESERVED, JobState.DISPATCHED, JobState.STARTING, JobState.RUNNING)
_HELD = (*_PLACED, JobState.CHECKPOINTING, JobState.RECOVERING)

TRANSITIONS: dict[tuple[JobState, str], JobState] = {
    (JobState.PENDING, "award"): JobState.RESERVED,
    (JobState.PENDING, "cancel"): JobState.CANCELLED,
    (JobState.PENDING, "expire"): JobState.EXPIRED,
    (JobState.PENDING, "reject"): JobState.REJECTED,
    (JobState.RESERVED, "dispatch"): JobState.DISPATCHED,
    (JobState.RESERVED, "start"): JobState.STARTING,
    (JobState.DISPATCHED, "start"): JobState.STARTING,
    **{(state, "run"): JobState.RUNNING for state in _PLACED},
    **{(state, "preempt"): JobState.CHECKPOINTING for state in _PLACED},
    **{(state, "silence"): JobState.RECOVERING for state in _PLACED},
    (JobState.CHECKPOINTING, "silence"): JobState.RECOVERING,
    (JobState.RECOVERING, "dispatch"): JobState.DISPATCHED,
    (JobState.RECOVERING, "start"): JobState.STARTING,
    (JobState.RECOVERING, "run"): JobState.RUNNING,
    (JobState.RECOVERING, "preempt"): JobState.CHECKPOINTING,
    **{(state, "requeue"): JobState.PENDING for state in _HELD},
    **{(state, "cancel"): JobState.CANCELLING for state in _HELD},
    **{(state, "succeed"): JobState.SUCCEEDED for state in (*_HELD, JobState.CANCELLING)},
    **{(state, "fail"): JobState.FAILED for state in _HELD},
    (JobState.PENDING, "fail"): JobState.FAILED,
    (JobState.CANCELLING, "release"): JobState.CANCELLED,
}

FINAL = frozenset(
    {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.EXPIRED,
        JobState.REJECTED,
    }
)

MACHINE = Machine(
    name="job",
    states=JobState,
    transitions=TRANSITIONS,
    live=frozenset(JobState) - FINAL,
    final=FINAL,
    tones={
        JobState.PENDING: "wait",
        JobState.RESERVED: "wait",
        JobState.DISPATCHED: "wait",
        JobState.STARTING: "wait",
        JobState.RUNNING: "good",
        JobState.CHECKPOINTING: "warn",
        JobState.RECOVERING: "warn",
        JobState.CANCELLING: "warn",
        JobState.SUCCEEDED: "done",
        JobState.FAILED: "bad",
        JobState.CANCELLED: "idle",
        JobState.EXPIRED: "bad",
        JobState.REJECTED: "bad",
    },
)
