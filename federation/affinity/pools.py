"""All classes of a table: fitted one by one, and where links were not measured, from their pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from federation.affinity.network_prior import NetworkPrior, pool_prior
from federation.affinity.samples import BadSamples
from federation.affinity.tally import Tally
from federation.affinity.throughput import ThroughputModel, fit_tally

Key = tuple[str, str]  #: class and pool
LEAST_CLASSES = 2  #: measured over several nodes, before they speak for a pool


@dataclass(frozen=True, slots=True)
class Fits:
    """Models of those that could be fitted, and a sentence for each problem of the others."""

    models: dict[Key, ThroughputModel]
    refused: tuple[str, ...]


def fit_all(tallies: Mapping[Key, Tally]) -> Fits:
    """A model of each (class, pool) that shows enough; one that does not is no harm to the others.

    A class that was never measured over several nodes takes what the others of its pool say of the
    links.
    """
    models: dict[Key, ThroughputModel] = {}
    problems: list[str] = []
    for key, counted in sorted(tallies.items()):
        try:
            models[key] = fit_tally(counted)
        except BadSamples as refused:
            problems += [f"{described(key)}: {why}" for why in refused.problems]
    priors = {pool: _prior(models, pool) for pool in sorted({pool for _, pool in models})}
    for key, model in models.items():
        prior = priors[key[1]]
        if prior is not None and not model.node_counts:
            models[key] = fit_tally(model.tally, prior)
    return Fits(models, tuple(problems))


def described(key: Key) -> str:
    """A class and its pool in words."""
    return f"class {key[0]} on pool {key[1]}" if key[1] else f"class {key[0]}"


def _prior(models: Mapping[Key, ThroughputModel], pool: str) -> NetworkPrior | None:
    known = [model.fitted() for (_, place), model in models.items() if place == pool]
    several = [one for one in known if one.node_counts]
    return pool_prior(several) if len(several) >= LEAST_CLASSES else None
