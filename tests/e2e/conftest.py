"""Realms of real processes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.realm import Realm


@pytest.fixture
def realm() -> Iterator[Callable[..., Realm]]:
    """Make a realm: `realm(sites={...}, venue={...})`; its processes end with the test."""
    made: list[Realm] = []

    def make(
        *,
        sites: dict[str, str],
        venue: dict[str, Any] | None = None,
        tenants: dict[str, str] | None = None,
        **options: Any,
    ) -> Realm:
        home = Path(tempfile.mkdtemp(prefix="hanse-e2e-"))
        new = Realm(home, **options)
        made.append(new)
        new.furnish(sites=sites, venue=venue, tenants=tenants)
        new.start()
        return new

    yield make
    for old in made:
        old.close()
        shutil.rmtree(old.home, ignore_errors=True)
