"""What an attempt's end was, from what its guard wrote and what Slurm says. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from agents.drivers.base import Exit
from agents.drivers.slurm.answers import JobSeen
from agents.protocol import EndReason

#: Slurm still works on it, whatever else it says
BUSY = frozenset(
    {
        *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING"),
        *("SIGNALING", "STAGE_OUT", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD"),
    }
)
KILLED = 137  #: 128 + SIGKILL
#: Slurm's word -> reason and sentence, when the guard could not write the end itself
ENDS = {
    "TIMEOUT": (EndReason.RUNTIME_LIMIT, "Slurm ended it at its time limit"),
    "DEADLINE": (EndReason.RUNTIME_LIMIT, "Slurm ended it at its deadline"),
    "OUT_OF_MEMORY": (EndReason.EXITED, "Slurm ended it: it used more memory than it asked for"),
    "PREEMPTED": (EndReason.DRIVER_FAILED, "Slurm preempted it for another job of this site"),
    "BOOT_FAIL": (EndReason.DRIVER_FAILED, "its nodes could not be booted"),
    "CANCELLED": (EndReason.DRIVER_FAILED, "it was cancelled in Slurm at this site"),
    "REVOKED": (EndReason.DRIVER_FAILED, "another cluster of Slurm's federation took it"),
    "NODE_FAIL": (EndReason.LOST, "Slurm lost one of its nodes"),
}
#: why a job waits that will wait for ever, whatever becomes free
HOPELESS = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|BadConstraints|Invalid(Account|QOS)|InactiveLimit"
    r"|(Account|Qos|QOS|Assoc)NotAllowed|DependencyNeverSatisfied|launch_failed_requeued_held"
    r"|\w*(Max|Min)\w*PerJob(Limit)?|JobHeld(Admin|User)"
)
UNSURE = frozenset({"NODE_FAIL", "BOOT_FAIL"})  #: a node that Slurm cannot reach may still run it


class Silence(Enum):
    """Why Slurm has no word on a job."""

    UNKNOWN = "unknown"  #: not asked yet, or no answer
    ABSENT = "absent"  #: it answered, and does not know the job


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one attempt at one moment."""

    record: Exit | None  #: written by the guard of the first node
    claimed: bool  #: a guard has begun
    seen: JobSeen | Silence
    settled: bool  #: Slurm has said so for long enough that the shared folder shows all files
    fence_passed: bool
    others_ended: bool  #: the guards of the other nodes have written their ends, or there are none
    stop: tuple[EndReason, str] | None  #: what the agent asked for
    last_words: str = ""  #: of the batch script


def over_in_slurm(seen: JobSeen | Silence) -> bool:
    """True when Slurm has nothing more to do with it, on any node it can reach."""
    return isinstance(seen, JobSeen) and bool(seen.states) and not seen.states & BUSY


def hopeless(seen: JobSeen | Silence) -> bool:
    """True for a job that waits and will never start as it is."""
    waits = isinstance(seen, JobSeen) and "PENDING" in seen.states
    return waits and isinstance(seen, JobSeen) and bool(HOPELESS.fullmatch(seen.reason))


def verdict(found: Evidence) -> Exit | None:
    """How it ended; None while it may still run, or while more will be known in a moment."""
    if found.record is not None:
        return _recorded(found, found.record)
    if isinstance(found.seen, JobSeen):
        return _unrecorded(found, found.seen) if over_in_slurm(found.seen) else None
    if found.seen is Silence.ABSENT and found.settled:
        return _forgotten(found)
    return None


def _recorded(found: Evidence, record: Exit) -> Exit | None:
    gone = over_in_slurm(found.seen) or found.seen is Silence.ABSENT
    surely = gone and _state(found.seen) not in UNSURE
    if not (found.others_ended or surely or found.fence_passed):
        return None
    told = record.reason is EndReason.DRIVER_FAILED or record.exit_code == KILLED
    if not told or (found.stop is not None and _state(found.seen) not in UNSURE):
        return record
    if not gone and not found.settled:
        return None  # Slurm knows who killed it, and says so in a moment
    state = _state(found.seen)
    if state not in ENDS or (record.reason is EndReason.EXITED and state != "OUT_OF_MEMORY"):
        return record
    reason, sentence = ENDS[state]
    return replace(record, reason=reason, message=sentence)


def _unrecorded(found: Evidence, seen: JobSeen) -> Exit | None:
    state = _state(seen)
    if not found.settled or (state in UNSURE and found.claimed and not found.fence_passed):
        return None
    if found.stop is not None:
        return Exit(found.stop[0], message=found.stop[1])
    if state in ENDS:
        reason, sentence = ENDS[state]
        code = KILLED if state == "OUT_OF_MEMORY" else None
        return Exit(reason, code, sentence)
    if not found.claimed:
        why = f"its script ended before the job began. {found.last_words}"
        return Exit(EndReason.DRIVER_FAILED, message=why.strip())
    why = f"Slurm has it as {state.lower()}, without an exit record. {found.last_words}"
    return Exit(EndReason.LOST, message=why.strip())


def _forgotten(found: Evidence) -> Exit | None:
    """Slurm lost its own state, or forgot the job long ago."""
    if found.claimed and not found.fence_passed:
        return None
    if found.stop is not None:
        return Exit(found.stop[0], message=found.stop[1])
    if found.claimed:
        return Exit(EndReason.LOST, message="Slurm does not know this job any more")
    return Exit(EndReason.DRIVER_FAILED, message="Slurm lost this job before it began")


def _state(seen: JobSeen | Silence) -> str:
    """The word that tells most; empty when there is none."""
    if not isinstance(seen, JobSeen):
        return ""
    return next((word for word in ENDS if word in seen.states), min(seen.states, default=""))
