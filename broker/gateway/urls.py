"""Addresses of the agents' gateway."""

from django.urls import path

from broker.gateway import views

urlpatterns = [
    path("join", views.join, name="gateway-join"),
    path("sync", views.sync, name="gateway-sync"),
    path("reports", views.reports, name="gateway-reports"),
    path("rotate", views.rotate, name="gateway-rotate"),
]
