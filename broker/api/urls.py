"""Addresses of the tenants' API."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from broker.api import explanations, studies, views

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("jobs", views.JobViewSet, basename="job")
router.register("classes", views.ClassViewSet, basename="class")
router.register("quotes", studies.QuoteViewSet, basename="quote")
router.register("rounds", views.RoundViewSet, basename="round")

urlpatterns = [
    path("me", views.Me.as_view(), name="me"),
    path("offers", views.Offers.as_view(), name="offers"),
    path(
        "rounds/<int:number>/contributions",
        studies.Contributions.as_view(),
        name="contributions",
    ),
    path("rounds/<int:number>/curves", explanations.Curves.as_view(), name="curves"),
    path("jobs/<uuid:pk>/explanation", explanations.Explanation.as_view(), name="explanation"),
    path("", include(router.urls)),
]
