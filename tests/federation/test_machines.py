"""Every pair of state and event of every life cycle."""

from __future__ import annotations

import itertools

import pytest

from federation.machines.base import InvalidTransition
from federation.services.story import MACHINES

PAIRS = [
    pytest.param(machine, state, event, id=f"{machine.name}-{state}-{event}")
    for machine in MACHINES.values()
    for state, event in itertools.product(machine.states, machine.events())
]


@pytest.mark.parametrize(("machine", "state", "event"), PAIRS)
def test_each_pair_moves_by_the_table_or_is_refused(machine, state, event):
    if (state, event) in machine.transitions:
        after = machine.advance(state, event)
        assert after in machine.states
        assert state in machine.sources(event)
    else:
        with pytest.raises(InvalidTransition) as refusal:
            machine.advance(state, event)
        assert (refusal.value.state, refusal.value.event) == (state, event)
        assert state not in machine.sources(event)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=lambda m: m.name)
def test_final_states_are_left_by_no_event_and_all_others_are(machine):
    left = {state for state, _ in machine.transitions}
    assert not machine.final & left
    assert set(machine.states) - machine.final <= left
    assert not machine.final & machine.live


@pytest.mark.parametrize("machine", MACHINES.values(), ids=lambda m: m.name)
def test_every_state_is_reached_and_has_a_tone(machine):
    first = next(iter(machine.states))
    reached = {first}
    while True:
        more = {to for (state, _), to in machine.transitions.items() if state in reached}
        if more <= reached:
            break
        reached |= more
    assert reached == set(machine.states)
    assert set(machine.tones) == set(machine.states)
