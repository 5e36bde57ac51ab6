"""Curves of a round and the explanation of a job, each caller as far as it may see them."""

from __future__ import annotations

from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from broker.api.explanation_shapes import CurvesOut, ExplanationOut
from broker.api.shapes import answers
from broker.api.views import caller_tenant, main_venue
from federation.errors import BadInput, FieldProblem, NotFound
from federation.models import Job, User
from federation.selectors.explanations import (
    Sight,
    job_explained,
    round_curves,
    round_published,
)


class Curves(APIView):
    """Supply, demand, prices and their intervals."""

    @extend_schema(operation_id="rounds_curves", responses=answers({200: CurvesOut}, 404))
    def get(self, request: Request, number: int) -> Response:
        """The curves of a published round.

        Everybody sees prices, supply, and demand in blocks of several tenants; a member every step
        at its own pools; an operator all of it, with the merit order of jobs.
        """
        round = round_published(main_venue(), number)
        return Response(round_curves(round, sight_of(request)))


class Explanation(APIView):
    """Why one's own job got what it got."""

    @extend_schema(
        operation_id="jobs_explanation",
        responses=answers({200: ExplanationOut}, 403, 404, 422),
        parameters=[OpenApiParameter("round", int, description="default: the job's newest round")],
    )
    def get(self, request: Request, pk: UUID) -> Response:
        """What the round meant for the job: pools, gains, what bound it, what would change it."""
        return Response(job_explained(_job(request, pk), _round_asked(request)))


def sight_of(request: Request) -> Sight:
    """Operators see everything, a member's people its pools, tenants what is public."""
    user = request.user
    if not isinstance(user, User):
        return Sight()
    if user.is_staff:
        return Sight(everything=True)
    if user.tenant is None and user.member is not None:
        return Sight(members=frozenset({user.member.name}))
    return Sight()


def _job(request: Request, pk: UUID) -> Job:
    """The tenant's own job; operators see every job."""
    rows = Job.objects.select_related("venue")
    if not (isinstance(request.user, User) and request.user.is_staff):
        rows = rows.filter(tenant=caller_tenant(request))
    job = rows.filter(pk=pk).first()
    if job is None:
        raise NotFound("There is no such job.")
    return job


def _round_asked(request: Request) -> int | None:
    text = request.query_params.get("round")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadInput(FieldProblem("round", "the number of a round is expected"))
    return int(text)
