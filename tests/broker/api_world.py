"""Callers of the API and of the gateway, and what nothing-was-stored means."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import uvicorn
from django.apps import apps
from django.core.cache import cache
from django.db.models import Sum
from django.test import Client
from django.utils import timezone

from agents.protocol import PROTOCOL
from federation.models import Account, Contract, Entry, Job, Lease, LogChunk, Site, Tenant
from federation.services.access import tenant_token_issue
from tests.support import world

BODY: dict[str, Any] = {
    "name": "night",
    "job_class": "cnn",
    "command": "python train.py",
    "gpus": [1],
    "samples": 100_000,
    "value": "500",
    "max_cost": "1000",
}


@dataclass(frozen=True)
class Caller:
    """A programme with a token."""

    token: str | None
    prefix: str = "/api/v1"

    @property
    def _client(self) -> Client:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return Client(headers=headers)

    def get(self, path: str, query: Mapping[str, Any] | None = None, **headers: str) -> Any:
        return self._client.get(self.prefix + path, query, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps({} if body is None else body)
        return self._client.post(
            self.prefix + path,
            raw,
            content_type=headers.pop("content_type", "application/json"),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def call(self, method: str, path: str) -> Any:
        return self._client.generic(method, self.prefix + path)

    def submit(self, key: str | None = None, **changes: Any) -> Any:
        headers = {} if key is None else {"Idempotency_Key": key}
        return self.post("/jobs", {**BODY, **changes}, **headers)


def a_caller(tenant: Tenant | None = None, *, days: int = 30) -> Caller:
    """Acts for a tenant with funds and a class to train."""
    cache.clear()
    world.a_class("cnn")
    return Caller(a_token(tenant or world.a_tenant(), days=days))


def a_token(tenant: Tenant, *, days: int = 30, now: datetime | None = None) -> str:
    return tenant_token_issue(tenant=tenant, actor="test", days=days, now=now or timezone.now())


def an_agent_of(site: Site) -> Caller:
    cache.clear()
    return Caller(world.an_agent(site, now=timezone.now()), prefix="/gateway/v1")


def stored() -> dict[str, Any]:
    """Every row count, and the ledger's sums."""
    counts: dict[str, Any] = {
        model.__name__: model._default_manager.count()
        for model in apps.get_app_config("federation").get_models()
    }
    counts["balances"] = list(Account.objects.order_by("pk").values_list("balance_micro"))
    counts["entries"] = Entry.objects.aggregate(total=Sum("amount_micro"))["total"]
    return counts


@contextmanager
def nothing_stored() -> Iterator[None]:
    before = stored()
    yield
    assert stored() == before


def problem(response: Any, status: int, code: str, *fields: str) -> dict[str, Any]:
    """The answer is this problem document, and names these fields."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(response.content)
    assert body["type"] == f"urn:hanse:problem:{code}"
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    assert {e["field"] for e in body.get("errors", [])} == set(fields)
    assert all(e["detail"] and e["code"] for e in body.get("errors", []))
    return body


def a_running_job(tenant: Tenant, site: Site, **fields: Any) -> Lease:
    """Awarded in a real round; its lease waits for the site's agent."""
    now = timezone.now()
    job = world.a_job(tenant, now=now, **fields)
    world.a_round(now + timedelta(seconds=10))
    return world.live_lease(job)


def a_site_now(name: str = "", **offer: Any) -> Site:
    return world.a_site(name, now=timezone.now(), **offer)


def a_sync(**changes: Any) -> dict[str, Any]:
    message = {
        "protocol": PROTOCOL,
        "agent_version": "0.1.0",
        "boot": "journal.1",
        "sent_at": timezone.now().isoformat(),
        "offer_digest": "",
        "offer": None,
        "attempts": [],
    }
    return {**message, **changes}


def an_offer_document(**changes: Any) -> dict[str, Any]:
    document = {
        "pools": [{"name": "gpu", "gpu": "A100", "gpus": 4, "reserve": "10"}],
        "affinities": [{"pool": "gpu", "job_class": "cnn", "samples_per_s": 1000.0}],
    }
    return {**document, **changes}


def a_report(lease: Lease, seq: int, kind: str = "progress", **parts: Any) -> dict[str, Any]:
    contract = Contract.objects.filter(lease=lease).order_by("-sequence").first()
    return {
        "attempt": str(lease.pk),
        "seq": seq,
        "kind": kind,
        "at": timezone.now().isoformat(),
        "contract": str(contract.pk) if contract else None,
        **parts,
    }


def progress(samples: int, **changes: Any) -> dict[str, Any]:
    counts = {"samples": samples, "contract_samples": samples, "gpu_seconds": samples / 1000}
    return {**counts, **changes}


def log_part(offset: int, data: bytes, **changes: Any) -> dict[str, Any]:
    return {"offset": offset, "data": base64.b64encode(data).decode(), **changes}


def a_batch(*reports: dict[str, Any]) -> dict[str, Any]:
    return {"protocol": PROTOCOL, "reports": list(reports)}


def a_log(lease: Lease, *pieces: tuple[int, bytes], of: int | None = None) -> None:
    """Bytes of a log as its agent's reports would have put them."""
    for offset, data in pieces:
        LogChunk.objects.create(lease=lease, offset=offset, size=len(data), data=data)
    top = max(offset + len(data) for offset, data in pieces)
    Lease.objects.filter(pk=lease.pk).update(log_bytes=of or top)


@contextmanager
def serving() -> Iterator[str]:
    """The real application behind a real server on a free port of loopback."""
    from broker.asgi import application

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(64)  # who comes before the server is up waits in the queue
        server = uvicorn.Server(
            uvicorn.Config(application, log_config=None, ws="none", lifespan="on")
        )
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def job_of(response: Any) -> Job:
    return Job.objects.get(pk=response.json()["id"])
