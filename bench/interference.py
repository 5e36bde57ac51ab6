"""Errors of predicted rates of two jobs on one GPU, on Gavel's measured pairs.

    HANSE_DATA=... python -m bench.interference --json

For each GPU, `--hidden` of the pairs are hidden and both their rates, relative to running alone,
told from the others: `_error` is the mean absolute error, `_additive` that of sensitivity and
pressure alone, `_constant` that of the mean. `_above_low` is the part of the hidden rates above the
95 % lower bound. `_admitted` of them keep 1 / `--slowdown` by that bound, of which `_broken` do
not; `_could` is the part that really does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench import public_rates
from bench.support import report
from federation.affinity.interference import Interference, Pairing, study

Pairs = Sequence[tuple[Pairing, Pairing]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=float, default=0.3)
    parser.add_argument("--slowdown", type=float, default=1.5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    data = public_rates.folder()
    if data is None:
        reason = "HANSE_DATA names no folder: there is nothing to measure on."
        report("interference", {"skipped": reason}, as_json=asked.json)
        return
    figures: dict[str, Any] = {"splits": asked.splits, "hidden": asked.hidden}
    with threadpool_limits(limits=1):
        for gpu, pairs in public_rates.gavel_pairs(data).items():
            told = [
                errors(*hide(pairs, asked.hidden, asked.seed + split), asked.slowdown)
                for split in range(asked.splits)
            ]
            figures[f"{gpu}_pairs"] = len(pairs)
            for key in told[0]:
                figures[f"{gpu}_{key}"] = float(np.mean([one[key] for one in told]))
    report("interference", figures, as_json=asked.json)


def hide(pairs: Pairs, part: float, seed: int) -> tuple[list[Pairing], list[Pairing]]:
    """Some pairs hidden with both their rates: (shown, hidden)."""
    order = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    cut = round(part * len(pairs))
    return _sides(pairs, order[cut:]), _sides(pairs, order[:cut])


def _sides(pairs: Pairs, places: Sequence[int]) -> list[Pairing]:
    """Both rates of each pair; of two jobs of one class the one rate there is."""
    return [
        side
        for place in places
        for side in (
            pairs[place][:1] if pairs[place][0].own == pairs[place][0].other else pairs[place]
        )
    ]


def errors(
    shown: Sequence[Pairing], hidden: Sequence[Pairing], slowdown: float
) -> dict[str, float]:
    """Mean absolute errors of the three predictors, and what the lower bound admits."""
    true = np.array([pairing.rate for pairing in hidden])
    asked = [(pairing.own, pairing.other) for pairing in hidden]
    medians, lows = study(shown).rates(asked)
    plain: Interference = study(shown, kin=False)
    admitted = lows >= 1 / slowdown
    broken = (true[admitted] < 1 / slowdown).mean() if admitted.any() else 0.0
    return {
        "error": float(np.abs(medians - true).mean()),
        "additive": float(np.abs(plain.rates(asked)[0] - true).mean()),
        "constant": float(np.abs(np.mean([pairing.rate for pairing in shown]) - true).mean()),
        "above_low": float((true >= lows).mean()),
        "admitted": float(admitted.mean()),
        "could": float((true >= 1 / slowdown).mean()),
        "broken": float(broken),
    }


if __name__ == "__main__":
    main()
