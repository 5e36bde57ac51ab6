"""Write the ledger to a file: a table, a JSON document, or an archive that can be restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from federation.errors import Refused
from federation.selectors.exports import ledger_csv, ledger_json
from federation.services.archive import archive_write

PIECES = {"csv": ledger_csv, "json": ledger_json}


class Command(BaseCommand):
    help = "Write the whole ledger to a file; `--format archive` makes one that can be restored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--format", choices=["csv", "json", "archive"], default="archive")

    def handle(self, *args: Any, **options: Any) -> None:
        target: Path = options["file"]
        if options["format"] in PIECES:
            with target.open("w", encoding="utf-8", newline="") as file:
                file.writelines(PIECES[options["format"]]())
            self.stdout.write(f"Written: {target}")
            return
        try:
            archived = archive_write(target, now=timezone.now())
        except Refused as refusal:
            raise CommandError(refusal.why) from None
        for currency, (position, digest) in archived.heads.items():
            self.stdout.write(f"{currency} {position} {digest}")
        self.stdout.write(f"Written: {target}, {archived.groups} groups")
