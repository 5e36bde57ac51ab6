"""Logs are text; what goes wrong on the way to one is still a problem document."""

from __future__ import annotations

from rest_framework.renderers import JSONRenderer


class PlainText(JSONRenderer):
    """Lets a caller ask for `text/plain`. The view makes the text itself, so only refusals, whose
    content type is their own, are ever rendered here."""

    media_type = "text/plain"
    format = "txt"
    charset = "utf-8"
