"""Production: PostgreSQL and Redis from the environment, TLS required."""

from __future__ import annotations

from broker.settings.base import *  # noqa: F403 - settings modules build on each other
from broker.settings.base import env

SECRET_KEY = env("HANSE_SECRET_KEY")
DATABASES = {"default": env.db_url("HANSE_DATABASE_URL")}
DATABASES["default"]["CONN_MAX_AGE"] = 0  # ASGI: a thread for each request
CELERY_BROKER_URL = env("HANSE_REDIS_URL")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": env("HANSE_REDIS_URL"),
    }
}

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = env.bool("HANSE_SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
WHITENOISE_USE_FINDERS = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
