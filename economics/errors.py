"""What can go wrong in a round, as facts; all of them are an `EconomicsError`."""

from __future__ import annotations

from dataclasses import dataclass


class EconomicsError(Exception):
    """A round could not be decided."""


class NotCleared(EconomicsError):
    """The solver did not prove what was asked of it, so its values were not read."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the round was not cleared: {status}")
        self.status = status


class BadMarket(EconomicsError):
    """An array of the market breaks its own contract."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: where, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class BadBook(EconomicsError):
    """The document is not a book this package would decide a round from."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[BadBook], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class NotCertified(EconomicsError):
    """A clearing was found, but a check made without the solver does not hold."""

    def __init__(self, failures: tuple[str, ...]) -> None:
        super().__init__("not certified: " + "; ".join(failures))
        self.failures = failures

    def __reduce__(self) -> tuple[type[NotCertified], tuple[tuple[str, ...]]]:
        return type(self), (self.failures,)
