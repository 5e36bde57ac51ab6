"""Decide a frozen book: pure, with no database open. What happens between claim and record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from economics.book import read_book
from economics.certificate import verify_against
from economics.errors import BadBook, EconomicsError, NotCertified, NotCleared

LONGEST = 900  #: characters of a sentence that is stored


@dataclass(frozen=True, slots=True)
class Decision:
    """A certified clearing, or a reason why there is none."""

    clearing: dict[str, Any] | None
    void_code: str = ""
    void_why: str = ""

    def document(self) -> dict[str, Any]:
        """As it travels from the process that solves."""
        return {"clearing": self.clearing, "void_code": self.void_code, "void_why": self.void_why}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Decision:
        """The decision that `document` wrote."""
        return cls(document["clearing"], document["void_code"], document["void_why"])

    @classmethod
    def void(cls, code: str, why: str) -> Decision:
        """No clearing, for this reason."""
        return cls(None, code, why[:LONGEST])


def decide(book: dict[str, Any]) -> Decision:
    """Clear, price and certify; whatever fails becomes a reason to void, never a number."""
    from economics.rounds import decide as decide_book  # noqa: PLC0415 - imports the solvers

    try:
        read = read_book(book)
        clearing = decide_book(read)
    except EconomicsError as error:
        return Decision.void(*refusal(error))
    failures = [c.check for c in verify_against(read, clearing) if not c.holds]
    if failures:
        why = f"An independent check of the clearing failed: {', '.join(failures)}."
        return Decision.void("not_certified", why)
    return Decision(clearing)


def refusal(error: EconomicsError) -> tuple[str, str]:
    """Code and sentence of what the mathematics said no to."""
    if isinstance(error, BadBook):
        return "bad_book", str(error)
    if isinstance(error, NotCleared):
        return "not_cleared", f"The solver ended with status {error.status}."
    if isinstance(error, NotCertified):
        return "not_certified", "; ".join(error.failures)
    return "not_decided", f"The book could not be decided: {error}."
