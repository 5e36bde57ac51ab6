"""What the federation says no with. Every refusal has a code for a machine and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from federation.machines.base import InvalidTransition

__all__ = [
    "BadInput",
    "FederationError",
    "FieldProblem",
    "InvalidTransition",
    "NotAllowed",
    "NotFound",
    "Refused",
]


class FederationError(Exception):
    """Base of all that a service refuses."""

    code = "refused"

    def __init__(self, why: str, *, code: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        if code is not None:
            self.code = code


class NotFound(FederationError):
    """There is no such object, or it is not this caller's to see: the answer is the same."""

    code = "not_found"


class NotAllowed(FederationError):
    """The caller is known and may not do this."""

    code = "not_allowed"


class Refused(FederationError):
    """A rule of the federation said no."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One bad field: where it is, what to mend, and a code."""

    path: str
    why: str
    code: str = "invalid"


class BadInput(FederationError):
    """The request does not fit; nothing was stored."""

    code = "bad_input"

    def __init__(self, *problems: FieldProblem) -> None:
        super().__init__("; ".join(f"{p.path}: {p.why}" for p in problems))
        self.problems = problems
