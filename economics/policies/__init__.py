"""Policies: who is served in a round, by name. A venue chooses one; each is a file of its own.

A policy module has `NAME` and `award(question)`, the share of each column of the market, (K,):
feasible, and 0 or 1 for a gang. Modules load when they are asked for: this package alone brings in
no solver.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from economics.market import Array
from economics.policies.question import Question, question_of
from economics.rows import POLICIES

__all__ = ["NAMES", "Question", "policy_of", "question_of"]

NAMES = POLICIES
Policy = Callable[[Question], Array]


def policy_of(name: str) -> Policy:
    """The policy of that name; raises KeyError for a name the registry does not know."""
    if name not in NAMES:
        raise KeyError(name)
    award: Policy = import_module(f"{__name__}.{name}").award
    return award
