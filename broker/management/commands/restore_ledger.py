"""Restore the ledger of an archive into a database that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from federation.errors import Refused
from federation.services.archive import archive_check, archive_restore


class Command(BaseCommand):
    help = "Restore the ledger of an archive; `--check` only reads the file to its end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--check", action="store_true", help="change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        source: Path = options["file"]
        try:
            archived = archive_check(source) if options["check"] else archive_restore(source)
        except Refused as refusal:
            raise CommandError(refusal.why) from None
        for currency, (position, digest) in archived.heads.items():
            self.stdout.write(f"{currency} {position} {digest}")
        word = "Whole" if options["check"] else "Restored"
        self.stdout.write(f"{word}: {archived.groups} groups, {archived.entries} entries.")
