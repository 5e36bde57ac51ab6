"""What agents said, as they said it, and the logs of the jobs."""

from __future__ import annotations

from django.db import models

from federation.models.leases import Lease


class Report(models.Model):
    """One numbered fact about a lease. (lease, seq) is its identity, so a replay is free."""

    lease = models.ForeignKey(Lease, on_delete=models.CASCADE, related_name="reports")
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=8)
    body = models.JSONField()
    received_at = models.DateTimeField(db_index=True)
    #: false for a late report of a superseded attempt: kept, moves nothing
    applied = models.BooleanField(default=True)

    class Meta:
        ordering = ("lease", "seq")
        constraints = [
            models.UniqueConstraint(fields=["lease", "seq"], name="report_number_is_unique")
        ]

    def __str__(self) -> str:
        return f"report {self.seq} of lease {self.lease_id}"


class LogChunk(models.Model):
    """A piece of a lease's log, placed by byte offset."""

    lease = models.ForeignKey(Lease, on_delete=models.CASCADE, related_name="log_chunks")
    offset = models.BigIntegerField()
    size = models.PositiveIntegerField()
    data = models.BinaryField()

    class Meta:
        ordering = ("lease", "offset")
        constraints = [
            models.UniqueConstraint(fields=["lease", "offset"], name="log_offset_is_unique")
        ]

    def __str__(self) -> str:
        return f"{self.size} bytes at {self.offset} of lease {self.lease_id}"
