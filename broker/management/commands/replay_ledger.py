"""Compute every balance again from the frozen rounds and compare it with the ledger."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from federation.selectors.replay import replay


class Command(BaseCommand):
    help = "Compute all balances again from rounds and measurements; exit 1 when one differs."

    def handle(self, *args: Any, **options: Any) -> None:
        found = replay()
        for finding in found.findings:
            self.stderr.write(finding)
        if not found.holds:
            raise CommandError(f"The ledger differs: {found.problems} findings.")
        self.stdout.write(
            f"Every balance follows: {found.contracts} contracts, {found.settlements} settlements, "
            f"{found.rounds} rounds, {found.quotes} lines beside their quotes."
        )
