"""Life of a contract: samples promised at a rate for one round of one lease."""

from __future__ import annotations

from enum import StrEnum

from federation.machines.base import Machine


class ContractState(StrEnum):
    HELD = "held"  #: the buyer's money is in escrow; no work reported yet
    RUNNING = "running"  #: work is being reported
    MEASURED = "measured"  #: no further work can count; ready to pay
    DISPUTED = "disputed"  #: a party objects; only this escrow is frozen
    SETTLED = "settled"  #: paid and refunded
    FINAL = "final"  #: the window for objections is over
    VOIDED = "voided"  #: cancelled before any work; everything refunded


TRANSITIONS: dict[tuple[ContractState, str], ContractState] = {
    (ContractState.HELD, "deliver"): ContractState.RUNNING,
    (ContractState.RUNNING, "deliver"): ContractState.RUNNING,
    (ContractState.HELD, "measure"): ContractState.MEASURED,
    (ContractState.RUNNING, "measure"): ContractState.MEASURED,
    (ContractState.HELD, "void"): ContractState.VOIDED,
    (ContractState.MEASURED, "dispute"): ContractState.DISPUTED,
    (ContractState.SETTLED, "dispute"): ContractState.DISPUTED,
    (ContractState.DISPUTED, "decide"): ContractState.SETTLED,
    (ContractState.MEASURED, "settle"): ContractState.SETTLED,
    (ContractState.SETTLED, "finalise"): ContractState.FINAL,
}

MACHINE = Machine(
    name="contract",
    states=ContractState,
    transitions=TRANSITIONS,
    live=frozenset({ContractState.HELD, ContractState.RUNNING}),
    final=frozenset({ContractState.FINAL, ContractState.VOIDED}),
    tones={
        ContractState.HELD: "wait",
        ContractState.RUNNING: "good",
        ContractState.MEASURED: "wait",
        ContractState.DISPUTED: "warn",
        ContractState.SETTLED: "done",
        ContractState.FINAL: "done",
        ContractState.VOIDED: "idle",
    },
)
