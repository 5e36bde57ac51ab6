"""Plans for models of 125 million to 175 billion parameters, and the choice of a pool.

    python -m bench.planner --gpus 64 --json

Each model is planned on each kind of GPU: `plans` on exactly so many GPUs, `choose` over every GPU
count of a pool of that size. The referee weighs the same plans one number at a time.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from statistics import median
from typing import Any

from bench.support import report, timed
from federation.affinity.planner.choosing import best_by_size
from federation.affinity.planner.model import ModelDescription, transformer_parameters
from federation.affinity.planner.planning import plans
from federation.affinity.planner.pool import Device, Pool
from tests.federation.affinity.planner_brute_force import every_plan

VOCAB, SEQ, SAMPLES = 51200, 2048, 1e6
NODE = 8
#: Layers, hidden, heads and batch of the models of the GPT-3 paper.
MODELS = {
    "125M": (12, 768, 12, 256),
    "350M": (24, 1024, 16, 256),
    "760M": (24, 1536, 16, 256),
    "1.3B": (24, 2048, 16, 512),
    "2.7B": (32, 2560, 32, 512),
    "6.7B": (32, 4096, 32, 1024),
    "13B": (40, 5120, 40, 1024),
    "175B": (96, 12288, 96, 1536),
}
#: GB, peak TFLOP/s at half precision, Gbit/s of a GPU within its node and between nodes.
DEVICES = {
    "V100": Device(16, 125, 1200, 12.5),
    "A100": Device(80, 312, 2400, 200),
    "H100": Device(80, 989, 3600, 400),
}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    report("planner", measured(asked.gpus, asked.repeats), as_json=asked.json)


def measured(gpus: int, repeats: int) -> dict[str, Any]:
    """Seconds of every (job, pool), what was weighed, and whether the referee agrees."""
    planning, choosing, refereeing, weighed, same = [], [], [], [], 0
    for (layers, hidden, heads, batch), kind in product(MODELS.values(), DEVICES):
        params = transformer_parameters(layers, hidden, VOCAB, SEQ)
        model = ModelDescription(params, layers, hidden, heads, SEQ, VOCAB, batch, SAMPLES)
        pool = Pool(kind, DEVICES[kind], gpus, NODE, 1.0)
        took, found = timed(partial(plans, model, pool, gpus), repeats)
        chose, _ = timed(partial(best_by_size, model, pool), repeats)
        judged, expected = timed(partial(every_plan, model, pool, gpus), 1)
        planning.append(took.median)
        choosing.append(chose.median)
        refereeing.append(judged.median)
        weighed.append(found.considered)
        same += agree(found.plans, expected)
    return {
        "gpus": gpus,
        "repeats": repeats,
        "pairs": len(planning),
        "considered": median(weighed),
        "considered_most": max(weighed),
        "plan_seconds": median(planning),
        "plan_seconds_most": max(planning),
        "choose_seconds": median(choosing),
        "choose_seconds_most": max(choosing),
        "referee_seconds": median(refereeing),
        "referee_ratio": sum(refereeing) / sum(planning),
        "same_as_referee": same,
    }


def agree(found: tuple[Any, ...], expected: list[Any]) -> bool:
    """As many plans, and the same best time."""
    if len(found) != len(expected) or not found:
        return len(found) == len(expected)
    best = float(min(expected)[0])
    return bool(abs(found[0].step_s - best) <= 1e-9 * best)


if __name__ == "__main__":
    main()
