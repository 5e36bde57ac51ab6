"""Every address of the broker."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from broker import health

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="console-overview"), name="home"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("api/v1/", include("broker.api.urls")),
    path("api/schema", SpectacularAPIView.as_view(permission_classes=[]), name="schema"),
    path(
        "api/docs",
        SpectacularSwaggerView.as_view(url_name="schema", permission_classes=[]),
        name="api-docs",
    ),
    path("gateway/v1/", include("broker.gateway.urls")),
    path("console/", include("broker.console.urls")),
    path("admin/", admin.site.urls),
]
handler400 = "broker.health.bad_request"
handler404 = "broker.health.not_found"
handler500 = "broker.health.server_error"
