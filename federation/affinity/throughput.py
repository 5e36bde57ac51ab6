"""The throughput model of a job class on a pool: fit it to samples, ask it, fit it again.

Four layers, each for what the one before leaves: the formula of `step_time`, the bend of
`compute_curve`, the process of `residuals`, and a band that is scaled by what the model missed when
parts of the samples were left out (`band`). Everything is a pure function of the samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from federation.affinity import band, residuals, tally
from federation.affinity.compute_curve import STRAIGHT, ComputeCurve, bend
from federation.affinity.extrapolation import (
    between_ring_and_tree,
    doublings_beyond,
    range_of,
    spans_of,
    why_outside,
    why_unlike,
    widened,
)
from federation.affinity.fitting import FIRST_STEPS, STEPS, Target, descend, search, target
from federation.affinity.network_prior import PLAIN, Fitted, NetworkPrior
from federation.affinity.samples import BadSamples, Configuration, Sample, configuration_problem
from federation.affinity.step_time import Array, Runs, times

LEAST_CONFIGURATIONS = 2
BLOCK = 4096  #: configurations that are foretold at once
LARGEST = 100.0  #: of a parameter that was kept; logarithms
PROBE = "probe at size needed"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a step will take. `lower_s` and `upper_s` hold nine of ten measured steps."""

    step_s: float
    samples_per_s: float
    lower_s: float
    upper_s: float
    extrapolated: bool
    why: str  #: what it rests on, or where it leaves the samples
    unlike: bool = False  #: inside, but by nodes and replicas that nothing measured resembles


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no one equality
class ThroughputModel:
    """A fitted model. `theta` as in `step_time`; `scale` multiplies its deviations, `noise` is
    the variance of log seconds of one measurement. The process is worked out from the rest."""

    tally: tally.Tally
    prior: NetworkPrior
    theta: tuple[float, ...]
    curve: ComputeCurve
    scale: float
    noise: float
    node_counts: tuple[int, ...]
    process: residuals.Process

    def forecast(self, asked: Configuration) -> Forecast:
        """Seconds of a step there; raises `BadSamples` for what cannot be run."""
        return self.forecasts([asked])[0]

    def forecasts(self, asked: Sequence[Configuration]) -> list[Forecast]:
        """The same for many, in their order."""
        problems = [
            f"configuration {number}: {why}"
            for number, one in enumerate(asked, 1)
            if (why := configuration_problem(one))
        ]
        if problems:
            raise BadSamples(tuple(problems))
        found: list[Forecast] = []
        with threadpool_limits(limits=1):
            for start in range(0, len(asked), BLOCK):
                found += _foretell(self, asked[start : start + BLOCK])
        return found

    def fitted(self) -> Fitted:
        """Parameters with their deviations, for the prior of the pool's other classes."""
        deviation = np.sqrt(np.diag(self.process.parameters))
        return Fitted(np.array(self.theta), deviation, self.node_counts)


def fit(samples: Iterable[Sample], prior: NetworkPrior | None = None) -> ThroughputModel:
    """The model of one (class, pool).

    Raises `BadSamples` when samples are unusable or show fewer than two configurations.
    """
    return fit_tally(tally.gather(samples), prior)


def fit_tally(counted: tally.Tally, prior: NetworkPrior | None = None) -> ThroughputModel:
    """The same from sufficient statistics."""
    with threadpool_limits(limits=1):  # last digits of sums must not depend on threads
        return _fit(counted, prior or PLAIN)


def _fit(counted: tally.Tally, belief: NetworkPrior) -> ThroughputModel:
    cells = tally.cells(counted)
    _enough(cells, counted.samples)
    straight = target(cells, np.ones(len(cells.count)), belief)
    first = search(straight)
    return _finished(counted, cells, belief, first.theta, straight)


def refit(previous: ThroughputModel, samples: Iterable[Sample]) -> ThroughputModel:
    """The model with more samples: their sums are added, and the descent starts where it ended."""
    return refit_tally(previous, tally.gather(samples))


def refit_tally(previous: ThroughputModel, added: tally.Tally) -> ThroughputModel:
    """The same from sufficient statistics of the new samples."""
    counted = tally.merge(previous.tally, added)
    cells = tally.cells(counted)
    with threadpool_limits(limits=1):
        aim = target(cells, np.ones(len(cells.count)), previous.prior)
        if aim.node_counts != previous.node_counts:
            return _fit(counted, previous.prior)
        warm = np.array(previous.theta)
        return _finished(counted, cells, previous.prior, warm, aim, previous)


def rebuilt(
    counted: tally.Tally,
    prior: NetworkPrior,
    theta: Sequence[float],
    curve: ComputeCurve,
    scale: float,
    noise: float,
) -> ThroughputModel:
    """A model from what was kept of it; the process is worked out again."""
    cells = tally.cells(counted)
    aim = target(cells, curve.factor(cells.batch), prior)
    if len(theta) != aim.rows.shape[1]:
        raise ValueError("the parameters do not belong to these cells")
    if max(map(abs, theta)) > LARGEST:
        raise ValueError("a parameter is out of range")
    with threadpool_limits(limits=1):
        found = np.array(theta, dtype=float)
        process, _, _ = _process(cells, aim, found, noise, search_noise=False)
    return ThroughputModel(
        counted, prior, tuple(theta), curve, scale, noise, aim.node_counts, process
    )


def _enough(cells: tally.Cells, samples: int) -> None:
    if len(cells.count) < LEAST_CONFIGURATIONS:
        seen = (
            f"{cells.nodes[0]:g} nodes, {cells.replicas[0]:g} replicas, "
            f"local batch {cells.batch[0]:g}"
        )
        many = "1 sample" if samples == 1 else f"{samples} samples"
        raise BadSamples(
            (
                f"{many} of one configuration only ({seen}): a fit needs at least two that differ "
                "in nodes, replicas or local batch",
            )
        )


def _finished(
    counted: tally.Tally,
    cells: tally.Cells,
    belief: NetworkPrior,
    theta: Array,
    aim: Target,
    previous: ThroughputModel | None = None,
) -> ThroughputModel:
    """Bend the compute time, descend once more, then the process and the scale of its band."""
    curve = bend(cells, aim.times(theta).log_grad)
    bent = target(cells, curve.factor(cells.batch), belief) if curve != STRAIGHT else aim
    theta = descend(bent, theta, FIRST_STEPS if previous else STEPS).theta
    before = previous.noise if previous else None
    process, difference, noise = _process(cells, bent, theta, before, search_noise=True)
    inverse = residuals.inverse_covariance(process)
    scales = []
    for groups in band.ways_to_leave_out(cells):
        error, variance = residuals.left_out(inverse, difference, groups)
        scales.append(band.scale(cells, error, variance, groups, noise))
    return ThroughputModel(
        counted,
        belief,
        tuple(float(value) for value in theta),
        curve,
        max(scales),
        noise,
        bent.node_counts,
        process,
    )


def _process(
    cells: tally.Cells, aim: Target, theta: Array, noise: float | None, *, search_noise: bool
) -> tuple[residuals.Process, Array, float]:
    """The process of what the formula leaves at the cells, and the noise of one measurement.

    Repeated measurements say what is noise; where they are few, what the process is likeliest with.
    `noise` is where that search starts; it ends there too unless `search_noise`.
    """
    at = aim.times(theta)
    difference = cells.log_step - at.log_step
    places = _places(aim.runs)
    kernel = residuals.covariance(places, places)
    chosen = noise or band.noise_variance(cells)
    if search_noise and band.repeats_suffice(cells):
        chosen = band.noise_variance(cells)
    elif search_noise:
        # what differs in one cell alone looks like noise there, and here it is counted as noise
        smooth = residuals.covariance(places, places, single=0.0)

        def score(tried: float) -> float:
            likely = residuals.likelihood(smooth, difference, tried / cells.count)
            return likely + band.noise_score(cells, tried)

        chosen = band.likeliest_noise(score, chosen)
    of_mean = np.maximum(chosen, cells.spread) / cells.count  # a cell of outliers says less
    process = residuals.condition(places, kernel, difference, of_mean, at.step_gradient, aim.rows)
    return process, difference, chosen


def _places(runs: Runs) -> residuals.Places:
    return residuals.Places(runs.nodes, np.log(runs.replicas), np.log(runs.batch))


def _foretell(model: ThroughputModel, asked: Sequence[Configuration]) -> list[Forecast]:
    rows = np.array(
        [(one.nodes, one.replicas, one.local_batch, one.accumulation) for one in asked], dtype=float
    ).reshape(len(asked), 4)
    runs = Runs(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], model.curve.factor(rows[:, 2]))
    power = model.prior.power
    at = times(np.array(model.theta), model.node_counts, runs, power)
    off, variance = residuals.given(model.process, _places(runs), at.step_gradient)
    sampled = range_of(model.tally)
    beyond = np.array([doublings_beyond(sampled, one) for one in asked])
    inside = np.sqrt(model.scale**2 * variance + model.noise)
    ends = between_ring_and_tree(runs, at, sampled.highest[1], power)
    width = band.DEVIATIONS * widened(inside, beyond, ends)
    step = np.exp(at.log_step + off)
    why, spans = _why(model), spans_of(model.tally)
    unlike = [why_unlike(spans, one) for one in asked]
    return [
        Forecast(
            step_s=float(step[place]),
            samples_per_s=one.samples_per_step / float(step[place]),
            lower_s=float(step[place] * np.exp(-width[place])),
            upper_s=float(step[place] * np.exp(width[place])),
            extrapolated=bool(beyond[place].max() > 0),
            why=why_outside(sampled, one) or unlike[place] or why,
            unlike=bool(unlike[place]),
        )
        for place, one in enumerate(asked)
    ]


def _why(model: ThroughputModel) -> str:
    cells = len(model.tally.keys)
    return f"within what {model.tally.samples} samples of {cells} configurations showed"


def priced(forecast: Forecast) -> bool:
    """Whether the market may price on this forecast: only inside what was measured, and like it."""
    return not (forecast.extrapolated or forecast.unlike)


def why_not_priced(forecast: Forecast) -> str:
    """Empty when it may; else that a probe at that size is needed, and where the samples end."""
    return "" if priced(forecast) else f"{PROBE}: {forecast.why}"
