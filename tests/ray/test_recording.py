"""The recorded conversation is still what this Ray says."""

from __future__ import annotations

import json

from tests.agents.ray_stub import FIXTURE
from tests.ray.head import RayHead
from tests.ray.record import recorded


def test_a_real_head_answers_as_recorded(head: RayHead) -> None:
    assert recorded(head) == json.loads(FIXTURE.read_text())
