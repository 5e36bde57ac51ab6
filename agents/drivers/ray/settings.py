"""What a site says of its Ray cluster: the keys of `driver:` with `kind: ray`.

driver:
  kind: ray
  address: http://127.0.0.1:8265       # the head's dashboard
  work: /shared/hanse/work             # every node of Ray and the agent see it under this path
  attempts: /shared/hanse/attempts     # optional: default beside `work`, on the same file system
  token_file: /etc/hanse/ray-token     # optional: where the head asks for a token
  ca_file: /etc/hanse/ray-ca.pem       # optional: for an https address
  python: python3                      # optional: on the nodes, 3.9 or newer, no package needed
  pools:
    a100: {accelerator: A100}          # Ray's name for the GPUs, where nodes differ
    v100: {resources: {old_rack: 1}}   # or resources of the site's own making
  prefix: hanse                        # of submissions: another one for another federation
  start_within_s: 900                  # longest wait for Ray's own queue
  look_s: 2                            # between two questions about one silent job
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agents.config import NAME, Pool, is_loopback
from agents.errors import ConfigError
from agents.reading import a_mapping, a_path, a_positive, a_text

KEYS = "address token_file ca_file python attempts pools prefix start_within_s look_s"
ADDRESS = "http://127.0.0.1:8265"
TYPE_SHARE = 0.001  #: of a node's one `accelerator_type:...`, as Ray's own tasks ask for it


@dataclass(frozen=True, slots=True)
class RaySettings:
    address: str = ADDRESS
    token_file: Path | None = None
    ca_file: Path | None = None
    python: str = "python3"
    attempts: Path | None = None  #: None: beside `work`
    resources: dict[str, dict[str, float]] = field(default_factory=dict)  #: by pool
    prefix: str = "hanse"
    start_within_s: float = 900.0
    look_s: float = 2.0

    def submission(self, attempt: str) -> str:
        """Ray refuses a second job of this name, so an attempt starts once whoever sends it."""
        return f"{self.prefix}-{attempt}"


def read(item: dict[str, Any], folder: Path, pools: tuple[Pool, ...]) -> RaySettings:
    """Check plain values; relative paths start at `folder`."""
    _left_to_ray(item, pools)
    given = RaySettings()
    return RaySettings(
        address=_address(item),
        token_file=_path(item, "token_file", folder),
        ca_file=_path(item, "ca_file", folder),
        python=a_text(item.get("python", given.python), "driver.python"),
        attempts=_path(item, "attempts", folder),
        resources=_pools(item.get("pools", {}), {pool.name for pool in pools}),
        prefix=_prefix(item.get("prefix", given.prefix)),
        start_within_s=a_positive(
            item.get("start_within_s", given.start_within_s), "driver.start_within_s"
        ),
        look_s=a_positive(item.get("look_s", given.look_s), "driver.look_s"),
    )


def _left_to_ray(item: dict[str, Any], pools: tuple[Pool, ...]) -> None:
    """A key that would do nothing is refused, so that nobody relies on it."""
    if item.get("pin_cpus"):
        raise ConfigError("driver.pin_cpus", "Ray picks the node: leave it out")
    for i, pool in enumerate(pools):
        if pool.devices:
            raise ConfigError(f"pools[{i}].devices", "Ray picks the GPUs: leave it out")
    if "work" not in item:
        raise ConfigError("driver.work", "a folder that all nodes of Ray and the agent share")


def _prefix(value: Any) -> str:
    text = a_text(value, "driver.prefix")
    if not NAME.fullmatch(text):
        raise ConfigError("driver.prefix", "letters, digits, dot, dash and underscore are expected")
    return text


def _path(item: dict[str, Any], key: str, folder: Path) -> Path | None:
    return a_path(item[key], f"driver.{key}", folder) if key in item else None


def _address(item: dict[str, Any]) -> str:
    """A token never travels in the clear; without one Ray's own plain http is as it is."""
    text = a_text(item.get("address", ADDRESS), "driver.address")
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ConfigError("driver.address", "an address such as http://head:8265 is expected")
    if "token_file" in item and url.scheme == "http" and not is_loopback(url.hostname):
        raise ConfigError(
            "driver.address",
            f"plain http to {url.hostname} would show the token of token_file to the network; "
            "use https, or a tunnel that ends on this machine",
        )
    return text.rstrip("/")


def _pools(value: Any, known: set[str]) -> dict[str, dict[str, float]]:
    """What a job of each pool asks of Ray beside its GPUs."""
    path = "driver.pools"
    if not isinstance(value, dict):
        raise ConfigError(path, "a mapping of pool names is expected")
    for name in value:
        if name not in known:
            raise ConfigError(f"{path}.{name}", f"no pool is called {name}")
    return {name: _resources(item, f"{path}.{name}") for name, item in value.items()}


def _resources(value: Any, path: str) -> dict[str, float]:
    item = a_mapping(value, path, "accelerator resources")
    own = item.get("resources", {})
    if not isinstance(own, dict):
        raise ConfigError(f"{path}.resources", "a mapping of Ray's resource names is expected")
    found = {}
    for name, amount in own.items():
        here = f"{path}.resources.{name}"
        if name in ("CPU", "GPU", "memory", "object_store_memory"):
            raise ConfigError(here, "follows from the lease; only resources of your own go here")
        found[a_text(name, here)] = a_positive(amount, here)
    if "accelerator" in item:
        kind = a_text(item["accelerator"], f"{path}.accelerator")
        found[f"accelerator_type:{kind}"] = TYPE_SHARE
    return found
