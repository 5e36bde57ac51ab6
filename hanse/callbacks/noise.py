"""Gradient noise from gradients that a step averages anyway; standard library only.

A step averages n gradients of equal batches. With L the mean of their squared norms and A the
squared norm of their average,

    square = (n A - L) / (n - 1)        squared norm of the true gradient
    variance = (L - A) / (n - 1)        of the averaged gradient, one step's

are unbiased (McCandlish and others, An Empirical Model of Large-Batch Training, 2018, appendix A;
Qiao and others, Pollux, OSDI 2021). Single steps are far off, so both are averaged over steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAY = 0.999  #: weight of the past in the averages, per step


@dataclass(slots=True)
class NoiseAverage:
    """Exponential averages over steps, free of the bias of their start.

    Variances of steps of different sizes are brought to one sample before they are averaged.
    """

    decay: float = DECAY
    weight: float = 0.0
    square: float = 0.0
    variance_of_one: float = 0.0

    def take(self, mean_square: float, averaged_square: float, many: int, samples: float) -> None:
        """L and A of one step of `many` gradients and `samples` samples; nonsense is left out."""
        if many < 2 or not (math.isfinite(mean_square) and math.isfinite(averaged_square)):
            return  # a step that a loss scaler skips has infinite gradients
        square = (many * averaged_square - mean_square) / (many - 1)
        variance = (mean_square - averaged_square) / (many - 1)
        kept = 1.0 - self.decay
        self.weight = self.decay * self.weight + kept
        self.square = self.decay * self.square + kept * square
        self.variance_of_one = self.decay * self.variance_of_one + kept * variance * samples

    def values(self, samples: float) -> dict[str, float]:
        """`grad_sqr` and `grad_var` of a step of so many samples; empty while they mean nothing.

        The estimates are unbiased, so they may be negative while few steps are behind them.
        """
        if not self.weight or min(self.square, self.variance_of_one) <= 0.0:
            return {}
        return {
            "grad_sqr": self.square / self.weight,
            "grad_var": self.variance_of_one / self.weight / samples,
        }
