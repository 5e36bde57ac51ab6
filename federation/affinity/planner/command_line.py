"""`python -m federation.affinity plan PLAN.json`: ranked plans, or the best of several pools.

Exit 0: the document is on standard output. 2: something is wrong with what was given, or nothing
holds the model; one sentence for each on standard error, nothing on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from economics.canonical import LARGEST_FILE, parse_json
from economics.errors import BadBook, Problem
from federation.affinity.planner.choosing import choose
from federation.affinity.planner.errors import BadDescription, NoPlan, PlannerError
from federation.affinity.planner.planning import plans
from federation.affinity.planner.reading import read_model, read_plan, read_pools

RUN_FLAGS = ("samples", "deadline_s", "budget")


def add_command(commands: Any) -> None:
    """The command `plan`, for the parser of `python -m federation.affinity`."""
    plan = commands.add_parser("plan", help="how to split a model over GPUs")
    plan.add_argument("plan", metavar="PLAN.json", type=Path)
    plan.add_argument(
        "--pools", metavar="POOLS.json", type=Path, help="choose among these; needs --samples"
    )
    plan.add_argument("--samples", metavar="N", type=float, help="of the whole run")
    plan.add_argument("--deadline-s", metavar="SECONDS", type=float, help="for the cheapest")
    plan.add_argument("--budget", metavar="CREDITS", type=float, help="for the fastest")
    plan.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan as asked; returns the exit code."""
    try:
        document = _planned(args) if args.pools is None else _chosen(args)
    except (PlannerError, BadBook) as refused:
        sys.stderr.write(f"{refused}\n")
        return 2
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return 0


def _planned(args: argparse.Namespace) -> dict[str, Any]:
    stray = [name for name in RUN_FLAGS if getattr(args, name) is not None]
    if stray:
        why = "needs --pools"
        raise BadDescription(tuple(Problem(f"--{name.replace('_', '-')}", why) for name in stray))
    model, pool = read_plan(_read(args.plan))
    found = plans(model, pool, pool.gpus)
    if found.nothing is not None:
        raise NoPlan(found.nothing)
    return {
        "format": "hanse.plans/1",
        "considered": found.considered,
        "plans": [{"rank": at, **plan.document()} for at, plan in enumerate(found.plans, 1)],
        "rejected": [{"family": row.family, "why": row.why} for row in found.rejected],
    }


def _chosen(args: argparse.Namespace) -> dict[str, Any]:
    model = read_model(_read(args.plan), samples=args.samples)
    pools = read_pools(_read(args.pools))
    found = choose(model, pools, deadline_s=args.deadline_s, budget=args.budget)
    return {
        "format": "hanse.choice/1",
        "cheapest": None if found.cheapest is None else found.cheapest.document(),
        "fastest": None if found.fastest is None else found.fastest.document(),
        "front": [one.document() for one in found.front],
        "priced": [one.document() for one in found.priced],
        "refused": [{"pool": row.pool, "why": row.why} for row in found.refused],
        "why": list(found.why),
    }


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BadDescription((Problem(str(path), f"is larger than {LARGEST_FILE} bytes"),))
        return parse_json(path.read_bytes(), name=str(path))
    except OSError as error:
        raise BadDescription((Problem(str(path), error.strerror or str(error)),)) from None
