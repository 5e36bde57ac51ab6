"""Addresses of the tenants' API."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from broker.api import views

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("jobs", views.JobViewSet, basename="job")
router.register("classes", views.ClassViewSet, basename="class")
router.register("rounds", views.RoundViewSet, basename="round")

urlpatterns = [
    path("me", views.Me.as_view(), name="me"),
    path("offers", views.Offers.as_view(), name="offers"),
    path("", include(router.urls)),
]
