"""Who may call, and what every other call is answered with."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.test import Client, override_settings
from django.utils import timezone
from knox.models import get_token_model
from rest_framework.throttling import AnonRateThrottle, UserRateThrottle

from federation.models import User
from tests.broker.api_world import (
    BODY,
    Caller,
    a_caller,
    a_site_now,
    a_sync,
    a_token,
    an_agent_of,
    nothing_stored,
    problem,
)
from tests.support import world

pytestmark = pytest.mark.django_db
READS = ["/jobs", "/classes", "/rounds", "/rounds/1", "/offers", "/me"]


@pytest.fixture
def api() -> Caller:
    return a_caller(world.a_tenant("ann"))


def everywhere(caller: Caller, code: str) -> None:
    for path in READS:
        answer = caller.get(path)
        problem(answer, 401, code)
        assert answer["WWW-Authenticate"] == "Bearer"
    with nothing_stored():
        problem(caller.submit(), 401, code)
        problem(caller.post("/classes", {"name": "vit"}), 401, code)


def test_without_a_token_nothing_is_answered(api):
    everywhere(Caller(None), "not_authenticated")


@pytest.mark.parametrize(
    "token", ["hst_unknown", "x", "a b", "caf\xe9", "\xff\xfe", "a\x00b", "x" * 5000]
)
def test_a_foreign_token_is_refused(api, token):
    everywhere(Caller(token), "authentication_failed")


def test_an_expired_token_is_refused():
    tenant = world.a_tenant("ann")
    caller = Caller(a_token(tenant))
    cache.clear()
    get_token_model().objects.update(expiry=timezone.now() - timedelta(seconds=1))

    everywhere(caller, "authentication_failed")


def test_a_revoked_token_is_refused_at_once(api):
    assert api.get("/me").status_code == 200
    get_token_model().objects.all().delete()

    everywhere(api, "authentication_failed")


def test_an_account_that_was_switched_off_is_refused(api):
    User.objects.update(is_active=False)

    everywhere(api, "authentication_failed")


def test_a_token_is_kept_hashed(api):
    [row] = get_token_model().objects.values()

    assert api.token not in [str(value) for value in row.values()]


def test_an_agents_credential_opens_nothing_of_the_api():
    agent = an_agent_of(a_site_now("north"))

    everywhere(Caller(agent.token), "authentication_failed")


def test_a_tenants_token_opens_nothing_of_the_gateway(api):
    tenant = Caller(api.token, prefix="/gateway/v1")
    with nothing_stored():
        for path, body in (("/sync", a_sync()), ("/reports", {}), ("/rotate", {})):
            problem(tenant.post(path, body), 401, "credential_invalid")


def test_a_session_of_the_console_opens_nothing_of_the_api():
    person = User.objects.create_user("olga", password="a long pass phrase", is_staff=True)
    client = Client()
    client.force_login(person)

    assert client.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", "GET, POST, HEAD, OPTIONS"),
        ("DELETE", "/jobs", "GET, POST, HEAD, OPTIONS"),
        ("POST", "/offers", "GET, HEAD, OPTIONS"),
        ("PATCH", "/me", "GET, HEAD, OPTIONS"),
        ("POST", "/rounds", "GET, HEAD, OPTIONS"),
        ("DELETE", "/jobs/6f1c0ac2-e3f9-4b1a-8d00-000000000000", "GET, HEAD, OPTIONS"),
        ("GET", "/jobs/6f1c0ac2-e3f9-4b1a-8d00-000000000000/cancel", "POST, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(api, method, path, allowed):
    with nothing_stored():
        answer = api.call(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer["Allow"] == allowed


@pytest.mark.parametrize(
    "path",
    ["", "/", "/nothing", "/jobs/", "/jobs/1", "/jobs/not-an-id/logs", "/rounds/x", "/rounds/-1"],
)
def test_an_unknown_address_is_a_problem_document_too(api, path):
    problem(api.get(path), 404, "not_found")
    problem(Caller(api.token, prefix="/api").get("/v9" + path), 404, "not_found")


def test_a_host_that_is_not_ours_is_a_problem_document_too(api):
    with override_settings(ALLOWED_HOSTS=["hanse.example"]):
        problem(api.get("/me", host="evil.example"), 400, "bad_request")


def test_plain_http_from_elsewhere_is_refused_before_anything_is_read(api):
    answer = Client(REMOTE_ADDR="192.0.2.7").post(
        "/api/v1/jobs", BODY, headers={"Authorization": f"Bearer {api.token}"}
    )

    problem(answer, 426, "tls_required")


def test_a_failure_of_the_broker_tells_nothing_but_that(api, monkeypatch):
    monkeypatch.setattr("broker.api.views.offers_open", lambda *_, **__: 1 // 0)

    body = problem(api.get("/offers"), 500, "internal")

    assert "division" not in str(body)


def test_a_failure_outside_the_framework_is_a_problem_document_too(monkeypatch):
    agent = an_agent_of(a_site_now("north"))
    monkeypatch.setattr("broker.gateway.views.credential_rotate", lambda **_: 1 // 0)
    client = Client(
        raise_request_exception=False, headers={"Authorization": f"Bearer {agent.token}"}
    )

    problem(client.post("/gateway/v1/rotate"), 500, "internal")


@pytest.mark.parametrize(
    ("throttle", "known"), [(UserRateThrottle, True), (AnonRateThrottle, False)]
)
def test_too_many_requests_are_told_when_to_come_back(api, monkeypatch, throttle, known):
    monkeypatch.setattr(throttle, "rate", "3/min", raising=False)
    if known:
        for _ in range(3):
            assert api.get("/me").status_code == 200
        with nothing_stored():
            answer = api.submit()
    else:
        for _ in range(3):
            assert Client().get("/api/schema").status_code == 200
        answer = Client().get("/api/schema", headers={"Accept": "application/json"})

    problem(answer, 429, "throttled")
    assert 1 <= int(answer["Retry-After"]) <= 61


def test_whatever_a_client_accepts_it_gets_json(api):
    for accept in ("*/*", "application/json", "application/problem+json, application/json"):
        assert api.get("/me", accept=accept)["Content-Type"] == "application/json"
    problem(api.get("/me", accept="text/html"), 406, "not_acceptable")
