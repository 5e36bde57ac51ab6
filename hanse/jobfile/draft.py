"""One job as a tenant wants it: what the market needs to know, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hanse.errors import Problem

DEFAULT_GRACE_S = 30


@dataclass(frozen=True, slots=True)
class JobDraft:
    name: str
    job_class: str
    command: str  #: the tenant's script, given to a shell at the site
    samples: int  #: to train in all
    value: Decimal  #: credits per million samples, the bid
    max_cost: Decimal  #: credits, the most this job may cost over all its attempts
    setup: str = ""
    gpus: tuple[int, ...] = (1,)  #: allowed gang sizes, ascending; () = the planner, by `model`
    gpu_kinds: tuple[str, ...] = ()  #: any of these; empty = any kind
    deadline: datetime | None = None  #: aware
    env: Mapping[str, str] | None = None
    preemptible: bool = True
    max_runtime_s: int | None = None
    grace_s: int = DEFAULT_GRACE_S  #: between being told to stop and being stopped
    sites_allow: tuple[str, ...] = ()  #: empty = every site
    sites_deny: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()  #: empty = every pool
    model: Mapping[str, Any] | None = None  #: what is trained, for the planner
    notes: tuple[Problem, ...] = ()  #: what the file says and nobody honours yet

    def body(self) -> dict[str, Any]:
        """The REST body. Money is decimal strings, time RFC 3339 in UTC.

        A model is there only when it is described, and sizes only when they are the tenant's own.
        """
        sized = {"gpus": list(self.gpus)} if self.gpus else {}
        modelled = {} if self.model is None else {"model": dict(self.model)}
        return {
            "name": self.name,
            "job_class": self.job_class,
            "command": self.command,
            "setup": self.setup,
            **sized,
            "gpu_kinds": list(self.gpu_kinds),
            "samples": self.samples,
            "value": format(self.value, "f"),
            "max_cost": format(self.max_cost, "f"),
            "deadline": None if self.deadline is None else _rfc3339(self.deadline),
            "env": dict(self.env or {}),
            "preemptible": self.preemptible,
            "max_runtime_s": self.max_runtime_s,
            "grace_s": self.grace_s,
            "sites_allow": list(self.sites_allow),
            "sites_deny": list(self.sites_deny),
            "pools": list(self.pools),
            **modelled,
        }


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
