"""What `driver` says of a Slurm cluster, read strictly.

driver:
  kind: slurm
  shared: /shared/hanse            # one folder, same path on the agent's host and on every node
  pools:
    a100: {partition: gpu, gres: "gpu:a100", gpus_per_node: 4, qos: normal, constraint: nvlink}
  account: federation              # of jobs whose tenant is not named below
  accounts: {alder: proj-17}       # tenant -> local account
  python: /usr/bin/python3         # on the nodes, 3.9 or newer
  bin: /opt/slurm/bin              # default: found on a plain PATH
  conf: /etc/slurm/slurm.conf      # default: Slurm's own
  options: ["--reservation=hanse"] # further words of sbatch
  look_s: 10
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.errors import ConfigError
from agents.reading import a_list, a_mapping, a_path, a_positive, a_text, a_whole

if TYPE_CHECKING:
    from agents.config import Pool

KEYS = "shared pools account accounts python bin conf options look_s"
POOL_KEYS = "partition gres gpus_per_node qos account constraint"
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+/,&|*()\[\]=!-]*")  #: never read as an option
OURS = ("--job-name", "--comment", "--requeue", "--no-requeue", "--array", "--wrap", "--export")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    gres: str = "gpu"  #: "gpu" or "gpu:TYPE"
    gpus_per_node: int | None = None  #: a larger lease spans nodes; None: it has to fit on one
    partition: str = ""  #: empty here and below: the cluster's default
    qos: str = ""
    account: str = ""
    constraint: str = ""


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    shared: Path
    pools: dict[str, PoolSettings]
    account: str = ""
    accounts: dict[str, str] = field(default_factory=dict)  #: tenant -> local account
    python: Path = Path("/usr/bin/python3")
    bin: Path | None = None
    conf: Path | None = None
    options: tuple[str, ...] = ()
    look_s: float = 10.0  #: between two questions to slurmctld

    def account_of(self, tenant: str, pool: PoolSettings) -> str:
        return self.accounts.get(tenant) or pool.account or self.account


def read(item: dict[str, Any], folder: Path, pools: tuple[Pool, ...]) -> SlurmSettings:
    """Raises ConfigError with the path of the first bad key."""
    if "shared" not in item:
        raise ConfigError(
            "driver.shared", "missing; name a folder that every node sees under the same path"
        )
    python = a_path(item.get("python", "/usr/bin/python3"), "driver.python", folder)
    if " " in str(python):
        raise ConfigError("driver.python", "a path without spaces is expected")
    return SlurmSettings(
        shared=a_path(item["shared"], "driver.shared", folder).resolve(),
        pools=_pools(item.get("pools", {}), pools),
        account=_word(item, "account", "driver"),
        accounts=_accounts(item.get("accounts", {})),
        python=python,
        bin=a_path(item["bin"], "driver.bin", folder) if "bin" in item else None,
        conf=a_path(item["conf"], "driver.conf", folder) if "conf" in item else None,
        options=_options(item.get("options", [])),
        look_s=a_positive(item.get("look_s", 10.0), "driver.look_s"),
    )


def _pools(value: Any, pools: tuple[Pool, ...]) -> dict[str, PoolSettings]:
    given = a_mapping(value, "driver.pools", " ".join(pool.name for pool in pools))
    return {
        pool.name: _pool(given.get(pool.name, {}), f"driver.pools.{pool.name}", pool)
        for pool in pools
    }


def _pool(value: Any, path: str, pool: Pool) -> PoolSettings:
    item = a_mapping(value, path, POOL_KEYS)
    per_node = item.get("gpus_per_node", pool.device.gpus_per_node)
    return PoolSettings(
        gres=_word(item, "gres", path) or "gpu",
        gpus_per_node=None
        if per_node is None
        else a_whole(per_node, f"{path}.gpus_per_node", least=1),
        partition=_word(item, "partition", path),
        qos=_word(item, "qos", path),
        account=_word(item, "account", path),
        constraint=_word(item, "constraint", path),
    )


def _accounts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ConfigError("driver.accounts", "a mapping of tenants to accounts is expected")
    for tenant in value:
        a_text(tenant, "driver.accounts")
    return {tenant: _word(value, tenant, "driver.accounts") for tenant in value}


def _options(value: Any) -> tuple[str, ...]:
    words = []
    for i, item in enumerate(a_list(value, "driver.options")):
        path = f"driver.options[{i}]"
        word = a_text(item, path)
        if not word.startswith("--"):
            raise ConfigError(path, "a long option of sbatch is expected: --name=value")
        if word.partition("=")[0] in OURS:
            raise ConfigError(path, f"{word.partition('=')[0]} is the agent's to set")
        words.append(word)
    return tuple(words)


def _word(item: dict[str, Any], key: str, path: str) -> str:
    """A name for Slurm; empty when it is not there."""
    if key not in item:
        return ""
    word = a_text(item[key], f"{path}.{key}")
    if not WORD.fullmatch(word):
        raise ConfigError(f"{path}.{key}", f"{word[:80]!r} is not a name for Slurm")
    return word
