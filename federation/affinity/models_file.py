"""Fitted models as a document, `hanse.throughput/1`, and back.

What is kept is what the model is worked out from: the cells, the prior, the parameters, the bend of
the compute time and the scale of the band. The process is computed again on reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from federation.affinity import tally
from federation.affinity.band import SCALES
from federation.affinity.compute_curve import ComputeCurve
from federation.affinity.network_prior import NetworkPrior, Normal
from federation.affinity.samples import BadSamples
from federation.affinity.throughput import LARGEST, ThroughputModel, rebuilt

FORMAT = "hanse.throughput/1"
MOST_BEND = 1e4  #: of the weights together; a bend is at most a few hundredths of it, in logarithms
MOST_NOISE = 1e3  #: variance of log seconds
LEAST_DEVIATION = 1e-3
Key = tuple[str, str]


def document(models: Mapping[Key, ThroughputModel]) -> dict[str, Any]:
    """Models by (class, pool) as JSON values, sorted."""
    rows = [
        {"class": name, "pool": pool, **model_document(model)}
        for (name, pool), model in sorted(models.items())
    ]
    return {"format": FORMAT, "models": rows}


def read(values: object) -> dict[Key, ThroughputModel]:
    """The inverse; raises `BadSamples` with what is wrong."""
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise BadSamples((f"format: this is not a document of {FORMAT}",))
    rows = values.get("models")
    if not isinstance(rows, list) or not rows:
        raise BadSamples(("models: a list of at least one model is missing",))
    found: dict[Key, ThroughputModel] = {}
    for place, row in enumerate(rows):
        try:
            key = _text(row["class"]), _text(row["pool"])
            model = read_model(row)
        except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise BadSamples((f"models[{place}]: {why}",)) from None
        if key in found:
            raise BadSamples((f"models[{place}]: {key[0]} stands twice",))
        found[key] = model
    return found


def model_document(model: ThroughputModel) -> dict[str, Any]:
    """One model as JSON values."""
    return {
        "cells": tally.document(model.tally),
        "prior": _prior_document(model.prior),
        "theta": list(model.theta),
        "batches": list(model.curve.batches),
        "weights": list(model.curve.weights),
        "scale": model.scale,
        "noise": model.noise,
    }


def read_model(values: Mapping[str, Any]) -> ThroughputModel:
    """The inverse of `model_document`; KeyError, TypeError or ValueError when it is not one."""
    batches, weights = _numbers(values["batches"]), _numbers(values["weights"])
    if len(batches) != len(weights):
        raise ValueError("batches and weights differ in length")
    if list(batches) != sorted(set(batches)) or max(map(abs, batches), default=0.0) > LARGEST:
        raise ValueError(f"batches must rise and lie within {LARGEST:g}")
    if sum(map(abs, weights)) > MOST_BEND:
        raise ValueError(f"weights must not add up to more than {MOST_BEND:g}")
    scale, noise = _number(values["scale"]), _number(values["noise"])
    if not (0 < scale <= SCALES[1] and 0 < noise <= MOST_NOISE):
        raise ValueError(
            f"scale and noise must be above 0, at most {SCALES[1]:g} and {MOST_NOISE:g}"
        )
    return rebuilt(
        tally.read(values["cells"]),
        _prior(values["prior"]),
        _numbers(values["theta"]),
        ComputeCurve(batches, weights),
        scale,
        noise,
    )


def _prior_document(prior: NetworkPrior) -> dict[str, Any]:
    return {
        "local_growth": list(prior.local_growth),
        "node_growth": list(prior.node_growth),
        "overlap": list(prior.overlap),
        "power": prior.power,
        "factors": [[nodes, list(belief)] for nodes, belief in prior.factors],
        "local_s": list(prior.local_s) if prior.local_s else None,
        "node_s": list(prior.node_s) if prior.node_s else None,
    }


def _prior(values: Mapping[str, Any]) -> NetworkPrior:
    return NetworkPrior(
        local_growth=_normal(values["local_growth"]),
        node_growth=_normal(values["node_growth"]),
        overlap=_normal(values["overlap"]),
        factors=tuple((int(nodes), _normal(belief)) for nodes, belief in values["factors"]),
        power=_power(values["power"]),
        local_s=None if values["local_s"] is None else _normal(values["local_s"]),
        node_s=None if values["node_s"] is None else _normal(values["node_s"]),
    )


def _normal(values: Any) -> Normal:
    mean, deviation = _numbers(values)
    if not (abs(mean) <= LARGEST and LEAST_DEVIATION <= deviation <= LARGEST):
        raise ValueError(f"a belief must lie within {LARGEST:g}, its deviation above 0")
    return mean, deviation


def _power(value: Any) -> float:
    power = _number(value)
    if not 0 <= power <= 1:
        raise ValueError("power must lie between 0, a tree, and 1, a ring")
    return power


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(_number(value) for value in values)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a name")
    return value
