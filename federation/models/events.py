"""The story of every object, the audit log of every act, and the broker's own pulse."""

from __future__ import annotations

from django.db import models


class Event(models.Model):
    """Who did what to which object, when, from which state to which, and why."""

    at = models.DateTimeField(db_index=True)
    subject = models.CharField(max_length=16, help_text="job, lease, round, site, offer, tenant …")
    subject_id = models.CharField(max_length=64)
    actor = models.CharField(max_length=100, help_text="user:…, agent:…, broker")
    event = models.CharField(max_length=32)
    from_state = models.CharField(max_length=16, blank=True)
    to_state = models.CharField(max_length=16, blank=True)
    code = models.CharField(max_length=64, blank=True)
    why = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["subject", "subject_id", "id"], name="event_story")]

    def __str__(self) -> str:
        return f"{self.subject} {self.subject_id} {self.event}"


class Pulse(models.Model):
    """One part of the broker is alive. `up_since` restarts when it was away for too long."""

    name = models.CharField(max_length=16, primary_key=True)
    up_since = models.DateTimeField()
    last_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
