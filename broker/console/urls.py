"""Addresses of the operators' console."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def overview(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Overview")


urlpatterns = [path("", overview, name="console-overview")]
