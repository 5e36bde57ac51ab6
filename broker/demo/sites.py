"""The demo's three datacenters: what they own, what they charge, how they are throttled.

They share one machine, so they differ by threads and by an openly declared throttle: each class's
share of the time that it may compute. The shares are chosen so that no site is best at everything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from broker.embedded import Child, NotStarted

TRAINING = Path(__file__).with_name("training.py")
KNOWN = ("mlp-wide", "mlp-deep", "conv-small", "embed-rec")
UNKNOWN = "attn-tiny"  #: no site has ever run it: it gets a paid probe
PROBE_S = 2.0


@dataclass(frozen=True, slots=True)
class DemoSite:
    """One datacenter of the demo."""

    name: str
    member: str
    gpu: str
    gpus: int
    reserve: str  #: credits per GPU-hour
    threads: int  #: CPU threads that stand for one GPU
    throttle: Mapping[str, float]  #: class -> share of the time that it computes

    @property
    def note(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.throttle.items())
        return (
            f"demo on one machine: {self.threads} CPU thread(s) stand for a GPU; "
            f"declared throttle {shares}"
        )


SITES = (
    DemoSite(
        "hamburg",
        "alder",
        "sim-H",
        2,
        "600",
        2,
        {"mlp-wide": 0.30, "mlp-deep": 0.10, "conv-small": 0.08, "embed-rec": 0.12, "*": 0.15},
    ),
    DemoSite(
        "luebeck",
        "birch",
        "sim-L",
        2,
        "500",
        1,
        {"mlp-wide": 0.12, "mlp-deep": 0.28, "conv-small": 0.10, "embed-rec": 0.08, "*": 0.25},
    ),
    DemoSite(
        "bremen",
        "clover",
        "sim-B",
        3,
        "400",
        1,
        {"mlp-wide": 0.07, "mlp-deep": 0.08, "conv-small": 0.24, "embed-rec": 0.22, "*": 0.10},
    ),
)


def agent_config(site: DemoSite, *, url: str, folder: Path) -> Path:
    """Write the YAML that the site's agent reads."""
    config = {
        "broker": url,
        "state": str(folder / "state"),
        "pools": [{"name": "gpu", "gpu": site.gpu, "gpus": site.gpus, "reserve": site.reserve}],
        "classes": {
            name: {
                "probe": {
                    "command": [
                        sys.executable,
                        str(TRAINING),
                        "--class",
                        name,
                        "--samples",
                        "100000000",
                    ],
                    "seconds": PROBE_S,
                    "gpus": 1,
                }
            }
            for name in KNOWN
        },
        "offer": {"validity_hours": 24, "note": site.note},
        "driver": {
            "kind": "process",
            "work": str(folder / "work"),
            "threads_per_gpu": site.threads,
            "env": {"HANSE_THROTTLE": json.dumps(dict(site.throttle))},
        },
        "sync": {"wait_s": 5, "gap_s": 0.2, "report_s": 1, "tick_s": 0.2},
        "grace_s": 5,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def agent_join(*, url: str, token: str, config: Path) -> None:
    """Enrol as a site's administrator would: one command with the one-time token."""
    done = subprocess.run(  # noqa: S603 - a fixed list of ours
        [sys.executable, "-m", "agents", "join", url, token, "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotStarted(f"agent join failed:\n{done.stdout}{done.stderr}")


def agent_process(site: DemoSite, *, config: Path, logs: Path) -> Child:
    return Child(
        name=f"agent of {site.name}",
        command=[sys.executable, "-m", "agents", "run", "--config", str(config)],
        env=dict(os.environ),
        log=logs / f"agent-{site.name}.log",
    )
