"""Which broker the command talks to, and as whom: a file of one login, or the environment.

The file is `$XDG_CONFIG_HOME/hanse/login.json`, readable by its owner only.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hanse.errors import NotConfigured

LOG_IN = "log in with: hanse login URL"


@dataclass(frozen=True, slots=True)
class Login:
    url: str
    token: str

    def __repr__(self) -> str:
        return f"Login(url={self.url!r})"  # a token has no place in a traceback


def login_path(environ: Mapping[str, str]) -> Path:
    """XDG says: an unset, empty or relative directory is as good as the default."""
    home = Path(environ.get("XDG_CONFIG_HOME", ""))
    base = home if home.is_absolute() else Path.home() / ".config"
    return base / "hanse" / "login.json"


def store(login: Login, path: Path) -> None:
    """Write whole or not at all; nobody else can read it at any moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, draft = tempfile.mkstemp(dir=path.parent, prefix=".login-")  # made with mode 0600
    try:
        with os.fdopen(number, "w") as file:
            json.dump({"url": login.url, "token": login.token}, file)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def current(environ: Mapping[str, str]) -> Login:
    """HANSE_URL and HANSE_TOKEN over the file. Raises `NotConfigured`.

    The stored token goes to the broker it was given for and to no other.
    """
    url, token = environ.get("HANSE_URL", ""), environ.get("HANSE_TOKEN", "")
    if url and token:
        return Login(url, token)
    stored = _stored(login_path(environ))
    if stored is None:
        missing = "HANSE_TOKEN" if url else "HANSE_URL" if token else "no login"
        raise NotConfigured(f"{missing} is not set; {LOG_IN}" if url or token else f"{LOG_IN}")
    if url and url.rstrip("/") != stored.url.rstrip("/"):
        raise NotConfigured(f"the stored token is for {stored.url}, not {url}; set HANSE_TOKEN")
    return Login(stored.url, token or stored.token)


def _stored(path: Path) -> Login | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotConfigured(f"{path} cannot be read: {error.strerror}") from None
    try:
        fields = json.loads(text)
        return Login(str(fields["url"]), str(fields["token"]))
    except (ValueError, KeyError, TypeError):
        raise NotConfigured(f"{path} is damaged; {LOG_IN}") from None
