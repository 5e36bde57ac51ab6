"""Why each job of a cleared round got what it got, as data."""

from economics.explanations.document import EXPLANATIONS_FORMAT, explain, explanations

__all__ = ["EXPLANATIONS_FORMAT", "explain", "explanations"]
