"""A delivered lease whose job measures its steps, and steps that a simple law takes."""

from __future__ import annotations

from dataclasses import replace

from federation.models import Lease
from federation.services.reports import Measured, ReportIn, reports_accept
from federation.services.sample_checks import SampleIn
from tests.support.world import SimAgent, a_job, a_round, a_site, a_tenant, later, live_lease


def step_s(replicas: int, local_batch: float) -> float:
    """Seconds: some overhead, so much a sample, an all-reduce that grows slowly."""
    reduce = 0.0 if replicas == 1 else 0.010 + 0.002 * replicas**0.5
    return 0.020 + 0.004 * local_batch + reduce


class Scene:
    """One site that offers some GPUs for `cnn`, and leases of its own."""

    def __init__(self, *, gpus: int = 64, speed: float = 1000.0) -> None:
        self.tenant = a_tenant("ann", credits=10**7)
        self.site = a_site("north", gpus=gpus, speeds={"cnn": speed}, reserve="0.01")
        self.agent = SimAgent(self.site)
        self._clock = 20
        self._seqs: dict[object, int] = {}

    def lease(self, gpus: int = 1) -> Lease:
        """A running lease of so many GPUs; it keeps them."""
        job = a_job(
            self.tenant,
            gpus=[gpus],
            samples=10**7,
            max_cost="9000",
            preemptible=False,
            now=later(self._clock - 9),
        )
        a_round(later(self._clock))
        self.agent.sync(later(self._clock + 1))
        self.agent.sync(later(self._clock + 1))
        self._clock += 20
        return live_lease(job)

    def sample(self, lease: Lease, **said: object) -> SampleIn:
        seq = self._seqs[lease.pk] = self._seqs.get(lease.pk, 0) + 1
        usual = SampleIn(
            lease_id=lease.pk,
            seq=seq,
            line=seq,
            lines=seq,
            step_s=step_s(lease.gpus, 32),
            local_batch=32.0,
        )
        return replace(usual, **said)  # type: ignore[arg-type]

    def report(self, sample: SampleIn) -> ReportIn:
        """The report that brings it."""
        return ReportIn(
            lease_id=sample.lease_id,
            seq=sample.seq,
            kind="progress",
            contract_id=None,
            measured=Measured(1, 1, 1.0, None, sample.lines, None),
            log=None,
            ending=None,
            body={},
            sample=sample,
        )

    def send(self, *samples: SampleIn, at: float = 30.0) -> None:
        reports = [self.report(sample) for sample in samples]
        found = reports_accept(site=self.site, reports=reports, now=later(at))
        assert all(receipt.accepted for receipt in found.receipts)

    def measure(
        self, lease: Lease, batches: tuple[float, ...] = (16, 32, 64), rows: int = 3
    ) -> None:
        """Steps as the law says, a little apart."""
        self.send(
            *(
                self.sample(
                    lease,
                    local_batch=float(batch),
                    step_s=step_s(lease.gpus, batch) * (1 + 0.01 * (at % 3 - 1)),
                )
                for batch in batches
                for at in range(rows)
            )
        )
