"""What sites have refused by their own rules: the market does not ask again for a while."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.models.base import Identified
from federation.models.jobs import Job
from federation.models.leases import Lease
from federation.models.members import Tenant
from federation.models.offers import JobClass
from federation.models.sites import Site


class SiteRefusal(Identified):
    """A lease that a site declined by a rule of its own, and whom it will not be offered to.

    Exactly one of tenant, class and job says who.
    """

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="refusals")
    lease = models.OneToOneField(Lease, on_delete=models.CASCADE, related_name="refusal")
    tenant = models.ForeignKey(
        Tenant, on_delete=models.CASCADE, null=True, blank=True, related_name="refused_by"
    )
    job_class = models.ForeignKey(
        JobClass, on_delete=models.CASCADE, null=True, blank=True, related_name="refused_by"
    )
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, null=True, blank=True, related_name="refused_by"
    )
    code = models.CharField(max_length=64)
    why = models.CharField(max_length=1000, blank=True)
    announced = models.BooleanField(help_text="the site had said so before the lease was made")
    #: the site's rules when it said so: it is forgotten when they are others
    mark = models.CharField(max_length=64)
    until = models.DateTimeField()

    class Meta:
        ordering = ("-created_at",)
        indexes = [models.Index(fields=["site", "until"], name="refusal_by_site")]
        constraints = [
            models.CheckConstraint(
                condition=(
                    Q(tenant__isnull=False, job_class__isnull=True, job__isnull=True)
                    | Q(tenant__isnull=True, job_class__isnull=False, job__isnull=True)
                    | Q(tenant__isnull=True, job_class__isnull=True, job__isnull=False)
                ),
                name="a_refusal_is_about_one_thing",
            )
        ]

    def __str__(self) -> str:
        return f"{self.site.name}: {self.code}"
