"""What is computed beside the rounds: it looks at a frozen book and changes nothing."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.models.base import Identified
from federation.models.members import Tenant
from federation.models.rounds import Round


class Study(Identified):
    """One question about a round's frozen book, and its answer. The same question is one row."""

    class Kind(models.TextChoices):
        REPORT = "report", "what every tenant brings"
        CONTRIBUTION = "contribution", "the round without one tenant"
        QUOTE = "quote", "the round with one job more"
        PART = "part", "a part of a round that is being decided"
        FILE = "file", "what such parts share"
        SHARES = "shares", "who gets what, under every rule"
        JOINING = "joining", "what a site brings and gains"
        LEAVING = "leaving", "what changes when a member leaves"
        RESPONSE = "response", "what sites would do next"
        MISREPORT = "misreport", "what a lie would bring"
        CONDUCT = "conduct", "market power and price caps"

    class State(models.TextChoices):
        PENDING = "pending", "waits for a worker"
        RUNNING = "running", "is being computed"
        DONE = "done", "answered"
        FAILED = "failed", "ended without an answer"

    OPEN = (State.PENDING, State.RUNNING)

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="studies")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    parameters = models.JSONField(default=dict)
    digest = models.CharField(max_length=80, help_text="of the parameters, or a file's name")
    #: what it is computed from beside the round's own documents
    payload = models.BinaryField(null=True, blank=True)
    result = models.BinaryField(null=True, blank=True)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.CASCADE, null=True, blank=True, related_name="studies"
    )
    requested_by = models.CharField(max_length=150)
    token = models.UUIDField(null=True, blank=True)
    claims = models.PositiveSmallIntegerField(default=0)
    #: not answered by then: it is handed out again
    due_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    code = models.CharField(max_length=64, blank=True)
    why = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=Q(state__in=["pending", "running"]),
                name="study_open_by_due",
            ),
            models.Index(fields=["tenant", "-created_at"], name="study_tenant_newest"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["round", "kind", "digest"], name="one_study_for_each_question"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "running", "done", "failed"]),
                name="study_state_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.round}"
