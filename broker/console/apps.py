"""The console as a Django app of its own, so that its templates and static files are found."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "broker.console"
    label = "console"
    verbose_name = "Console"
