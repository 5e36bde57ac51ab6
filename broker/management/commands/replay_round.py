"""Decide a past round again from its snapshot and compare with what was published."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from economics.certificate import verify
from federation.decision import decide
from federation.models import Round
from federation.selectors.rounds import book_of, clearing_of
from federation.services.members import MAIN_VENUE


class Command(BaseCommand):
    help = "Re-run a round from its frozen book; exit 1 when the published clearing differs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", type=int, help="the round's number")
        parser.add_argument("--venue", default=MAIN_VENUE)

    def handle(self, *args: Any, **options: Any) -> None:
        venue, number = options["venue"], options["number"]
        try:
            round = Round.objects.filter(venue__name=venue, number=number).first()
        except OperationalError:
            raise CommandError("This database has no tables yet; is HANSE_HOME set?") from None
        if round is None:
            raise CommandError(f"There is no round {options['number']}.")
        book, published = book_of(round), clearing_of(round)
        if book is None or published is None:
            raise CommandError(f"Round {round.number} has no snapshot or no clearing (any more).")
        for check in verify(book, published):
            word = "holds" if check.holds else "FAILS"
            self.stdout.write(f"{check.check}: {word} (residual {check.residual:.3g})")
        again = decide(book)
        if again.clearing is None or again.clearing["sha256"] != published["sha256"]:
            raise CommandError(f"Deciding round {round.number} again gives another clearing.")
        self.stdout.write(f"The same clearing, to the byte: {published['sha256']}")
