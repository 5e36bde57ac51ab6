"""The delivery layer as a Django app: templates, static files, management commands."""

from django.apps import AppConfig


class BrokerConfig(AppConfig):
    name = "broker"

    def ready(self) -> None:
        from broker.logs import configure  # noqa: PLC0415 - after settings are loaded

        configure()
