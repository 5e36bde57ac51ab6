"""The contract of all drivers, on a real Ray head."""

from __future__ import annotations

from tests.agents.driver_contract import RunsCommands


class TestRay(RunsCommands):
    """Its bench is the folder's own."""
