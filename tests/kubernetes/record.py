"""Record a real server's answers for the stub's test.

    python -m tests.kubernetes.record

Writes tests/agents/fixtures/kubernetes/<name>.json. Values that differ from run to run are made
the same, so that a new recording shows what really changed.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from agents.drivers.kubernetes.access import from_kubeconfig
from agents.drivers.kubernetes.manifests import jobs_of, terms_of
from agents.drivers.kubernetes.podspec import BASE
from tests.agents.kubernetes_stub import FIXTURES, conversation
from tests.agents.making import a_config, a_task, until
from tests.kubernetes.site import IMAGE, Cluster

Json = dict[str, Any]
DROPPED = ("managedFields", "selfLink")
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ADDRESS = re.compile(r"127\.\d+\.\d+\.\d+(:\d+)?")
POD_NAME = re.compile(r"(hanse-[a-z0-9]+)-[a-z0-9]{5}\b")
LONG = 400  #: characters of our own programs are left out of the recording
PLACE = re.compile(re.escape(f"{BASE}/") + r"[\w./-]+")  #: folders of ours, inside the container


def a_job(folder: Path) -> Json:
    """What the driver creates for a short command."""
    own = {"kind": "kubernetes", "image": IMAGE}
    settings = a_config(folder, driver=own).driver
    task = a_task("rec", command="echo one; echo two; exit 3", fence_at=1000.0)
    terms = terms_of(task, settings.own, indexed=False)
    [job] = jobs_of(
        task, terms=terms, site="birch", settings=settings, fence_s=600.0, made="recording"
    )
    return job


def scrubbed(value: Any, key: str = "") -> Any:
    """Without what belongs to one run or one machine."""
    if isinstance(value, dict):
        return {name: scrubbed(item, name) for name, item in value.items() if name not in DROPPED}
    if isinstance(value, list):
        return [scrubbed(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key == "resourceVersion":
        return "1"
    if len(value) > LONG or (key == "value" and PLACE.fullmatch(value)):
        return "(left out)"
    text = UID.sub("00000000-0000-0000-0000-000000000000", value)
    text = POD_NAME.sub(r"\1-xxxxx", ADDRESS.sub("127.0.0.1", text))
    return TIME.sub(
        lambda match: "2026-01-01T00:00:00" + ("." + "0" * 9 if match[1] else "") + "Z", text
    )


def record(cluster: Cluster, folder: Path) -> int:
    access = from_kubeconfig(cluster.kubeconfig())
    assert access.tls is not None
    headers = {"Authorization": f"Bearer {access.token()}"}

    def pod() -> Json:
        found = cluster.pods("rec")
        return found[0] if found else {}

    def is_so(what: str) -> bool:
        if what == "pod":
            return bool(pod())
        phase = (pod().get("status") or {}).get("phase")
        return phase == "Running" if what == "running" else phase in ("Succeeded", "Failed")

    FIXTURES.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=access.url, verify=access.tls, headers=headers) as http:
        count = 0
        for one in conversation(http, a_job(folder), lambda what: until(lambda: is_so(what), 30.0)):
            value = {"status": one.status, "answer": scrubbed(one.answer)}
            text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
            (FIXTURES / f"{one.name}.json").write_text(text + "\n")
            count += 1
    return count


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hanse-") as name:
        cluster = Cluster(Path(name))
        try:
            cluster.start()
            count = record(cluster, Path(name))
        finally:
            cluster.close()
    sys.stdout.write(f"{count} answers recorded in {FIXTURES.relative_to(Path.cwd())}\n")


if __name__ == "__main__":
    main()
