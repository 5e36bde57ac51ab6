"""The site's configuration: one YAML file, read strictly, so that a typo is a sentence.

A whole example, with every key; only `broker`, `state`, `pools` and `classes` are needed:

    broker: https://broker.example.org     # plain http is accepted on loopback only
    ca_file: /etc/hanse/ca.pem             # optional: trust this authority instead of the system's
    state: /var/lib/hanse                  # relative paths start at this file's folder
    pools:
      - {name: a100, gpu: A100-80, gpus: 8, reserve: "1.20"}   # credits per GPU-hour, quoted
      - {name: v100, gpu: V100-16, gpus: 4, reserve: "0.45", devices: ["0", "1", "2", "3"]}
      - {name: new, gpu: X9, gpus: 64, reserve: "2.40",        # what follows: for the planner
         memory_gb: 96, peak_tflops: 900, intra_gbit_s: 3600, inter_gbit_s: 400, gpus_per_node: 8}
    classes:
      resnet50-b64:
        samples_per_s: {a100: 1450, v100: 390}         # on one GPU
      llama7b-ft:
        gpus: 4
        samples_per_s: {a100: 31.5}                    # on 4 GPUs together
      bert-base:
        samples_per_s: {a100: {1: 420, 2: 810, 4: 1500}}
      gpt2-small:
        probe: {command: [python3, /opt/probes/gpt2.py], seconds: 60, gpus: 1}
        pools: [a100]                                  # optional: default all pools
    offer: {validity_hours: 24, note: "a100 throttled to 300 W"}
    driver:
      kind: process                # or: fake (a rehearsal: nothing runs)
      work: work                   # folders of jobs, kept from attempt to attempt
      env: {NCCL_SOCKET_IFNAME: eth0}
      threads_per_gpu: 8
      memory_mb_per_gpu: 65536     # per process of the job
      pin_cpus: false
      keep_work_days: 14
    logs: {cap_mb: 64, unsent_mb: 4}
    sync: {wait_s: 20, gap_s: 1, report_s: 10, tick_s: 0.5}
    grace_s: 120                   # longest grace this site gives a job
    probes: {parallel: false, max_age_hours: 168}
    metrics: {port: 9464, bind: 127.0.0.1}   # optional: for Prometheus, on loopback by default
    policy: policy.yaml            # optional: what this site takes and what not (agents/policy.py)
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from agents.devices import KEYS as DEVICE_KEYS
from agents.devices import UNSAID, Device, read_device
from agents.drivers.settings import ENV_NAME as ENV_NAME
from agents.drivers.settings import DriverSettings as DriverSettings
from agents.drivers.settings import driver_settings
from agents.errors import ConfigError
from agents.metrics.settings import MetricsSettings, read_metrics
from agents.protocol import PoolOffer
from agents.reading import a_flag, a_list, a_mapping, a_number, a_path, a_positive, a_text, a_whole

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  #: pools, classes: also safe as a file name
DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
MEGA = 1024 * 1024
MAX_GPUS = 100_000  #: in one pool of one site


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    gpu: str
    gpus: int
    reserve: str  #: credits per GPU-hour, decimal text
    devices: tuple[str, ...] = ()  #: values for CUDA_VISIBLE_DEVICES, one per GPU; () = none set
    device: Device = UNSAID

    def offer(self) -> PoolOffer:
        return PoolOffer(self.name, self.gpu, self.gpus, self.reserve, **self.device.said())


@dataclass(frozen=True, slots=True)
class Speed:
    """The site's word: samples/s of a class on `gpus` GPUs of a pool together."""

    pool: str
    gpus: int
    samples_per_s: float


@dataclass(frozen=True, slots=True)
class Probe:
    """How to measure instead: a command that writes progress lines, stopped after `seconds`."""

    command: tuple[str, ...]
    seconds: float
    gpus: int
    pools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobClass:
    name: str
    speeds: tuple[Speed, ...] = ()
    probe: Probe | None = None


@dataclass(frozen=True, slots=True)
class OfferSettings:
    validity_hours: float | None = None  #: None: until replaced
    note: str = ""


@dataclass(frozen=True, slots=True)
class LogSettings:
    cap_bytes: int = 64 * MEGA  #: of one attempt
    unsent_bytes: int = 4 * MEGA  #: of one attempt, waiting in the journal


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """Seconds."""

    wait_s: float = 20.0  #: longest long-poll
    gap_s: float = 1.0  #: shortest time between two syncs without news
    report_s: float = 10.0  #: between two progress reports of one attempt
    tick_s: float = 0.5  #: between two looks at the jobs


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    parallel: bool = False  #: probes at once disturb each other
    max_age_hours: float = 168.0


@dataclass(frozen=True, slots=True)
class Config:
    broker: str
    state: Path
    pools: tuple[Pool, ...]
    classes: tuple[JobClass, ...]
    offer: OfferSettings
    driver: DriverSettings
    logs: LogSettings
    sync: SyncSettings
    probes: ProbeSettings
    grace_s: float
    ca_file: Path | None = None
    metrics: MetricsSettings | None = None  #: None: nothing is served
    policy: Path | None = None  #: read again whenever it changes: agents.door

    def pool(self, name: str) -> Pool | None:
        return next((pool for pool in self.pools if pool.name == name), None)

    def first_slot(self, name: str) -> int:
        """Number of the pool's first GPU when all pools' GPUs are counted in a row."""
        before = 0
        for pool in self.pools:
            if pool.name == name:
                return before
            before += pool.gpus
        raise KeyError(name)


def load(path: Path) -> Config:
    """Read a configuration file; raises ConfigError with the path of the first bad key."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), f"is not YAML: {error}") from None
    return parse(value, folder=path.resolve().parent)


def parse(value: Any, *, folder: Path) -> Config:
    """Check plain values; relative paths start at `folder`."""
    known = (
        "broker ca_file state pools classes offer driver logs sync grace_s probes policy metrics"
    )
    top = a_mapping(value, "config", known)
    for key in ("broker", "state", "pools", "classes"):
        if key not in top:
            raise ConfigError(key, "missing")
    pools = _pools(top["pools"])
    state = a_path(top["state"], "state", folder)
    ca_file, policy = top.get("ca_file"), top.get("policy")
    return Config(
        broker=broker_url(a_text(top["broker"], "broker"), "broker"),
        ca_file=None if ca_file is None else a_path(ca_file, "ca_file", folder),
        policy=None if policy is None else a_path(policy, "policy", folder),
        metrics=read_metrics(top.get("metrics")),
        state=state,
        pools=pools,
        classes=_classes(top["classes"], pools),
        offer=_offer(top.get("offer", {})),
        driver=driver_settings(top.get("driver", {}), state=state, folder=folder, pools=pools),
        logs=_logs(top.get("logs", {})),
        sync=_sync(top.get("sync", {})),
        probes=_probes(top.get("probes", {})),
        grace_s=a_number(top.get("grace_s", 120.0), "grace_s", least=0.0),
    )


def broker_url(text: str, path: str) -> str:
    """https anywhere, plain http on this machine only: a credential never travels in the clear."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(path, "an address such as https://broker.example.org is expected")
    if url.username or url.password or url.query or url.fragment:
        raise ConfigError(path, "an address without user, query or fragment is expected")
    if url.scheme == "http" and not is_loopback(url.hostname):
        raise ConfigError(
            path,
            f"plain http to {url.hostname} would show the site's credential to the network; "
            "use https (plain http is accepted for 127.0.0.0/8, ::1 and localhost)",
        )
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.ip_network("127.0.0.0/8")
    return address == ipaddress.IPv6Address("::1")


def _pools(value: Any) -> tuple[Pool, ...]:
    pools = tuple(_pool(item, f"pools[{i}]") for i, item in enumerate(a_list(value, "pools")))
    if not pools:
        raise ConfigError("pools", "at least one pool is expected")
    names = [pool.name for pool in pools]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"pools[{i}].name", f"{name} is there twice")
    return pools


def _pool(value: Any, path: str) -> Pool:
    item = a_mapping(value, path, " ".join(("name gpu gpus reserve devices", *DEVICE_KEYS)))
    for key in ("name", "gpu", "gpus", "reserve"):
        if key not in item:
            raise ConfigError(f"{path}.{key}", "missing")
    gpus = a_whole(item["gpus"], f"{path}.gpus", least=1)
    if gpus > MAX_GPUS:
        raise ConfigError(f"{path}.gpus", f"at most {MAX_GPUS} GPUs in one pool")
    reserve = item["reserve"]
    if not isinstance(reserve, str) or not DECIMAL.fullmatch(reserve):
        raise ConfigError(
            f"{path}.reserve", 'a quoted decimal of credits per GPU-hour is expected: "1.20"'
        )
    devices = tuple(
        a_text(d, f"{path}.devices[{i}]")
        for i, d in enumerate(a_list(item.get("devices", []), f"{path}.devices"))
    )
    if devices and len(devices) != gpus:
        raise ConfigError(f"{path}.devices", f"{gpus} devices are expected, one per GPU")
    name = _name(item["name"], f"{path}.name")
    gpu = a_text(item["gpu"], f"{path}.gpu")
    return Pool(name, gpu, gpus, reserve, devices, read_device(item, path))


def _classes(value: Any, pools: tuple[Pool, ...]) -> tuple[JobClass, ...]:
    if not isinstance(value, dict):
        raise ConfigError("classes", "a mapping of class names is expected")
    return tuple(_class(name, item, pools) for name, item in value.items())


def _class(name: Any, value: Any, pools: tuple[Pool, ...]) -> JobClass:
    path = f"classes.{name}"
    _name(name, path)
    item = a_mapping(value, path, "samples_per_s gpus probe pools")
    if ("samples_per_s" in item) == ("probe" in item):
        raise ConfigError(path, "either samples_per_s or probe is expected")
    if "probe" in item:
        return JobClass(name, probe=_probe(item, path, pools))
    if "pools" in item:
        raise ConfigError(f"{path}.pools", "goes with probe; samples_per_s already names the pools")
    return JobClass(name, speeds=_speeds(item, path, pools))


def _speeds(item: dict[str, Any], path: str, pools: tuple[Pool, ...]) -> tuple[Speed, ...]:
    gpus = a_whole(item.get("gpus", 1), f"{path}.gpus", least=1)
    rates = item["samples_per_s"]
    if not isinstance(rates, dict) or not rates:
        raise ConfigError(f"{path}.samples_per_s", "a mapping of pool names is expected")
    speeds = []
    for pool_name, rate in rates.items():
        here = f"{path}.samples_per_s.{pool_name}"
        pool = _known(pool_name, here, pools)
        for count, value in (rate if isinstance(rate, dict) else {gpus: rate}).items():
            count = a_whole(count, here, least=1)
            if count > pool.gpus:
                raise ConfigError(here, f"pool {pool.name} has {pool.gpus} GPUs, not {count}")
            speeds.append(Speed(pool.name, count, a_positive(value, here)))
    return tuple(speeds)


def _probe(item: dict[str, Any], path: str, pools: tuple[Pool, ...]) -> Probe:
    here = f"{path}.probe"
    probe = a_mapping(item["probe"], here, "command seconds gpus")
    if "command" not in probe:
        raise ConfigError(f"{here}.command", "missing")
    command = tuple(
        a_text(word, f"{here}.command[{i}]")
        for i, word in enumerate(a_list(probe["command"], f"{here}.command"))
    )
    if not command:
        raise ConfigError(f"{here}.command", "a list of words is expected: [python3, probe.py]")
    names = a_list(item.get("pools", [pool.name for pool in pools]), f"{path}.pools")
    chosen = tuple(_known(name, f"{path}.pools", pools).name for name in names)
    gpus = a_whole(probe.get("gpus", item.get("gpus", 1)), f"{here}.gpus", least=1)
    for name in chosen:
        if gpus > _known(name, path, pools).gpus:
            raise ConfigError(f"{here}.gpus", f"pool {name} has fewer than {gpus} GPUs")
    seconds = a_positive(probe.get("seconds", 30.0), f"{here}.seconds")
    return Probe(command, seconds, gpus, chosen)


def _offer(value: Any) -> OfferSettings:
    item = a_mapping(value, "offer", "validity_hours note")
    hours = item.get("validity_hours")
    return OfferSettings(
        validity_hours=None if hours is None else a_positive(hours, "offer.validity_hours"),
        note=a_text(item.get("note", ""), "offer.note", empty=True),
    )


def _logs(value: Any) -> LogSettings:
    item = a_mapping(value, "logs", "cap_mb unsent_mb")
    return LogSettings(
        cap_bytes=int(a_positive(item.get("cap_mb", 64), "logs.cap_mb") * MEGA),
        unsent_bytes=int(a_positive(item.get("unsent_mb", 4), "logs.unsent_mb") * MEGA),
    )


def _sync(value: Any) -> SyncSettings:
    item = a_mapping(value, "sync", "wait_s gap_s report_s tick_s")
    return SyncSettings(
        wait_s=a_number(item.get("wait_s", 20.0), "sync.wait_s", least=0.0),
        gap_s=a_positive(item.get("gap_s", 1.0), "sync.gap_s"),
        report_s=a_positive(item.get("report_s", 10.0), "sync.report_s"),
        tick_s=a_positive(item.get("tick_s", 0.5), "sync.tick_s"),
    )


def _probes(value: Any) -> ProbeSettings:
    item = a_mapping(value, "probes", "parallel max_age_hours")
    return ProbeSettings(
        parallel=a_flag(item.get("parallel", False), "probes.parallel"),
        max_age_hours=a_positive(item.get("max_age_hours", 168.0), "probes.max_age_hours"),
    )


def _name(value: Any, path: str) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ConfigError(path, "letters, digits, dot, dash and underscore are expected")
    return value


def _known(value: Any, path: str, pools: tuple[Pool, ...]) -> Pool:
    for pool in pools:
        if pool.name == value:
            return pool
    raise ConfigError(path, f"no pool is called {value}")
