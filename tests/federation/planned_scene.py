"""Sites with GPUs that the planner knows, and models that fit some of them."""

from __future__ import annotations

import uuid
from typing import Any

from federation.models import Offer, Site
from federation.services import offers
from tests.support.world import NOW, a_class

#: 1.3 billion parameters: 24 GB of states, so one GPU of 80 GB holds it and one of 16 GB does not
SMALL: dict[str, Any] = {
    "params": 1.3e9,
    "layers": 24,
    "hidden": 2048,
    "heads": 16,
    "seq": 2048,
    "vocab": 50304,
    "global_batch": 64,
}
#: 30 billion: eight GPUs of 80 GB at least
LARGE: dict[str, Any] = {
    "params": 30e9,
    "layers": 48,
    "hidden": 7168,
    "heads": 56,
    "seq": 2048,
    "vocab": 50304,
    "global_batch": 256,
}
WIDE = {
    "memory_gb": 80.0,
    "peak_tflops": 312.0,
    "intra_gbit_s": 2400.0,
    "inter_gbit_s": 200.0,
    "gpus_per_node": 8,
}


def put_on_offer(site: Site, *pools: offers.PoolLine, speeds: dict[str, float]) -> Offer:
    """The site's next offer; `speeds`: pool -> samples/s of the class cnn on one GPU."""
    a_class("cnn")
    draft = offers.OfferDraft(
        digest=uuid.uuid4().hex,
        pools=list(pools),
        affinities=[
            offers.AffinityLine(pool, "cnn", 1, speed, "declared") for pool, speed in speeds.items()
        ],
        valid_from=None,
        valid_until=None,
        note="",
    )
    return offers.offer_submit(site=site, draft=draft, now=NOW)


def a_line(name: str = "gpu", gpu: str = "A100", gpus: int = 16, **more: Any) -> offers.PoolLine:
    return offers.PoolLine(name, gpu, gpus, more.pop("reserve", "1"), more.pop("device", {}))
