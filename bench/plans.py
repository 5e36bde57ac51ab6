"""One click: the choice of GPUs and pools for a described model, and the plan of an award.

    python -m bench.plans --pools 100 --json

A PostgreSQL of its own is started (or DATABASE_URL names one that may be filled). Pools are of five
kinds of GPU and all of different sizes, each with a believed speed, so that none is weighed for
another; then all alike.
"""

from __future__ import annotations

import argparse
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bench.support import Spread, database, report, timed

if TYPE_CHECKING:
    from federation.models import OfferPool

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KINDS = ("V100", "A100-80", "H100", "L40S", "B200")
POOLS_OF_A_SITE = 10
VOCAB, SEQ, SAMPLES = 51200, 2048, 1_000_000
#: Layers, hidden, heads and batch of models of the GPT-3 paper.
MODELS = {"1.3B": (24, 2048, 16, 512), "13B": (40, 5120, 40, 1024), "175B": (96, 12288, 96, 1536)}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    asked = parser.parse_args()
    with database():
        figures = measured(asked.pools, asked.repeats)
    report("plans", figures, as_json=asked.json)


def measured(pools: int, repeats: int) -> dict[str, Any]:
    """Seconds of a choice over all pools, for one pool of it, and of an award's plan."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    _furnish(pools, alike=False)
    runs = [timed(partial(_choose, name), repeats) for name in MODELS]
    seconds = [spread.median for spread, _ in runs]
    _furnish(pools, alike=True)
    alike = [timed(partial(_choose, name), repeats)[0].median for name in MODELS]
    return {
        "pools": pools,
        "models": len(MODELS),
        "choice_seconds": median(seconds),
        "choice_seconds_most": max(seconds),
        "pool_seconds": median(seconds) / pools,
        "pool_seconds_most": max(seconds) / pools,
        "alike_seconds": median(alike),
        "sizes_chosen": median(len(found.gpus) for _, found in runs),
        "pools_chosen": median(len(found.pools) for _, found in runs),
        "award_seconds": _award(repeats).median,
    }


def _model(name: str) -> dict[str, Any]:
    from federation.affinity.planner.model import transformer_parameters

    layers, hidden, heads, batch = MODELS[name]
    return {
        "params": transformer_parameters(layers, hidden, VOCAB, SEQ),
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "seq": SEQ,
        "vocab": VOCAB,
        "global_batch": batch,
    }


def _choose(name: str) -> Any:
    from federation.models import JobClass, Venue
    from federation.selectors.plans import plan_choice
    from federation.selectors.plans_pools import stock_read

    empty: tuple[str, ...] = ()
    wish = SimpleNamespace(
        gpus=(), gpu_kinds=empty, sites_allow=empty, sites_deny=empty, pools=empty
    )
    return plan_choice(
        model=_model(name),
        samples=SAMPLES,
        deadline_s=None,
        budget=None,
        wish=wish,
        job_class=JobClass.objects.get(name="cnn"),
        stock=stock_read(Venue.objects.get(), NOW + timedelta(seconds=1)),
    )


def _furnish(pools: int, *, alike: bool) -> None:
    """Sites whose offers make up so many pools; the offers of before are superseded."""
    from federation.models import Site
    from federation.services.offers import AffinityLine, OfferDraft, PoolLine, offer_submit
    from tests.support.world import a_class, a_site

    a_class("cnn")
    many = -(-pools // POOLS_OF_A_SITE)
    sites = list(Site.objects.order_by("name")) or [
        a_site(f"site-{at:03}", speeds={}, now=NOW) for at in range(many)
    ]
    for first, site in enumerate(sites):
        start = first * POOLS_OF_A_SITE
        here = range(start, min(start + POOLS_OF_A_SITE, pools))
        lines = [
            PoolLine(
                f"p{at:04}",
                KINDS[1 if alike else at % len(KINDS)],
                512 if alike else 128 + 8 * at,
                f"{0.5 + at / 100:.2f}",
            )
            for at in here
        ]
        speeds = [
            AffinityLine(line.name, "cnn", 8, 10.0 if alike else 10.0 + at, "declared")
            for at, line in zip(here, lines, strict=True)
        ]
        draft = OfferDraft(uuid.uuid4().hex, lines, speeds, None, None, "")
        offer_submit(site=site, draft=draft, now=NOW)


def _award(repeats: int) -> Spread:
    """Of the 13B model on 64 GPUs, computed anew each time: nothing of it is kept."""
    from federation.models import OfferPool
    from federation.selectors.plans_award import plan_at

    rows = OfferPool.objects.filter(offer__state="active", pool__gpu="A100-80", gpus__gte=64)
    line: OfferPool = rows.select_related("pool__site")[0]
    speeds = count(1)  # a speed of its own for each: no plan is asked for twice

    def one() -> None:
        for _ in range(10):
            plan_at(model=_model("13B"), pool=line, gpus=64, samples_per_s=float(next(speeds)))

    spread, _ = timed(one, repeats)
    return Spread(tuple(seconds / 10 for seconds in spread.seconds))


if __name__ == "__main__":
    main()
