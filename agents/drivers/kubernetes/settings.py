"""What a site says of its cluster: the keys of `driver:` with `kind: kubernetes`.

The keys that every kind has (`env`, `threads_per_gpu`, `memory_mb_per_gpu`) become the pod's
environment, CPU request and memory limit.

driver:
  kind: kubernetes
  kubeconfig: /etc/hanse/kubeconfig    # optional: without it the pod's own service account
  context: birch                       # optional: default the file's current context
  namespace: hanse-jobs                # optional: default the context's or the pod's own
  image: registry.example.org/train:3  # what jobs run in
  resource: nvidia.com/gpu
  product_label: nvidia.com/gpu.product
  pools:
    a100: {product: NVIDIA-A100-SXM4-80GB, gpus_per_node: 8}
    v100: {gpus_per_node: 4, node_selector: {tier: old}, image: registry.example.org/old:1}
  queue: tenants                       # optional: a Kueue LocalQueue
  work_volume: {claim: hanse-work}     # or {host_path: /srv/hanse}; default: gone with the pod
  env: {NCCL_SOCKET_IFNAME: eth0}
  threads_per_gpu: 8                   # CPU request and thread limits of a job, per GPU
  memory_mb_per_gpu: 65536             # memory limit of a job, per GPU
  run_as_user: 1000
  image_pull_secrets: [registry]
  start_within_s: 900                  # longest wait for nodes and images
      image_within_s: 60                   # longest wait for an image that cannot be pulled
      look_s: 1                            # between two looks at the cluster
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.config import Pool
from agents.errors import ConfigError
from agents.reading import a_list, a_mapping, a_path, a_positive, a_text, a_whole

KEYS = (
    "kubeconfig context namespace image resource product_label pools queue work_volume "
    "run_as_user image_pull_secrets start_within_s image_within_s look_s"
)
GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class PoolNodes:
    """Which nodes are a pool's, and how many of its GPUs one node has."""

    gpus_per_node: int | None = None  #: None: a job never spans nodes
    product: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    image: str = ""


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    image: str
    kubeconfig: Path | None = None
    context: str = ""
    namespace: str = ""
    resource: str = GPU
    product_label: str = PRODUCT
    pools: dict[str, PoolNodes] = field(default_factory=dict)
    queue: str = ""
    claim: str = ""
    host_path: str = ""
    run_as_user: int | None = None
    image_pull_secrets: tuple[str, ...] = ()
    start_within_s: float = 900.0
    image_within_s: float = 60.0  #: an image that still cannot be pulled after this ends it
    look_s: float = 1.0  #: between two looks at the cluster

    def pool(self, name: str) -> PoolNodes:
        return self.pools.get(name, PoolNodes())

    def selector(self, name: str) -> dict[str, str]:
        """Labels that a node of this pool has."""
        pool = self.pool(name)
        product = {self.product_label: pool.product} if pool.product else {}
        return {**pool.node_selector, **product}


def read(
    item: dict[str, Any], folder: Path, pools: tuple[Pool, ...], path: str = "driver"
) -> KubernetesSettings:
    """Check plain values; raises ConfigError with the path of the first bad key."""
    if "image" not in item:
        raise ConfigError(f"{path}.image", "missing: the image that jobs run in")
    claim, host_path = _work_volume(item.get("work_volume"), f"{path}.work_volume")
    kubeconfig = item.get("kubeconfig")
    return KubernetesSettings(
        image=a_text(item["image"], f"{path}.image"),
        kubeconfig=None if kubeconfig is None else a_path(kubeconfig, f"{path}.kubeconfig", folder),
        context=a_text(item.get("context", ""), f"{path}.context", empty=True),
        namespace=_dns(item.get("namespace", ""), f"{path}.namespace"),
        resource=_key(item.get("resource", GPU), f"{path}.resource"),
        product_label=_key(item.get("product_label", PRODUCT), f"{path}.product_label"),
        pools=_pools(item.get("pools", {}), pools, f"{path}.pools"),
        queue=_dns(item.get("queue", ""), f"{path}.queue"),
        claim=claim,
        host_path=host_path,
        run_as_user=_optional(item, "run_as_user", path, least=0),
        image_pull_secrets=tuple(
            a_text(name, f"{path}.image_pull_secrets")
            for name in a_list(item.get("image_pull_secrets", []), f"{path}.image_pull_secrets")
        ),
        start_within_s=a_positive(item.get("start_within_s", 900.0), f"{path}.start_within_s"),
        image_within_s=a_positive(item.get("image_within_s", 60.0), f"{path}.image_within_s"),
        look_s=a_positive(item.get("look_s", 1.0), f"{path}.look_s"),
    )


def _optional(item: dict[str, Any], key: str, path: str, *, least: int) -> int | None:
    value = item.get(key)
    return None if value is None else a_whole(value, f"{path}.{key}", least=least)


def _dns(value: Any, path: str) -> str:
    text = a_text(value, path, empty=True)
    if text and not DNS_LABEL.fullmatch(text):
        raise ConfigError(path, "small letters, digits and dashes are expected, at most 63")
    return text


def _key(value: Any, path: str) -> str:
    text = a_text(value, path)
    if not LABEL_KEY.fullmatch(text):
        raise ConfigError(path, "a name such as nvidia.com/gpu is expected")
    return text


def _pools(value: Any, known: tuple[Pool, ...], path: str) -> dict[str, PoolNodes]:
    if not isinstance(value, dict):
        raise ConfigError(path, "a mapping of pool names is expected")
    for name in value:
        if name not in {pool.name for pool in known}:
            raise ConfigError(f"{path}.{name}", "no pool has this name")
    return {str(name): _pool(item, f"{path}.{name}") for name, item in value.items()}


def _pool(value: Any, path: str) -> PoolNodes:
    item = a_mapping(value, path, "gpus_per_node product node_selector image")
    product = _label_value(item.get("product", ""), f"{path}.product")
    chosen = item.get("node_selector", {})
    if not isinstance(chosen, dict):
        raise ConfigError(f"{path}.node_selector", "a mapping of labels is expected")
    selector = {
        _key(key, f"{path}.node_selector"): _label_value(text, f"{path}.node_selector.{key}")
        for key, text in chosen.items()
    }
    return PoolNodes(
        gpus_per_node=_optional(item, "gpus_per_node", path, least=1),
        product=product,
        node_selector=selector,
        image=a_text(item.get("image", ""), f"{path}.image", empty=True),
    )


def _label_value(value: Any, path: str) -> str:
    text = a_text(value, path, empty=True)
    if not LABEL_VALUE.fullmatch(text):
        raise ConfigError(path, "a label's value is expected: at most 63 letters, digits, . _ -")
    return text


def _work_volume(value: Any, path: str) -> tuple[str, str]:
    """A claim's name and a path on the nodes; at most one of them."""
    if value is None:
        return "", ""
    item = a_mapping(value, path, "claim host_path")
    if len(item) != 1:
        raise ConfigError(path, "either claim or host_path is expected")
    if "claim" in item:
        return a_text(item["claim"], f"{path}.claim"), ""
    host_path = a_text(item["host_path"], f"{path}.host_path")
    if not host_path.startswith("/") or ".." in host_path.split("/"):
        raise ConfigError(f"{path}.host_path", "a path from the root is expected")
    return "", host_path
