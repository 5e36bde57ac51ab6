"""What is counted beside requests: models described, each of which costs a planner."""

from __future__ import annotations

from collections.abc import Mapping

from rest_framework.request import Request
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

PLANS = "plans"


class DescribedThrottle(ScopedRateThrottle):
    """Every model that a POST describes counts as one of the scope `plans`, whatever is asked."""

    models = 0

    def allow_request(self, request: Request, view: APIView) -> bool:
        self.models = described(request.data) if request.method == "POST" else 0
        if not self.models:
            return True
        self.scope = PLANS
        self.rate = self.get_rate()
        self.num_requests, self.duration = self.parse_rate(self.rate)
        return super(ScopedRateThrottle, self).allow_request(request, view)

    def throttle_success(self) -> bool:
        """Refuse where the models together go beyond the rate; a whole period's worth may go."""
        models = min(self.models, self.num_requests or 0)
        if len(self.history) + models > (self.num_requests or 0):
            return self.throttle_failure()
        self.history[:0] = [self.now] * models
        self.cache.set(self.key, self.history, self.duration)
        return True


def described(body: object) -> int:
    """How many models a body describes: its own, and those of its `jobs`."""
    if not isinstance(body, Mapping):
        return 0
    jobs = body.get("jobs")
    each = [body, *(jobs if isinstance(jobs, list) else ())]
    return sum(isinstance(job, Mapping) and job.get("model") is not None for job in each)
