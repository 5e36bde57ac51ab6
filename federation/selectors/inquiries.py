"""Reads of operators' questions: how far the workers are, and the answer."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q, QuerySet

from federation.models import Study
from federation.services.inquiries import QUESTIONS
from federation.snapshot import unpack


def inquiries_found(*, kind: str = "") -> QuerySet[Study]:
    """Operators' questions, newest first."""
    rows = Study.objects.filter(kind__in=[kind] if kind else list(QUESTIONS))
    return rows.select_related("round__venue").defer("round__clearing", "payload")


def inquiry_shown(study: Study) -> dict[str, Any]:
    """A question, how many of its parts are computed, and its answer once there is one."""
    done, total = progress(study)
    return {
        "id": study.pk,
        "kind": study.kind,
        "round": study.round.number,
        "state": study.state.upper(),
        "parameters": study.parameters,
        "requested_by": study.requested_by,
        "created_at": study.created_at,
        "finished_at": study.finished_at,
        "progress": {"done": done, "total": total},
        "failed": {"code": study.code, "message": study.why}
        if study.state == Study.State.FAILED  # the code of an answered one is a mark of its epoch
        else None,
        "answer": None if study.result is None else unpack(study.result),
    }


def progress(study: Study) -> tuple[int, int]:
    """Parts that are computed and parts there are, while workers share it out; else 0 or 1 of 1."""
    if study.state == Study.State.RUNNING:
        parts = Study.objects.filter(
            round_id=study.round_id, kind=Study.Kind.PART, parameters__of=str(study.pk)
        )
        found = parts.aggregate(total=Count("pk"), done=Count("pk", filter=Q(state="done")))
        if found["total"]:
            return found["done"], found["total"]
    return int(study.state == Study.State.DONE), 1
