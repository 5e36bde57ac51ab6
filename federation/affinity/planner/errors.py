"""What the planner refuses, as facts."""

from __future__ import annotations

from economics.errors import Problem


class PlannerError(Exception):
    """Nothing can be planned from what was given."""


class BadDescription(PlannerError):
    """A model, a device, a pool or a wish breaks its own contract; one line for each problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[BadDescription], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class NoPlan(PlannerError):
    """No split of the model runs there; the sentence names the tightest part."""
