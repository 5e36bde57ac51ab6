"""What all life cycles share: advance by an event, ask which states allow one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

S = TypeVar("S", bound=StrEnum)


class InvalidTransition(Exception):
    """An event came in a state that does not know it. Carries both, for the object's story."""

    def __init__(self, machine: str, state: str, event: str) -> None:
        super().__init__(f"a {machine} that is {state} cannot {event}")
        self.machine = machine
        self.state = state
        self.event = event


@dataclass(frozen=True)
class Machine(Generic[S]):
    """One life cycle: its states, what moves it, and two named sub-sets."""

    name: str
    states: type[S]
    transitions: Mapping[tuple[S, str], S]
    live: frozenset[S]
    final: frozenset[S]
    #: state -> tone of the console's palette: idle, wait, good, warn, bad, done
    tones: Mapping[S, str]

    def advance(self, state: S, event: str) -> S:
        """The state after `event`; raises InvalidTransition when the table has no such row."""
        try:
            return self.transitions[state, event]
        except KeyError:
            raise InvalidTransition(self.name, state, event) from None

    def sources(self, event: str) -> list[S]:
        """States in which `event` is legal, for the WHERE of a conditional update."""
        return [state for state, name in self.transitions if name == event]

    def events(self) -> list[str]:
        """Every event the machine knows, in table order."""
        return list(dict.fromkeys(name for _, name in self.transitions))

    def choices(self) -> list[tuple[str, str]]:
        """(value, words) pairs for a Django field."""
        return [(state.value, state.value.replace("_", " ")) for state in self.states]
