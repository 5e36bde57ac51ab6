"""A federation of small clouds as an exact Markov chain: who is busy, who lends, who buys outside.

A cloud of N machines (virtual machines, or GPUs that are let one by one) offers S of them to its
partners. An arriving job takes

    1. an idle machine at home, also one that is offered to partners but not lent out,
    2. else an idle machine that a partner still offers: at the partner with the most such machines,
       with equal chances where several have the most,
    3. else a machine of the public cloud. Nobody waits.

A partner offers as many as `min(S - lent, N - busy)`, so a lent machine counts as busy until its
job ends, and a job stays where it started: neither its owner nor its lender may move it. (With two
clouds these rules, and they alone of those tried, give the two-site table of the design notes: not
those by which a borrower calls its job home, or a lender ends one, when its own machine is free or
wanted.) The economics follow SC-Share (Lin, Pal, Paolieri and Golubchik, ICDCS 2017), which has a
waiting time where these clouds have none; see `queueing.py` for delay.

Arrivals are Poisson and service times exponential with the same mean everywhere, which is the unit
of time: the load of a cloud is its arrivals in a mean service time. Then it does not matter to the
future whose a lent machine is, and a cloud's part of the state is (own jobs at home, machines
lent). What a cloud borrows follows from Little's law.

Axes: L states of one cloud alone · V states of the federation, the last cloud's changing fastest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array
from scipy.sparse.linalg import splu

from economics.errors import EconomicsError, NotCleared
from economics.market import Array, Index, Mask

MOST_STATES = 60_000  # beyond, a game of some hundred such chains takes hours
DIRECT_STATES = 4_000  # beyond, the factors of the balance equations fill up
BALANCED = 1e-12  # sum over the states of what flows in less what flows out, by iteration
STEPS = 100_000


class BadFederation(EconomicsError):
    """Clouds, shares or prices of which no chain can be made."""


class TooManyStates(EconomicsError):
    """The exact chain would be larger than is solved here."""

    def __init__(self, states: int) -> None:
        super().__init__(
            f"the exact chain has {states} states, more than {MOST_STATES}: "
            "take fewer clouds or fewer machines"
        )
        self.states = states


@dataclass(frozen=True, slots=True)
class Cloud:
    """A small cloud. The load is its arrivals in the mean time that a job takes."""

    machines: int
    load: float

    def __post_init__(self) -> None:
        if self.machines < 1:
            raise BadFederation("a cloud has at least one machine")
        if not (math.isfinite(self.load) and self.load >= 0):
            raise BadFederation("a load is a finite number of at least zero")


@dataclass(frozen=True, slots=True)
class Use:
    """Means in the long run, in machines; one entry for each cloud."""

    public: tuple[float, ...]  # bought outside
    borrowed: tuple[float, ...]
    lent: tuple[float, ...]
    utilisation: tuple[float, ...]  # busy machines over all of the cloud's own


@dataclass(frozen=True, slots=True)
class _Local:
    """One cloud's states, and where each goes; -1 where it cannot go."""

    own: Index  # (L,) own jobs at home
    lent: Index  # (L,)
    idle: Index  # (L,) idle machines
    offered: Index  # (L,) idle machines that a partner may take
    number: Index  # (machines + 1, share + 1) state of (own, lent)

    @classmethod
    def of(cls, cloud: Cloud, share: int) -> _Local:
        number = np.full((cloud.machines + 2, share + 2), -1)
        own, lent = np.indices((cloud.machines + 1, share + 1)).reshape(2, -1)
        possible = own + lent <= cloud.machines
        own, lent = own[possible], lent[possible]
        number[own, lent] = np.arange(own.size)
        idle = cloud.machines - own - lent
        return cls(own, lent, idle, np.minimum(share - lent, idle), number)

    def after(self, own: int, lent: int) -> Index:
        """State after so many more own and lent; only read where that is possible, (L,)."""
        moved: Index = self.number[self.own + own, self.lent + lent]
        return moved


@dataclass(frozen=True, slots=True)
class _Space:
    """The federation's states: every combination of the clouds' own."""

    local: tuple[_Local, ...]
    state: Index  # (clouds, V) each cloud's part
    stride: Index  # (clouds,) how far one step of a cloud's part is in the numbering

    @classmethod
    def of(cls, clouds: Sequence[Cloud], shares: Sequence[int]) -> _Space:
        local = tuple(_Local.of(*pair) for pair in zip(clouds, shares, strict=True))
        sizes = [part.own.size for part in local]
        stride = np.append(np.cumprod(sizes[:0:-1])[::-1], 1).astype(np.int64)
        return cls(local, np.indices(sizes).reshape(len(sizes), -1), stride)

    def read(self, name: str) -> Index:
        """A quantity of every cloud in every state, (clouds, V)."""
        return np.stack(
            [getattr(part, name)[at] for part, at in zip(self.local, self.state, strict=True)]
        )

    def after(self, cloud: int, own: int, lent: int) -> Index:
        """Every state's number after one cloud has so many more own and lent, (V,)."""
        at = self.state[cloud]
        step = self.local[cloud].after(own, lent)[at] - at
        after: Index = np.arange(self.state.shape[1]) + step * self.stride[cloud]
        return after


def states_of(clouds: Sequence[Cloud], shares: Sequence[int]) -> int:
    """How many states the chain has."""
    # Own jobs from 0 to machines - lent, for each number lent.
    return math.prod(
        (share + 1) * (cloud.machines + 1) - share * (share + 1) // 2
        for cloud, share in zip(clouds, shares, strict=True)
    )


def use_of(clouds: Sequence[Cloud], shares: Sequence[int]) -> Use:
    """Long-run means of the federation when the clouds offer so many machines each.

    Raises BadFederation for a share outside 0..machines, TooManyStates above MOST_STATES.
    """
    _check(clouds, shares)
    space = _Space.of(clouds, shares)
    overflow = space.read("idle") == 0
    taken = _taken(overflow, space.read("offered"))
    chance = _stationary(_generator(clouds, space, taken))
    load = np.array([cloud.load for cloud in clouds])
    borrowed = load * (taken.sum(axis=1) @ chance)
    lent = space.read("lent") @ chance
    busy = np.array([cloud.machines for cloud in clouds]) - space.read("idle") @ chance
    return Use(
        public=_plain(load * (overflow @ chance) - borrowed),
        borrowed=_plain(borrowed),
        lent=_plain(lent),
        utilisation=_plain(busy / [cloud.machines for cloud in clouds]),
    )


def _check(clouds: Sequence[Cloud], shares: Sequence[int]) -> None:
    if not clouds or len(clouds) != len(shares):
        raise BadFederation("there is a share for each cloud, and at least one cloud")
    for cloud, share in zip(clouds, shares, strict=True):
        if not 0 <= share <= cloud.machines:
            raise BadFederation(f"a cloud of {cloud.machines} machines cannot offer {share}")
    if (states := states_of(clouds, shares)) > MOST_STATES:
        raise TooManyStates(states)


def _taken(overflow: Mask, offered: Index) -> Array:
    """Chance that a job of cloud i that arrives in state v is served by cloud j, (i, j, V)."""
    taken = np.zeros((overflow.shape[0], *overflow.shape))
    for cloud, full in enumerate(overflow):
        of_partners = offered.copy()
        of_partners[cloud] = 0
        most = of_partners.max(axis=0)
        goes = (of_partners == most) & (most > 0) & full
        taken[cloud] = goes / np.maximum(goes.sum(axis=0), 1)
    return taken


def _generator(clouds: Sequence[Cloud], space: _Space, taken: Array) -> csc_array:
    """Rates from state to state, transposed: columns are origins and sum to zero, (V, V)."""
    own, lent, idle = space.read("own"), space.read("lent"), space.read("idle")
    load = np.array([cloud.load for cloud in clouds])
    moves: list[tuple[Array, Index]] = []
    for at in range(len(clouds)):
        moves += [
            (load[at] * (idle[at] > 0), space.after(at, 1, 0)),
            (load @ taken[:, at], space.after(at, 0, 1)),
            (own[at].astype(float), space.after(at, -1, 0)),
            (lent[at].astype(float), space.after(at, 0, -1)),
        ]
    states = own.shape[1]
    rate = np.concatenate([rate for rate, _ in moves])
    target = np.concatenate([target for _, target in moves])
    origin = np.tile(np.arange(states), len(moves))
    happens = rate > 0
    rate, target, origin = rate[happens], target[happens], origin[happens]
    leaving = np.bincount(origin, weights=rate, minlength=states)
    diagonal = np.arange(states)
    return csc_array(
        coo_array(
            (
                np.append(rate, -leaving),
                (np.append(target, diagonal), np.append(origin, diagonal)),
            ),
            shape=(states, states),
        )
    )


def _stationary(generator: csc_array) -> Array:
    """Long-run share of time in each state, (V,)."""
    if generator.shape[0] > DIRECT_STATES:
        return _stepped(generator)
    return _factored(generator)


def _factored(generator: csc_array) -> Array:
    """Every state leads to the empty federation, number 0, so its share is positive: the others
    are found relative to it from their own balance equations, which are regular.
    """
    relative = np.ones(generator.shape[0])
    if relative.size > 1:
        balance = csc_array(generator[1:, 1:])
        into = -generator[1:, [0]].toarray().ravel()
        relative[1:] = splu(balance, permc_spec="MMD_AT_PLUS_A").solve(into)
    stationary: Array = relative / relative.sum()
    return stationary


def _stepped(generator: csc_array) -> Array:
    """Step the chain's jumps, made equally frequent in every state, until nothing flows.

    Raises NotCleared when something still does after STEPS.
    """
    rates = csr_array(generator)
    frequency = -1.01 * rates.diagonal().min()  # a little idle time, or it might alternate
    share = np.full(rates.shape[0], 1.0 / rates.shape[0])
    for _ in range(STEPS):
        flow = rates @ share
        share = share + flow / frequency
        if np.abs(flow).sum() <= BALANCED:
            stationary: Array = share / share.sum()
            return stationary
    raise NotCleared("the chain of the federation has not settled")


def _plain(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
