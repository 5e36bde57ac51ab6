"""What a number must be before anything is planned with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from economics.errors import Problem
from federation.affinity.planner.errors import BadDescription


@dataclass(frozen=True, slots=True)
class Rule:
    """Bounds of one number; a whole number may be written as 1.75e11."""

    least: float = 0.0
    most: float = 1e18
    whole: bool = False
    above: bool = True  #: `least` itself is refused

    def problem(self, path: str, value: object) -> Problem | None:
        """What is wrong with the value, or None."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Problem(path, f"must be a number, is {value!r:.60}")
        why = self._why(value)
        return None if why is None else Problem(path, f"must be {why}, is {value!r:.60}")

    def _why(self, value: float) -> str | None:
        if isinstance(value, float) and not math.isfinite(value):
            return "finite"
        if self.whole and value != int(value):
            return "a whole number"
        if value < self.least or (self.above and value == self.least):
            return f"{'above' if self.above else 'at least'} {self.least:g}"
        return f"at most {self.most:g}" if value > self.most else None


POSITIVE = Rule()
MEASURE = Rule(1e-6, 1e12, above=False)  #: of a machine: nothing near the ends of a double
NOT_NEGATIVE = Rule(above=False)
SHARE = Rule(1e-6, 1.0, above=False)


def count(most: float) -> Rule:
    """A whole number from 1 to `most`."""
    return Rule(1, most, whole=True, above=False)


def refuse_any(found: Iterable[Problem | None]) -> None:
    """Raise BadDescription with every problem, if there is one."""
    problems = tuple(problem for problem in found if problem is not None)
    if problems:
        raise BadDescription(problems)
