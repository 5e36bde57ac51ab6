"""The wire between a site agent and the broker: two outbound calls, `sync` and `reports`.

`sync` carries the site's whole state up and the broker's whole wish down, so a lost message costs
one period and never a decision. `reports` carries numbered facts; a replay is free.

Every message is a frozen dataclass here and plain JSON outside. `decode` is strict: an unknown key,
a wrong type, a number that is not finite or a text with a NUL is refused with the path
of the field. This module is shared with `broker.gateway` and imports the standard library only.

Units: seconds, samples, GPU, credits as decimal strings, times as RFC 3339 text in UTC.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from agents.coding import ADDED
from agents.coding import MAX_COMMAND as MAX_COMMAND
from agents.coding import MAX_LOG_CHUNK as MAX_LOG_CHUNK
from agents.coding import MAX_TEXT as MAX_TEXT
from agents.coding import BadMessage as BadMessage
from agents.coding import canonical as canonical
from agents.coding import decode as decode
from agents.coding import encode as encode

PROTOCOL = "hanse.agent/1"
JOIN_PATH = "/gateway/v1/join"
SYNC_PATH = "/gateway/v1/sync"
REPORTS_PATH = "/gateway/v1/reports"
ROTATE_PATH = "/gateway/v1/rotate"

MAX_REPORTS = 500  #: reports in one batch

PLANS = "plan"
TENANTS = "tenant"
#: What an agent reads that came after the first release. It says so in the label of its version
#: ("0.1.0+plan"), since an older broker would refuse a field of its own for it, and is not sent
#: what it does not name, since a strict reader would refuse the whole answer.
READS = (PLANS, TENANTS)


def told_version(version: str) -> str:
    """The version with what this agent reads, for `SyncRequest.agent_version`."""
    return f"{version}+{'.'.join(READS)}"


def reads(agent_version: str, what: str) -> bool:
    """True when an agent of this version reads what came later."""
    return what in agent_version.partition("+")[2].split(".")


class AttemptState(StrEnum):
    """What the agent says of one attempt in each sync."""

    WAITING = "waiting"  #: known to the agent, its GPUs are not free yet
    STARTING = "starting"  #: handed to the driver, no progress line yet
    RUNNING = "running"  #: the job has reported progress
    STOPPING = "stopping"  #: told to stop, within its grace
    ENDED = "ended"  #: over; its final report is journalled and may be under way


class EndReason(StrEnum):
    """Why an attempt is over."""

    EXITED = "exited"  #: the command ended by itself; see exit_code
    REVOKED = "revoked"  #: stopped because the broker asked
    FENCED = "fenced"  #: stopped by the site because the broker was out of reach for too long
    RUNTIME_LIMIT = "runtime_limit"  #: stopped at the job's own limit
    DECLINED = "declined"  #: the site refuses this lease; `message` says why
    DRIVER_FAILED = "driver_failed"  #: the local scheduler could not start or keep it
    LOST = "lost"  #: the process vanished and left no exit record
    NEVER_STARTED = "never_started"  #: revoked before anything was started here


class ReportKind(StrEnum):
    STARTED = "started"
    PROGRESS = "progress"
    LOG = "log"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class PoolOffer:
    name: str
    gpu: str
    gpus: int
    reserve: str  #: credits per GPU-hour, decimal text
    #: What the planner needs of the GPUs; the broker takes from data sheets what is left out.
    memory_gb: float | None = field(default=None, metadata=ADDED)  #: of one GPU, 10⁹ bytes
    peak_tflops: float | None = field(default=None, metadata=ADDED)  #: of one, at half precision
    intra_gbit_s: float | None = field(
        default=None, metadata=ADDED
    )  #: of one, one way, to others of its node
    inter_gbit_s: float | None = field(
        default=None, metadata=ADDED
    )  #: of one, one way, to other nodes
    gpus_per_node: int | None = field(default=None, metadata=ADDED)


@dataclass(frozen=True, slots=True)
class AffinityOffer:
    pool: str
    job_class: str
    samples_per_s: float  #: on `gpus` GPUs of the pool together
    gpus: int = 1
    source: str = "declared"  #: "declared" or "probed"


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """Which leases a site does not take, said beforehand: a refusal by these rules is free."""

    digest: str  #: of all its rules, published or not; another one: they have changed
    tenants_allow: tuple[str, ...] = ()  #: names, * for any part; () = every tenant
    tenants_deny: tuple[str, ...] = ()
    classes_allow: tuple[str, ...] = ()
    classes_deny: tuple[str, ...] = ()
    max_gpus: int | None = None  #: of one job
    max_runtime_s: float | None = None
    hours: tuple[str, ...] = ()  #: when jobs may start, for people: outside them no GPU is offered
    time_zone: str = ""  #: of the hours


@dataclass(frozen=True, slots=True)
class OfferDocument:
    """Everything a site puts on offer. Immutable: a change is a new document."""

    pools: tuple[PoolOffer, ...]
    affinities: tuple[AffinityOffer, ...]
    valid_from: str | None = None
    valid_until: str | None = None
    note: str = ""  #: free text shown to operators and tenants, e.g. a declared throttle
    policy: SitePolicy | None = field(default=None, metadata=ADDED)  #: of sites that have one

    def digest(self) -> str:
        """SHA-256 of the canonical JSON; the same offer has the same digest on both sides."""
        return hashlib.sha256(canonical(encode(self))).hexdigest()


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    attempt: str
    state: AttemptState
    contract: str | None = None  #: the contract the agent books work under now
    last_seq: int = 0  #: number of the newest report journalled for this attempt


@dataclass(frozen=True, slots=True)
class SyncRequest:
    protocol: str
    agent_version: str
    boot: str  #: "<journal id>.<number of this start>": a restart, or another agent?
    sent_at: str  #: the agent's wall clock, for showing its skew; decides nothing
    offer_digest: str
    offer: OfferDocument | None  #: sent on start, on change and when asked
    attempts: tuple[AttemptStatus, ...]  #: all attempts not yet forgotten
    orders_seen: str = ""  #: digest of the last orders acted on
    wait_s: float = 0.0  #: how long the broker may hold the answer while nothing changes


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run. `command` is the tenant's own script: the only field given to a shell."""

    job: str
    name: str
    job_class: str
    command: str
    setup: str
    env: dict[str, str]
    samples_done: int  #: progress of earlier attempts
    samples_wanted: int  #: what this attempt should train at most
    probe: bool  #: a short paid measurement, ended after `max_runtime_s` or its samples
    max_runtime_s: float
    grace_s: float
    log_cap_bytes: int
    tenant: str | None = field(
        default=None, metadata=ADDED
    )  #: whose job it is; only to agents that read it


@dataclass(frozen=True, slots=True)
class LeaseOrder:
    attempt: str
    pool: str
    gpus: int
    contract: str
    contract_samples: int  #: samples paid for under this contract, at most
    fence_s: float  #: the site stops the job this long after its last answered sync was sent
    spec: JobSpec
    plan: dict[str, str] | None = field(
        default=None, metadata=ADDED
    )  #: variables of the plan for these GPUs; only to agents that read it


@dataclass(frozen=True, slots=True)
class RevokeOrder:
    attempt: str
    code: str
    why: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class SyncReply:
    """All the broker wants of the site now. A lease that is absent is unchanged unless revoked."""

    protocol: str
    server_time: str
    renew_s: float  #: the site is called silent when it does not sync within this time
    orders: str  #: digest of leases, revokes, forget and asks
    leases: tuple[LeaseOrder, ...]
    revokes: tuple[RevokeOrder, ...]
    forget: tuple[str, ...]  #: attempts whose end the broker has on record: clean up
    asks: tuple[str, ...]  #: "offer": send the whole offer with the next sync


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the job measured of its own steps, as it said it; nothing here is judged by the agent.

    From one progress line. None is what it did not say.
    """

    line: int  #: number of the progress line, from 1
    step_time_s: float | None = None  #: wall seconds of an optimiser step, waiting included
    local_batch: float | None = None  #: samples on one GPU in one pass
    replicas: int | None = None  #: GPUs that the step ran on; None = all of the lease
    nodes: int | None = None  #: machines that hold them; None = one
    accumulation: int | None = None  #: passes of a step before its last; None = none
    sync_time_s: float | None = None  #: of the step, waiting for other replicas
    gpu: str = ""  #: kind, as the framework names it
    grad_sqr: float | None = None  #: squared norm of the gradient
    grad_var: float | None = None  #: variance of the gradient of one whole step
    memory_peak_bytes: int | None = None  #: of one GPU
    problem: str = ""  #: what of the line could not be read


@dataclass(frozen=True, slots=True)
class Progress:
    samples: int  #: trained by this attempt so far
    contract_samples: int  #: of these, since the agent learned of the report's contract
    gpu_seconds: float  #: GPUs held times wall seconds since start
    samples_per_s: float | None = None  #: measured between progress lines; None = too few lines
    lines: int = 0  #: progress lines behind `samples_per_s`
    step_time_s: float | None = None
    loss: float | None = None
    measurement: Measurement | None = field(
        default=None, metadata=ADDED
    )  #: newest since the last report of progress


@dataclass(frozen=True, slots=True)
class LogChunk:
    offset: int  #: bytes before this chunk in the attempt's log
    data: str  #: base64
    truncated: bool = False  #: the cap was reached; nothing follows

    def raw(self) -> bytes:
        return base64.b64decode(self.data, validate=True)


@dataclass(frozen=True, slots=True)
class End:
    reason: EndReason
    exit_code: int | None = None
    message: str = ""
    code: str | None = field(
        default=None, metadata=ADDED
    )  #: the site's rule that was the reason; only to brokers that name the tenant


@dataclass(frozen=True, slots=True)
class Report:
    """One numbered fact about one attempt; (attempt, seq) is its identity."""

    attempt: str
    seq: int  #: from 1, without gaps
    kind: ReportKind
    at: str
    contract: str | None = None
    progress: Progress | None = None  #: with STARTED (zeros), PROGRESS and ENDED (final)
    log: LogChunk | None = None
    end: End | None = None


@dataclass(frozen=True, slots=True)
class ReportBatch:
    protocol: str
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    attempt: str
    seq: int
    accepted: bool  #: on record now or before: drop it from the journal
    code: str = ""  #: why not, for a machine; a refused report is dropped too
    why: str = ""


@dataclass(frozen=True, slots=True)
class ReportReply:
    protocol: str
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True)
class JoinRequest:
    protocol: str
    token: str
    agent_version: str


@dataclass(frozen=True, slots=True)
class JoinReply:
    protocol: str
    site: str  #: the site's name
    site_id: str
    credential: str  #: shown once; the broker keeps a hash


@dataclass(frozen=True, slots=True)
class RotateReply:
    protocol: str
    credential: str
    old_valid_s: float = field(default=300.0)  #: the old credential still works this long
