"""Records a conversation with a real head: python -m tests.ray.record

The everyday tests check their stand-in against it, `make test-ray` the real head.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import httpx

from tests.agents.ray_stub import FIXTURE, conversation
from tests.ray.head import RayHead, running


def recorded(head: RayHead) -> list[dict[str, Any]]:
    with httpx.Client(base_url=head.address, trust_env=False, timeout=30) as client:

        def ask(method: str, path: str, body: Any) -> tuple[int, str]:
            answer = client.request(method, path, json=body)
            return answer.status_code, answer.text

        return conversation(ask)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hr-") as name, running(Path(name)) as head:
        told = recorded(head)
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
