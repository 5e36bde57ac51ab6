"""Structured log lines: an event name and its fields, one JSON object a line, on stderr.

Every identifier that crosses a boundary is a field; tokens and credentials never are.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

LOGGER = logging.getLogger("hanse.agent")


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def event(name: str, **fields: Any) -> None:
    """Tell what happened, for example `event("attempt.started", attempt=..., gpus=4)`."""
    LOGGER.info(name, extra={"fields": fields})


def trouble(name: str, **fields: Any) -> None:
    """Tell something the operator should look at."""
    LOGGER.warning(name, extra={"fields": fields})


def to_stderr(level: int = logging.INFO) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(level)
    LOGGER.propagate = False
