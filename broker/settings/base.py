"""What all settings share. Values that differ between installations come from the environment."""

from __future__ import annotations

from pathlib import Path

import environ
import structlog

from broker.logs import PROCESSORS
from broker.queues import MAIN, queues

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parents[2]

DEBUG = False
ALLOWED_HOSTS: list[str] = env.list(
    "HANSE_ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "::1"]
)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("HANSE_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "knox",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "axes",
    "federation",
    "broker",
    "broker.console",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "broker.middleware.LoopbackOrTls",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "broker.urls"
ASGI_APPLICATION = "broker.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

AUTH_USER_MODEL = "federation.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
AXES_FAILURE_LIMIT = 8
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
LOGIN_URL = "admin:login"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3600

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
USE_THOUSAND_SEPARATOR = True

STATIC_URL = "static/"
STATIC_ROOT = env.path("HANSE_STATIC_ROOT", default=str(BASE_DIR / "staticfiles"))()
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "broker.console.finders.PlotlyFinder",
]
WHITENOISE_USE_FINDERS = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 2**20  # each endpoint sets its own, smaller limit

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["broker.api.authentication.BearerToken"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["broker.api.parsers.StrictJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "broker.api.pagination.NewestFirst",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": [
        "rest_framework.throttling.AnonRateThrottle",
        "rest_framework.throttling.UserRateThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {
        "anon": env("HANSE_RATE_ANON", default="60/min"),
        "user": env("HANSE_RATE_USER", default="1200/min"),
        "quotes": env("HANSE_RATE_QUOTES", default="60/min"),
        "plans": env("HANSE_RATE_PLANS", default="30/min"),
    },
    #: proxies of ours in front: only so many addresses of X-Forwarded-For are believed
    "NUM_PROXIES": env.int("HANSE_PROXIES", default=0),
    "EXCEPTION_HANDLER": "broker.problems.exception_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "COERCE_DECIMAL_TO_STRING": True,
}
REST_KNOX = {
    "AUTH_HEADER_PREFIX": "Bearer",
    "TOKEN_PREFIX": "hst_",
    "TOKEN_TTL": None,  # every token is created with its own expiry, see services.access
    "MIN_REFRESH_INTERVAL": 60,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Hanse",
    "DESCRIPTION": "A clearing house for GPU datacenters: jobs, offers, rounds and prices.",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {},
}

#: the one accent of the console, light to dark
PRIMARY = {
    "50": "oklch(97% .013 236)",
    "100": "oklch(94% .028 236)",
    "200": "oklch(88% .055 236)",
    "300": "oklch(80% .085 236)",
    "400": "oklch(71% .115 238)",
    "500": "oklch(61% .125 241)",
    "600": "oklch(52% .12 243)",
    "700": "oklch(45% .105 244)",
    "800": "oklch(38% .085 245)",
    "900": "oklch(32% .065 246)",
    "950": "oklch(24% .05 248)",
}

UNFOLD = {
    "SITE_TITLE": "Hanse",
    "SITE_HEADER": "Hanse",
    "SITE_SUBHEADER": "Clearing house for GPU datacenters",
    "SITE_SYMBOL": "hub",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": "broker.console.navigation.favicon"}
    ],
    "STYLES": ["broker.console.navigation.stylesheet"],
    "SCRIPTS": ["broker.console.navigation.script"],
    "COLORS": {"primary": PRIMARY},
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {"show_search": True, "navigation": "broker.console.navigation.sections"},
    "COMMAND": {"search_models": True, "show_history": False},
}

#: how often the level-triggered ticks look for due rows, seconds
TICK_S = env.float("HANSE_TICK_S", default=2.0)
#: tables of speeds measured elsewhere, as `bench/gpu_affinity.py` writes them, for the priors
SPEED_TABLES = env.list("HANSE_SPEED_TABLES", default=[])
#: a part of the broker that was quiet this long counts as having been away
PULSE_GAP_S = env.float("HANSE_PULSE_GAP_S", default=20.0)
JOIN_TOKEN_TTL_S = env.float("HANSE_JOIN_TOKEN_TTL_S", default=3600.0)
LOG_CAP_BYTES = env.int("HANSE_LOG_CAP_BYTES", default=8 * 2**20)

#: memory of the process that solves; a round that needs more is void
SOLVE_MEMORY_MB = env.int("HANSE_SOLVE_MEMORY_MB", default=4096)
#: queues that rounds are spread over by the name of their venue
SOLVE_QUEUES = max(1, env.int("HANSE_SOLVE_QUEUES", default=4))
#: venues whose rounds go to a queue of a name of their own: venue=name,venue=name
SOLVE_PINS: dict[str, str] = env.dict("HANSE_SOLVE_PINS", default={})
#: reports and quotes that may be computed at once, over all workers; 0 = as many as workers take
STUDIES_AT_ONCE = env.int("HANSE_STUDIES_AT_ONCE", default=0)
#: a tenant with a smaller share of a round's GPU-hours is reported by its bound alone
STUDY_SHARE = env.float("HANSE_STUDY_SHARE", default=0.01)

CELERY_TASK_ACKS_LATE = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = 600
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_TASK_DEFAULT_QUEUE = MAIN
CELERY_TASK_QUEUES = queues(count=SOLVE_QUEUES, pins=SOLVE_PINS)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "events": {
            "()": "structlog.stdlib.ProcessorFormatter",
            "processor": structlog.processors.JSONRenderer(),
            "foreign_pre_chain": PROCESSORS,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "events"}},
    "root": {"handlers": ["stderr"], "level": env("HANSE_LOG_LEVEL", default="INFO")},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "kombu.connection": {"level": "ERROR"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
