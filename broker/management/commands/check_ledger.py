"""Verify the whole ledger: sums, balances, chain, guards."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from federation.selectors.ledger import verify


class Command(BaseCommand):
    help = "Verify every group, balance and link of the ledger; exit 1 when one does not hold."

    def handle(self, *args: Any, **options: Any) -> None:
        found = verify()
        for head in found.heads:
            self.stdout.write(f"{head.currency} {head.position} {head.digest}")
        for finding in found.findings:
            self.stderr.write(finding)
        if not found.holds:
            raise CommandError(f"The ledger does not hold: {found.problems} problems.")
        self.stdout.write(f"The ledger holds: {found.groups} groups, {found.entries} entries.")
