"""A stub broker for whoever asks, and an environment without the developer's own login."""

from __future__ import annotations

import pytest

from tests.hanse.stub import serving


@pytest.fixture
def broker():
    with serving() as stub:
        yield stub


@pytest.fixture(autouse=True)
def _no_login_of_ours(monkeypatch, tmp_path):
    for name in ("HANSE_URL", "HANSE_TOKEN", "HANSE_PROGRESS", "HANSE_SAMPLES", "HANSE_PROBE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
