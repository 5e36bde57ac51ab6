"""Is it alive, is it ready, and what an unknown address answers."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults

from broker.problems import problem_response


def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"status": "alive"})


def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers and its tables are those of this version."""
    connection = connections[DEFAULT_DB_ALIAS]
    try:
        executor = MigrationExecutor(connection)
        behind = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        return problem_response(503, "database_away", "The database does not answer.")
    if behind:
        return problem_response(503, "not_migrated", f"{len(behind)} migrations are missing.")
    return JsonResponse({"status": "ready"})


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith(("/api/", "/gateway/"))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """A problem document for programmes, a page for people."""
    if _is_api(request):
        return problem_response(404, "not_found", "There is nothing at this address.")
    return defaults.page_not_found(request, exception)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_api(request):
        return problem_response(400, "bad_request", "The request cannot be read.")
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """The failure itself is logged by Django, with its traceback."""
    if _is_api(request):
        return problem_response(500, "internal", "The broker failed; the failure is logged.")
    return defaults.server_error(request)
