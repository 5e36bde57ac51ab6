"""What the launched command is told: torchrun's names, and the whole plan as HANSE_PLAN.

`torchrun` takes its own options from variables that begin with PET_ and sets the rest itself, so
`torchrun train.py` runs in the plan's shape. Without it, ask for each process by its rank.
"""

from __future__ import annotations

import json

from economics.errors import Problem
from federation.affinity.planner.checks import Rule, refuse_any
from federation.affinity.planner.plan import Plan
from federation.affinity.planner.synchronisation import Synchronisation

PORT = 29500  #: torchrun's own default


def launch_environment(
    plan: Plan, *, synchronisation: Synchronisation | None = None
) -> dict[str, str]:
    """Variables for the command on each node.

    A last node that is not full is told of the others' number of processes; `process_environment`
    knows better.
    """
    return {
        "WORLD_SIZE": str(plan.gpus),
        "LOCAL_WORLD_SIZE": str(_local(plan)),
        "PET_NNODES": str(plan.nodes),
        "PET_NPROC_PER_NODE": str(_local(plan)),
        "HANSE_PLAN": plan_text(plan, synchronisation),
    }


def process_environment(
    plan: Plan,
    rank: int,
    *,
    master: str,
    port: int = PORT,
    synchronisation: Synchronisation | None = None,
) -> dict[str, str]:
    """Variables for one process, with all that torchrun would have set.

    Ranks count tensor ranks first, then data, then stages; those of a node are neighbours.
    """
    refuse_any(
        [
            Rule(0, plan.gpus - 1, whole=True, above=False).problem("rank", rank),
            Rule(1, 65535, whole=True, above=False).problem("port", port),
            None if master else Problem("master", "is the host of rank 0; must not be empty"),
        ]
    )
    node = rank // plan.gpus_per_node
    here = min(plan.gpus_per_node, plan.gpus - node * plan.gpus_per_node)
    return {
        "MASTER_ADDR": master,
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(plan.gpus),
        "RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(here),
        "LOCAL_RANK": str(rank % plan.gpus_per_node),
        "GROUP_RANK": str(node),
        "GROUP_WORLD_SIZE": str(plan.nodes),
        "HANSE_PLAN": plan_text(plan, synchronisation),
    }


def plan_text(plan: Plan, synchronisation: Synchronisation | None = None) -> str:
    """The plan as one line of JSON."""
    document = {"format": "hanse.plan/1", **plan.document()}
    if synchronisation is not None:
        document["synchronisation"] = synchronisation.document()
    return json.dumps(document, separators=(",", ":"))


def _local(plan: Plan) -> int:
    return min(plan.gpus, plan.gpus_per_node)
