"""Serve `plotly/plotly.min.js` out of the installed package: nothing fetched, nothing copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage

PREFIX = "plotly"
FILE = "plotly.min.js"


def package_data() -> Path:
    """Where the plotly package keeps its script; the package itself is not imported for it."""
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("plotly is not installed")
    return Path(spec.submodule_search_locations[0]) / "package_data"


class PlotlyFinder(BaseFinder):
    """One file of one package."""

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        found = str(package_data() / FILE) if path == f"{PREFIX}/{FILE}" else None
        if find_all:
            return [found] if found else []
        return found

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, Any]]:
        storage = FileSystemStorage(location=package_data())
        storage.prefix = PREFIX  # type: ignore[attr-defined]
        yield FILE, storage

    def check(self, **kwargs: Any) -> Any:
        return []
