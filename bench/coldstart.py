"""Errors of what is said of a speed before it was measured, on public tables.

    HANSE_DATA=... python -m bench.coldstart --json

Errors are median |predicted / true - 1| of what was hidden; `_covers` is the part of it that the
90 % band holds. `gavel_` hides half of the (class, GPU) cells and leaves one per class:
`_one_factor` is class speed times GPU speed, `_cost` what the GPU of least predicted cost per step
costs over the best, `_one_gpu_cost` what the best single GPU for all costs, `_family_cost` what the
chosen costs when a family was measured on the P100 alone.
`mlperf_` leaves one generation of accelerators out; `lambda_`, `mpt_` and `elasticflow_` one model:
`_sheet` knows its operations and the data sheets, `_facts` the other models' results too,
`_measured_once` one measurement of it besides. `operators_` is the regression on operators against
a generator with known coefficients.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench import public_rates
from bench.support import report
from bench.synthetic_nets import COUNTS, DEVICES, networks, prices, profile, truth
from federation.affinity.coldstart import devices
from federation.affinity.coldstart.blend import Prior
from federation.affinity.coldstart.catalogue import Result, roofline, study
from federation.affinity.coldstart.completion import Cell, complete
from federation.affinity.coldstart.kinship import Kind
from federation.affinity.coldstart.operators import fit_operators
from federation.affinity.coldstart.recommending import Option, Run, cheapest_by, options

PROFILED = 8
UNSEEN = 4
QUERIES = 200
SAMPLES = 1_281_167.0  # of one epoch of ImageNet
BATCH = 32.0


@dataclass(slots=True)
class Gaps:
    """Log errors of what was hidden, and which of them the band held."""

    logs: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    untold: int = 0

    def take(self, prior: Prior | None, rate: float) -> None:
        """Compare one prediction with the true rate."""
        if prior is None:
            self.untold += 1
            return
        low, high = prior.interval()
        self.logs.append(prior.log_mean - math.log(rate))
        self.held.append(low <= rate <= high)

    @property
    def median(self) -> float:
        """Median of |predicted / true - 1|."""
        return float(np.median(np.abs(np.expm1(self.logs))))

    @property
    def covers(self) -> float:
        """The part that the 90 % band held."""
        return float(np.mean(self.held))


def main() -> None:
    """Print the table, of what is at hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with threadpool_limits(limits=1):
        figures: dict[str, Any] = {"splits": asked.splits, "seed": asked.seed}
        if public_rates.folder() is None:
            print("HANSE_DATA names no folder: the public tables are left out.")
        else:
            figures |= completion(asked.splits, asked.seed) | generations() | left_out_models()
        figures |= operators(asked.seed)
    report("coldstart", figures, as_json=asked.json)


def hide(cells: Sequence[Cell], seed: int) -> tuple[list[Cell], list[Cell]]:
    """Half of the cells hidden, one per class left: (shown, hidden)."""
    left: dict[str, int] = {}
    for cell in cells:
        left[cell.name] = left.get(cell.name, 0) + 1
    hidden: set[int] = set()
    for place in np.random.default_rng(seed).permutation(len(cells)).tolist():
        name = cells[place].name
        if len(hidden) < len(cells) // 2 and left[name] > 1:
            left[name] -= 1
            hidden.add(place)
    shown = [cell for place, cell in enumerate(cells) if place not in hidden]
    return shown, [cells[place] for place in sorted(hidden)]


def one_factor(cells: Sequence[Cell]) -> Callable[[str, str], float]:
    """Class speed times GPU speed by least squares of the logarithms: the best such model."""
    names = sorted({cell.name for cell in cells})
    pools = sorted({cell.pool for cell in cells})
    rows = np.zeros((len(cells), len(names) + len(pools)))
    for place, cell in enumerate(cells):
        rows[place, names.index(cell.name)] = 1
        rows[place, len(names) + pools.index(cell.pool)] = 1
    found = np.linalg.lstsq(rows, np.log([cell.rate for cell in cells]), rcond=None)[0]
    return lambda name, pool: float(
        np.exp(found[names.index(name)] + found[len(names) + pools.index(pool)])
    )


def completion(splits: int, seed: int) -> dict[str, Any]:
    """Completion of Gavel's table against the one-factor model; means of the splits."""
    data = public_rates.folder()
    assert data is not None
    cells, kinds = public_rates.gavel_cells(data)
    told = [completed(cells, kinds, seed + split) for split in range(splits)]
    figures = {key: float(np.mean([one[key] for one in told])) for key in told[0]}
    return {
        "gavel_cells": len(cells),
        **figures,
        "gavel_ratio": figures["gavel_error"] / figures["gavel_one_factor"],
        "gavel_one_gpu_cost": min(one_gpu_cost(cells, pool) for pool in public_rates.PRICES),
        "gavel_family_cost": unseen_family_cost(cells, kinds),
    }


def completed(cells: Sequence[Cell], kinds: dict[str, Kind], seed: int) -> dict[str, float]:
    """Errors of completion and of one factor on one split, and the costs of their choices."""
    shown, hidden = hide(cells, seed)
    priors = complete(shown, kinds).priors([(cell.name, cell.pool) for cell in hidden])
    plain = one_factor(shown)
    gaps, missed = Gaps(), []
    ours = {(cell.name, cell.pool): cell.rate for cell in shown}
    theirs = dict(ours)
    for cell, prior in zip(hidden, priors, strict=True):
        gaps.take(prior, cell.rate)
        assert prior is not None
        ours[cell.name, cell.pool] = prior.rate
        theirs[cell.name, cell.pool] = plain(cell.name, cell.pool)
        missed.append(abs(theirs[cell.name, cell.pool] / cell.rate - 1))
    return {
        "gavel_error": gaps.median,
        "gavel_one_factor": float(np.median(missed)),
        "gavel_covers": gaps.covers,
        "gavel_cost": chosen_cost(cells, ours),
        "gavel_one_factor_cost": chosen_cost(cells, theirs),
    }


def one_gpu_cost(cells: Sequence[Cell], pool: str) -> float:
    """Cost of choosing one GPU for every class that fits it."""
    return chosen_cost(
        cells, {(cell.name, cell.pool): float(cell.pool == pool) + 1e-9 for cell in cells}
    )


def unseen_family_cost(cells: Sequence[Cell], kinds: dict[str, Kind]) -> float:
    """Cost of the choices for each family when its classes were measured on the P100 alone."""
    ratios = []
    for family in sorted({kinds[cell.name].family for cell in cells}):
        own = [cell for cell in cells if kinds[cell.name].family == family]
        others = [cell for cell in cells if kinds[cell.name].family != family]
        known = complete([*others, *(cell for cell in own if cell.pool == "p100")], kinds)
        priors = known.priors([(cell.name, cell.pool) for cell in own])
        told = {
            (cell.name, cell.pool): prior.rate
            for cell, prior in zip(own, priors, strict=True)
            if prior is not None
        }
        ratios += [chosen_cost(own, told)] * len({cell.name for cell in own})
    return float(np.mean(ratios))


def chosen_cost(cells: Sequence[Cell], told: dict[tuple[str, str], float]) -> float:
    """Mean over the classes: cost per step of the GPU that looks cheapest, over the cheapest."""
    by_class: dict[str, list[Cell]] = {}
    for cell in cells:
        by_class.setdefault(cell.name, []).append(cell)
    ratios = []
    for own in by_class.values():
        true = [public_rates.PRICES[cell.pool] / cell.rate for cell in own]
        looks = [public_rates.PRICES[cell.pool] / told[cell.name, cell.pool] for cell in own]
        ratios.append(true[looks.index(min(looks))] / min(true))
    return float(np.mean(ratios))


def generations() -> dict[str, Any]:
    """MLPerf: every generation of accelerators predicted from the others."""
    data = public_rates.folder()
    assert data is not None
    results = public_rates.mlperf_results(data)
    every = Gaps()
    figures: dict[str, Any] = {"mlperf_results": len(results)}
    for left in sorted({_generation(result) for result in results}):
        known = study([result for result in results if _generation(result) != left])
        own = Gaps()
        for result in results:
            if _generation(result) == left:
                own.take(known.prior(result.query), result.rate)
                every.take(known.prior(result.query), result.rate)
        if own.logs:
            figures[f"mlperf_{left.replace(' ', '_')}"] = own.median
    return figures | {
        "mlperf_error": every.median,
        "mlperf_covers": every.covers,
        "mlperf_untold": every.untold,
    }


def _generation(result: Result) -> str:
    return devices.DEVICES[result.query.device].generation


def left_out_models() -> dict[str, Any]:
    """Each model of three tables predicted from the other models."""
    data = public_rates.folder()
    assert data is not None
    figures: dict[str, Any] = {}
    for name, read in (
        ("lambda", public_rates.lambda_results),
        ("mpt", public_rates.mpt_results),
        ("elasticflow", public_rates.elasticflow_results),
    ):
        results = read(data)
        sheet, facts, probed = Gaps(), Gaps(), Gaps()
        for work in sorted({result.query.work for result in results}):
            others = [result for result in results if result.query.work != work]
            first, *rest = sorted((r for r in results if r.query.work == work), key=_first)
            before, after = study(others), study([*others, first])
            for result in rest:
                sheet.take(roofline(result.query), result.rate)
                facts.take(before.prior(result.query), result.rate)
                probed.take(after.prior(result.query), result.rate)
        for kind, gaps in (("sheet", sheet), ("facts", facts), ("measured_once", probed)):
            if gaps.logs:
                figures[f"{name}_{kind}"] = gaps.median
                figures[f"{name}_{kind}_covers"] = gaps.covers
    return figures


def _first(result: Result) -> tuple[int, float, str, str]:
    """What one would measure first: the fewest GPUs, the smallest batch."""
    query = result.query
    return query.gpus, query.batch or 0.0, query.precision, query.device


def operators(seed: int) -> dict[str, Any]:
    """Operator regression: error on unseen networks, and right choices of 200 queries."""
    true, nets = truth(seed), networks(seed, PROFILED + UNSEEN)
    model = fit_operators(*profile(true, nets[:PROFILED], seed))
    errors = [
        abs(model.seconds(net, device, count) / true.step(net, device, count) - 1)
        for net in nets[PROFILED:]
        for device in DEVICES
        for count in COUNTS
    ]
    drawn, right = np.random.default_rng(seed), 0
    for query in range(QUERIES):
        net = nets[PROFILED + query % UNSEEN]
        run = Run(net, SAMPLES, BATCH)
        actual = [
            Option(d, k, seconds, seconds / 3600 * prices()[d, k])
            for d in sorted(DEVICES)
            for k in COUNTS
            for seconds in [math.ceil(SAMPLES / (BATCH * k)) * true.step(net, d, k)]
        ]
        times = [option.seconds for option in actual]
        deadline = math.exp(drawn.uniform(math.log(min(times) * 1.1), math.log(max(times))))
        told, best = (
            cheapest_by(offered, deadline) for offered in (options(model, run, prices()), actual)
        )
        right += (told.device, told.gpus) == (best.device, best.gpus)
    return {
        "operators_error": float(np.mean(errors)),
        "operators_right": right / QUERIES,
        "operators_wrong": 1.0 - right / QUERIES,
        "operators_spread": model.spread,
    }


if __name__ == "__main__":
    main()
