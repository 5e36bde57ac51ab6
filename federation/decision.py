"""Decide a frozen book: pure, with no database open. What happens between claim and record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from economics.book import read_book
from economics.certificate import verify
from economics.errors import BadBook, NotCertified, NotCleared


@dataclass(frozen=True, slots=True)
class Decision:
    """A certified clearing, or a reason why there is none."""

    clearing: dict[str, Any] | None
    void_code: str = ""
    void_why: str = ""


def decide(book: dict[str, Any]) -> Decision:
    """Clear, price and certify; whatever fails becomes a reason to void, never a number."""
    from economics.rounds import decide as decide_book  # noqa: PLC0415 - imports the solvers

    try:
        clearing = decide_book(read_book(book))
    except BadBook as error:
        return Decision(None, "bad_book", str(error)[:900])
    except NotCleared as error:
        return Decision(None, "not_cleared", f"The solver ended with status {error.status}.")
    except NotCertified as error:
        return Decision(None, "not_certified", "; ".join(error.failures)[:900])
    failures = [c.check for c in verify(book, clearing) if not c.holds]
    if failures:
        why = f"An independent check of the clearing failed: {', '.join(failures)}."
        return Decision(None, "not_certified", why[:900])
    return Decision(clearing)
