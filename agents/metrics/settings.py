"""The part `metrics` of the configuration."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from agents.errors import ConfigError
from agents.reading import a_mapping, a_text, a_whole

LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    port: int  #: 0: any that is free, told in the log
    bind: str = "127.0.0.1"  #: an address of this host


def read_metrics(value: Any) -> MetricsSettings | None:
    """Check plain values; None: nothing is served. Raises ConfigError."""
    if value is None:
        return None
    item = a_mapping(value, "metrics", "port bind")
    if "port" not in item:
        raise ConfigError("metrics.port", "missing")
    port = a_whole(item["port"], "metrics.port", least=0)
    if port > LAST_PORT:
        raise ConfigError("metrics.port", f"at most {LAST_PORT}")
    bind = a_text(item.get("bind", "127.0.0.1"), "metrics.bind")
    try:
        ipaddress.ip_address(bind)
    except ValueError:
        raise ConfigError("metrics.bind", "an address such as 127.0.0.1 is expected") from None
    return MetricsSettings(port, bind)
