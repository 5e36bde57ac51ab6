"""Jobs, one job, its attempts and its log."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from broker.console.access import operator_only
from broker.console.pages import page_of, show
from federation.machines.job import FINAL, JobState
from federation.models import Job, JobClass, Lease, Site, Tenant
from federation.selectors import console_jobs as reads
from federation.selectors.jobs import job_log, summary

LOG_TAIL = 16 * 1024  #: bytes of a log that a page shows


@operator_only
def jobs(request: HttpRequest) -> HttpResponse:
    """Where is my job?"""
    asked = {
        "state": request.GET.get("state", ""),
        "tenant": request.GET.get("tenant", ""),
        "job_class": request.GET.get("class", ""),
        "site": request.GET.get("site", ""),
        "q": request.GET.get("q", "").strip(),
    }
    page = page_of(request, reads.jobs_found(reads.JobFilter(**asked)))
    context: dict[str, Any] = {"page": page, "asked": asked, "filtered": any(asked.values())}
    if not request.htmx:  # type: ignore[attr-defined]
        context |= {
            "states": list(JobState),
            "tenants": Tenant.objects.values_list("name", flat=True),
            "classes": JobClass.objects.values_list("name", flat=True),
            "sites": Site.objects.values_list("name", flat=True),
        }
    return show(request, "console/jobs.html", "Jobs", context, fragment="console/jobs_table.html")


@operator_only
def job_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Why there, why not yet?"""
    found = Job.objects.select_related("tenant__member", "job_class", "venue", "parent")
    job = get_object_or_404(found, pk=pk)
    leases = reads.attempts_of(job)
    context = {
        "job": job,
        "summary": summary(job),
        "leases": leases,
        "contracts": reads.contracts_of(leases),
        "awards": reads.awards_of_job(job),
        "outcome_round": reads.outcome_round_of(job),
        "probes": list(job.probes.order_by("created_at")),
        "story": reads.job_story(job, leases),
        "ended": job.state in FINAL,
        **_tail(job),
    }
    return show(
        request,
        "console/job.html",
        job.name,
        context,
        fragment="console/job_now.html",
        trail=((reverse("console-jobs"), "Jobs"),),
    )


def _tail(job: Job) -> dict[str, Any]:
    """The end of the newest attempt's log."""
    lease = Lease.objects.filter(job=job).order_by("-attempt").first()
    size = lease.log_bytes if lease else 0
    page = job_log(job, attempt=None, offset=max(0, size - LOG_TAIL), limit=LOG_TAIL)
    return {
        "log": page.data.decode("utf-8", "replace"),
        "log_page": page,
        "log_cut": max(0, size - LOG_TAIL),
    }


@operator_only
def lease_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One attempt: what was promised, what was reported."""
    found = Lease.objects.select_related("job__tenant", "site", "pool__site", "round__venue")
    lease = get_object_or_404(found.defer("round__clearing"), pk=pk)
    job = lease.job
    context = {
        "lease": lease,
        "contracts": reads.contracts_of([lease]),
        "reports": reads.reports_of(lease),
        "story": reads.story_of("lease", lease.pk),
    }
    return show(
        request,
        "console/lease.html",
        f"Attempt {lease.attempt}",
        context,
        trail=(
            (reverse("console-jobs"), "Jobs"),
            (reverse("console-job", args=[job.pk]), job.name),
        ),
    )
