"""Where the API server is and who we are to it: a kubeconfig, or the pod's own service account.

TLS is always verified. What a kubeconfig may ask for and we do not do (programs that fetch
credentials, unverified TLS, passwords) is refused with a sentence, never passed over.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from agents.config import is_loopback
from agents.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CLUSTER_KEYS = {"server", "certificate-authority", "certificate-authority-data", "extensions"}
USER_KEYS = {
    *("token", "tokenFile", "extensions"),
    *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
}


@dataclass(frozen=True, slots=True)
class Access:
    url: str
    namespace: str
    tls: ssl.SSLContext | None  #: None: plain http, on loopback only
    token: Callable[[], str]  #: asked before each call: a mounted token is replaced while we run


def in_cluster(environment: Mapping[str, str], *, folder: Path = SERVICE_ACCOUNT) -> Access:
    """The service account of the pod that the agent runs in."""
    host, port = (
        environment.get("KUBERNETES_SERVICE_HOST"),
        environment.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if not host or not (folder / "token").is_file():
        raise ConfigError(
            "driver.kubeconfig",
            "missing, and this is no pod with a service account: name a kubeconfig file",
        )
    host = f"[{host}]" if ":" in host else host
    return Access(
        url=f"https://{host}:{port}",
        namespace=_word(folder / "namespace"),
        tls=ssl.create_default_context(cafile=str(folder / "ca.crt")),
        token=lambda: _word(folder / "token"),
    )


def from_kubeconfig(path: Path, *, context: str = "") -> Access:
    """One context of a kubeconfig file; relative paths in it start at its folder."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), f"is not YAML: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(str(path), "is not a kubeconfig")
    name = context or str(value.get("current-context") or "")
    chosen = _named(value, "contexts", "context", name, path)
    cluster = _named(value, "clusters", "cluster", str(chosen.get("cluster", "")), path)
    user = _named(value, "users", "user", str(chosen.get("user", "")), path)
    _refuse_unknown(cluster, CLUSTER_KEYS, f"{path}: cluster {chosen.get('cluster')}")
    _refuse_unknown(user, USER_KEYS, f"{path}: user {chosen.get('user')}")
    url = str(cluster.get("server", "")).rstrip("/")
    return Access(
        url=url,
        namespace=str(chosen.get("namespace") or "default"),
        tls=_tls(url, cluster, user, path),
        token=_token(user, path.parent),
    )


def access_for(kubeconfig: Path | None, context: str) -> Access:
    if kubeconfig is None:
        return in_cluster(os.environ)
    return from_kubeconfig(kubeconfig, context=context)


def _named(value: dict[str, Any], many: str, one: str, name: str, path: Path) -> dict[str, Any]:
    for item in value.get(many) or []:
        if isinstance(item, dict) and item.get("name") == name and isinstance(item.get(one), dict):
            return dict(item[one])
    raise ConfigError(str(path), f"{many} has no entry called {name!r}")


def _refuse_unknown(item: dict[str, Any], known: set[str], path: str) -> None:
    for key in item:
        if key == "insecure-skip-tls-verify" and item[key] is False:
            continue
        if key not in known:
            raise ConfigError(f"{path}.{key}", f"is not supported; known are {sorted(known)}")


def _tls(
    url: str, cluster: dict[str, Any], user: dict[str, Any], path: Path
) -> ssl.SSLContext | None:
    parts = urlsplit(url)
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return None
    if parts.scheme != "https" or not parts.hostname:
        raise ConfigError(str(path), f"server: an https address is expected, not {url!r}")
    authority = _content(cluster, "certificate-authority", path)
    context = ssl.create_default_context(cadata=None if authority is None else authority.decode())
    certificate, key = (_content(user, f"client-{what}", path) for what in ("certificate", "key"))
    if (certificate is None) != (key is None):
        raise ConfigError(str(path), "client-certificate and client-key go together")
    if certificate is not None and key is not None:
        _present(context, certificate, key, path)
    return context


def _present(context: ssl.SSLContext, certificate: bytes, key: bytes, path: Path) -> None:
    """The ssl module reads certificates from files only; these are gone when we return."""
    with tempfile.TemporaryDirectory(prefix="hanse-") as folder:
        pair = Path(folder, "pair.pem")
        pair.touch(mode=0o600)
        pair.write_bytes(certificate + b"\n" + key)
        try:
            context.load_cert_chain(str(pair))
        except ssl.SSLError as error:
            raise ConfigError(str(path), f"the client certificate is not usable: {error}") from None


def _content(item: dict[str, Any], key: str, path: Path) -> bytes | None:
    """Of a file named by `key`, or of base64 under `key`-data."""
    try:
        if f"{key}-data" in item:
            return base64.b64decode(str(item[f"{key}-data"]), validate=True)
        if key in item:
            return (path.parent / str(item[key])).read_bytes()
    except (OSError, binascii.Error) as error:
        raise ConfigError(str(path), f"{key} cannot be read: {error}") from None
    return None


def _token(user: dict[str, Any], folder: Path) -> Callable[[], str]:
    if "tokenFile" in user:
        file = folder / str(user["tokenFile"])
        return lambda: _word(file)
    token = str(user.get("token", ""))
    return lambda: token


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""  # it is being replaced; the server says 401 and the next call reads it again
