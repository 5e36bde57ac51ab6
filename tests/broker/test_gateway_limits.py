"""What the server itself refuses, before any endpoint looks."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from django.conf import settings

from tests.broker.api_world import serving

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
MEGA = 2**20


def test_a_body_over_every_limit_is_cut_off_while_it_comes():
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1000 * MEGA:
            sent += MEGA
            yield b"x" * MEGA

    with serving() as base:
        try:
            answer = httpx.post(f"{base}/gateway/v1/join", content=body(), timeout=30)
        except httpx.TransportError:  # closed while we were still sending: refused as well
            pass
        else:
            assert answer.status_code == 413
            assert answer.json()["code"] == "too_large"
    assert sent < settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 64 * MEGA


def test_a_body_just_over_the_limit_gets_a_problem_document():
    with serving() as base:
        content = b"x" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        answer = httpx.post(f"{base}/api/v1/jobs", content=content, timeout=30)
    assert answer.status_code in (401, 413)  # whoever looks first
    assert answer.headers["content-type"] == "application/problem+json"
