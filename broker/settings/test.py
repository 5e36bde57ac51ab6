"""Tests: SQLite by default, a real PostgreSQL and Redis when the fixtures name one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from broker.settings.base import *  # noqa: F403 - settings modules build on each other
from broker.settings.base import env

SECRET_KEY = "only for tests, never for a running broker: 6f1c0ac2e3f94b1a8d"  # noqa: S105
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # speed only

_SCRATCH = Path(env("HANSE_HOME", default="") or tempfile.mkdtemp(prefix="hanse-test-"))
STATIC_ROOT = _SCRATCH / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
DATABASES = {
    "default": env.db_url("HANSE_DATABASE_URL", default=f"sqlite:///{_SCRATCH}/hanse.sqlite3")
}
if "sqlite" in DATABASES["default"]["ENGINE"]:
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    DATABASES["default"]["TEST"] = {"NAME": str(_SCRATCH / "test.sqlite3")}
CELERY_BROKER_URL = env("HANSE_REDIS_URL", default="memory://")
AXES_ENABLED = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
