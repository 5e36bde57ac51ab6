"""Who may compete in a matching: AlloX's fairness knob.

Sort the users by how much they have, let the ceil(alpha * users) of them that have least compete;
if then nothing starts, double alpha. At alpha = 1 all compete and only completion times count; the
smaller it is, the more the knob evens out.

Source: Le, Sun, Chowdhury and Liu, "AlloX: compute allocation in hybrid clusters" (EuroSys 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from economics.market import Array, Index

ROUNDING = 1e-9
DECIMALS = 9  # of scores relative to the largest; closer ones are equal


def ever_more(score: Array, had: Array, users: Index, alpha: float) -> Iterator[Index]:
    """The users that compete: the least served first, twice as many at each further try.

    By user number: `score` is what each has now, `had` what each has had so far, which decides
    between equals; then the number does. `users` are the distinct ones that have something
    waiting. Raises ValueError unless 0 < alpha <= 1.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is above 0 and at most 1, not {alpha}")
    now = np.round(score[users] / (np.abs(score).max(initial=0.0) or 1.0), DECIMALS)
    order = users[np.lexsort((users, had[users], now))]
    tried = 0
    while tried < order.size:
        count = min(math.ceil(alpha * order.size - ROUNDING), order.size)
        if count > tried:
            yield order[:count]
        tried, alpha = max(count, tried), min(2 * alpha, 1.0)
