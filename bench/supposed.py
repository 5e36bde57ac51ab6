"""Part of `bench.reports`: the believed matrix with priors stored, as rounds and people read it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.support import timed

if TYPE_CHECKING:
    from bench.reports import World


def guessed(world: World, believed: Callable[[], dict[str, Any]], repeats: int) -> dict[str, Any]:
    """The same with a prior for each cell, and with every other class claimed nowhere."""
    from django.db import connection

    from federation.models import OfferAffinity, PriorAffinity

    _suppose(world)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    stored = believed()
    OfferAffinity.objects.filter(job_class__in=[one.pk for one in world.classes[::2]]).delete()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    half = believed()
    return {
        "priors": PriorAffinity.objects.count(),
        "priors_matrix_seconds": stored["matrix_seconds"],
        "priors_matrix_seconds_most": stored["matrix_seconds_most"],
        "unclaimed_matrix_seconds": half["matrix_seconds"],
        "unclaimed_matrix_seconds_most": half["matrix_seconds_most"],
        **_shown(world, repeats),
    }


def _shown(world: World, repeats: int) -> dict[str, Any]:
    """Every cell with its source, as the offers show it."""
    from federation.selectors.affinity import believed_cells, current_offers
    from tests.support.world import later

    def read() -> None:
        cells = believed_cells(list(current_offers(world.venue, later(60))))
        found.append(sum(1 for _ in cells.values()))

    found: list[int] = []
    spread, _ = timed(read, repeats)
    return {
        "shown_cells": found[-1],
        "shown_seconds": round(spread.median, 4),
        "shown_seconds_least": round(spread.spread[0], 4),
        "shown_seconds_most": round(spread.spread[1], 4),
    }


def _suppose(world: World) -> None:
    """A prior for every cell of one GPU."""
    from federation.bulk import rows_insert
    from federation.models import PriorAffinity
    from federation.services.priors import PRIOR
    from tests.support.world import NOW

    draw = random.Random(2)  # noqa: S311 - the same in every run
    rows_insert(
        PriorAffinity,
        PRIOR,
        (
            (pool.pk, one.pk, 1, draw.uniform(6, 8), 0.3, "neighbours", 90, NOW)
            for pool in world.pools
            for one in world.classes
        ),
    )
