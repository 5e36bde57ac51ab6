"""All classes of a table: fitted one by one, and where links were not measured, from their pool."""

from __future__ import annotations

from collections.abc import Mapping

from federation.affinity.network_prior import NetworkPrior, pool_prior
from federation.affinity.samples import BadSamples
from federation.affinity.tally import Tally
from federation.affinity.throughput import ThroughputModel, fit_tally

Key = tuple[str, str]  #: class and pool
LEAST_CLASSES = 2  #: measured over several nodes, before they speak for a pool


def fit_all(tallies: Mapping[Key, Tally]) -> dict[Key, ThroughputModel]:
    """A model of each (class, pool).

    A class that was never measured over several nodes takes what the others of its pool say of the
    links. Raises `BadSamples` with a line for each class that cannot be fitted.
    """
    models: dict[Key, ThroughputModel] = {}
    problems = []
    for key, counted in sorted(tallies.items()):
        try:
            models[key] = fit_tally(counted)
        except BadSamples as refused:
            problems += [f"{described(key)}: {why}" for why in refused.problems]
    if problems:
        raise BadSamples(tuple(problems))
    priors = {pool: _prior(models, pool) for pool in sorted({pool for _, pool in models})}
    for key, model in models.items():
        prior = priors[key[1]]
        if prior is not None and not model.node_counts:
            models[key] = fit_tally(model.tally, prior)
    return models


def described(key: Key) -> str:
    """A class and its pool in words."""
    return f"class {key[0]} on pool {key[1]}" if key[1] else f"class {key[0]}"


def _prior(models: Mapping[Key, ThroughputModel], pool: str) -> NetworkPrior | None:
    known = [model.fitted() for (_, place), model in models.items() if place == pool]
    several = [one for one in known if one.node_counts]
    return pool_prior(several) if len(several) >= LEAST_CLASSES else None
