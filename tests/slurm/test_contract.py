"""The contract of all drivers, on a real Slurm cluster."""

from __future__ import annotations

from tests.agents.driver_contract import RunsCommands


class TestSlurm(RunsCommands):
    """Its bench is the folder's own."""
