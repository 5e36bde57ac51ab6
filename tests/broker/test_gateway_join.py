"""How an agent gets its credential, changes it and loses it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from agents.protocol import PROTOCOL, JoinReply, RotateReply, decode
from broker.gateway.views import JOIN_TRIES_PER_MINUTE
from federation.models import AgentCredential, JoinToken, Site
from federation.services.access import (
    ROTATION_OVERLAP,
    credential_rotate,
    credentials_revoke,
    digest,
    join_token_issue,
)
from tests.broker.api_world import (
    Caller,
    a_batch,
    a_site_now,
    a_sync,
    an_agent_of,
    nothing_stored,
    problem,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def site() -> Site:
    cache.clear()
    return a_site_now("north")


def a_join_token(site: Site, ttl_s: float = 60.0, ago_s: float = 0.0) -> str:
    now = timezone.now() - timedelta(seconds=ago_s)
    return join_token_issue(site=site, actor="test", ttl_s=ttl_s, now=now)


def join(token: str, **changes: object):
    body = {"protocol": PROTOCOL, "token": token, "agent_version": "0.1.0", **changes}
    return Caller(None, prefix="/gateway/v1").post("/join", body)


def works(credential: str) -> bool:
    answer = Caller(credential, prefix="/gateway/v1").post("/reports", a_batch())
    if answer.status_code != 200:
        problem(answer, 401, "credential_invalid")
        assert answer["WWW-Authenticate"] == "Bearer"
    return answer.status_code == 200


def test_a_join_token_becomes_a_credential(site):
    answer = join(a_join_token(site))

    assert answer.status_code == 200
    reply = decode(JoinReply, answer.json())
    assert (reply.protocol, reply.site, reply.site_id) == (PROTOCOL, "north", str(site.pk))
    assert works(reply.credential)


def test_secrets_are_kept_hashed(site):
    token = a_join_token(site)
    credential = join(token).json()["credential"]

    rows = [*JoinToken.objects.values_list(), *AgentCredential.objects.values_list()]
    assert not {token, credential} & {str(value) for row in rows for value in row}


def test_a_join_token_works_once(site):
    token = a_join_token(site)
    credential = join(token).json()["credential"]

    with nothing_stored():
        problem(join(token), 401, "join_token_used")
    assert works(credential)


def test_an_expired_join_token_is_refused(site):
    token = a_join_token(site, ttl_s=60, ago_s=61)

    with nothing_stored():
        problem(join(token), 401, "join_token_expired")
        problem(join(token), 401, "join_token_expired")


@pytest.mark.parametrize("token", ["", "hsj_unknown", "x" * 4096, "é", "\ud800"])
def test_an_unknown_join_token_is_refused(site, token):
    with nothing_stored():
        answer = join(token)
    assert answer.status_code == (422 if token == "\ud800" else 401)


def test_a_newer_join_token_replaces_an_unused_one(site):
    old, new = a_join_token(site), a_join_token(site)

    problem(join(old), 401, "join_token_unknown")
    assert join(new).status_code == 200


def test_a_second_join_takes_the_first_credential_back(site):
    first = join(a_join_token(site)).json()["credential"]
    second = join(a_join_token(site)).json()["credential"]

    assert (works(first), works(second)) == (False, True)


def test_a_retired_site_can_not_be_joined(site):
    token = a_join_token(site)
    credential = join(token).json()["credential"]
    again = a_join_token(site)
    Site.objects.update(state="retired")

    problem(join(again), 401, "join_token_expired")
    assert not works(credential)


def test_who_guesses_join_tokens_is_slowed_down(site):
    token = a_join_token(site)
    for _ in range(JOIN_TRIES_PER_MINUTE):
        assert join("hsj_guess").status_code == 401

    with nothing_stored():
        answer = join(token)

    problem(answer, 429, "throttled")
    assert answer["Retry-After"] == "60"


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"protocol": "hanse.agent/2"}, 409, "protocol_mismatch", None),
        ({"protocol": "hanse.agent/2", "new_field": 1}, 409, "protocol_mismatch", None),
        ({"protocol": 1}, 422, "bad_input", "protocol"),
        ({"token": 5}, 422, "bad_input", "token"),
        ({"token": "a\x00"}, 422, "bad_input", "token"),
        ({"extra": 1}, 422, "bad_input", "extra"),
        ({"token": "x" * 20_000}, 413, "too_large", None),
    ],
)
def test_a_join_that_does_not_fit_is_refused(site, changes, status, code, field):
    with nothing_stored():
        answer = join(**{"token": "hsj_x", **changes})
    problem(answer, status, code, *([field] if field else []))


def test_rotation_leaves_the_old_credential_its_overlap(site):
    agent = an_agent_of(site)

    reply = decode(RotateReply, agent.post("/rotate").json())

    assert reply.old_valid_s == ROTATION_OVERLAP.total_seconds()
    assert works(reply.credential)
    assert works(agent.token)


def test_the_old_credential_ends_with_the_overlap(site):
    agent = an_agent_of(site)
    new = credential_rotate(site=site, now=timezone.now() - ROTATION_OVERLAP - timedelta(seconds=1))

    assert (works(agent.token), works(new)) == (False, True)


def test_rotating_again_does_not_prolong_the_oldest(site):
    agent = an_agent_of(site)
    credential_rotate(site=site, now=timezone.now() - timedelta(minutes=3))
    oldest = AgentCredential.objects.get(digest=digest(agent.token))
    agent.post("/rotate")

    until = oldest.valid_until
    oldest.refresh_from_db()
    assert oldest.valid_until == until


def test_a_revoked_credential_is_refused_at_once(site):
    agent = an_agent_of(site)
    new = agent.post("/rotate").json()["credential"]
    credentials_revoke(site=site, actor="test", now=timezone.now())

    assert (works(agent.token), works(new)) == (False, False)
    with nothing_stored():
        problem(agent.post("/sync", a_sync()), 401, "credential_invalid")
        problem(agent.post("/rotate"), 401, "credential_invalid")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic eDp5", "hsa_x", "\xff"])
def test_without_a_credential_nothing_is_answered(site, header):
    headers = {} if header is None else {"Authorization": header}
    with nothing_stored():
        for path in ("sync", "reports", "rotate"):
            answer = Client(headers=headers).post(f"/gateway/v1/{path}")
            problem(answer, 401, "no_credential")


def test_the_scheme_may_be_written_in_any_case(site):
    agent = an_agent_of(site)
    answer = Client(headers={"Authorization": f"bearer {agent.token}"}).post("/gateway/v1/rotate")

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["join", "sync", "reports", "rotate"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_everything_is_a_post(site, path, method):
    with nothing_stored():
        answer = Client().generic(method, f"/gateway/v1/{path}")
    problem(answer, 405, "method_not_allowed")
    assert answer["Allow"] == "POST"


def test_an_unknown_address_is_a_problem_document(site):
    problem(an_agent_of(site).post("/nothing"), 404, "not_found")
