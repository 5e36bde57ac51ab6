"""The embedded default: SQLite in WAL mode and Celery's file-system transport, no server needed.

Everything lives in one folder, HANSE_HOME. Plain HTTP is accepted on loopback only.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from broker.settings.base import *  # noqa: F403 - settings modules build on each other
from broker.settings.base import env

HOME = Path(env("HANSE_HOME", default="") or Path.cwd() / ".hanse" / "up").resolve()
HOME.mkdir(parents=True, exist_ok=True, mode=0o700)


def _secret_key() -> str:
    """A key made on first use and kept beside the database."""
    path = HOME / "secret_key"
    try:
        with path.open("x") as file:
            path.chmod(0o600)
            file.write(secrets.token_urlsafe(64))
    except FileExistsError:
        pass
    return path.read_text()


SECRET_KEY = env("HANSE_SECRET_KEY", default="") or _secret_key()

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HOME / "hanse.sqlite3",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}

_QUEUE = HOME / "queue"
for _folder in ("messages", "control"):
    (_QUEUE / _folder).mkdir(parents=True, exist_ok=True)
CELERY_BROKER_URL = "wholefiles://"  # broker.filequeue
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": str(_QUEUE / "messages"),
    "data_folder_out": str(_QUEUE / "messages"),
    "control_folder": str(_QUEUE / "control"),
    "polling_interval": 0.2,
}
STATIC_ROOT = HOME / "static"  # empty: files are found in the packages that ship them
STATIC_ROOT.mkdir(exist_ok=True)
#: two processes serve everything: the ticks must always find one of them free
STUDIES_AT_ONCE = env.int("HANSE_STUDIES_AT_ONCE", default=1)
CELERY_BEAT_SCHEDULE_FILENAME = str(HOME / "beat-schedule")
CELERY_BEAT_MAX_LOOP_INTERVAL = 1.0
