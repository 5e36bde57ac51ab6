"""The market as one linear programme: maximise gain @ z with matrix @ z <= limit, 0 <= z <= 1.

    sum over columns of gpu_hours z <= C_p          every pool           (dual: the rent)
    sum z <= 1                                      every gang
    sum msamples z <= D_j                           every divisible job
    sum gpu_hours z <= W_j                          ... with a width
    - sum msamples z <= -F_j                        ... with a floor

A divisible job that pays a lump sum for leaving its pool is written as two alternatives of which
one is taken (a *switch* variable each): stay there, or run anywhere and pay. That is the convex
hull of its choices, so the programme's duals are its best bundle and `regret` of accounts.py is
the dual objective less the welfare. Every row belongs to a site: a coalition has its own rows only
(economics.md, 1.2).

Axes: V variables (the K columns first) · R rows (the P pools first).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from economics.market import Array, Index, Market, Mask


@dataclass(frozen=True, slots=True)
class Program:
    """Variables are shares of full use; limits are in the units of their row."""

    matrix: csr_array  # (R, V)
    limit: Array  # (R,)
    owner: Index  # (R,) site
    gain: Array  # (V,) credits at a share of 1
    hours: Array  # (V,) GPU-hours a share of 1 stands for; scales the dual rows
    whole: Mask  # (V,) whether the share is 0 or 1
    column: Index  # (V,) the market column it serves; -1 for a switch
    payer: Index  # (R,) job of the row; -1 for a pool
    pools: int  # P

    @property
    def integral(self) -> bool:
        return bool(self.whole.any())

    def shares(self, values: Array, columns: int) -> Array:
        """Share of each market column, (K,)."""
        serves = self.column >= 0
        summed = np.bincount(self.column[serves], weights=values[serves], minlength=columns)
        return summed.astype(np.float64)


@dataclass(slots=True)
class _Rows:
    """Rows as they are written down."""

    row: list[Index] = field(default_factory=list)
    variable: list[Index] = field(default_factory=list)
    entry: list[Array] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    payer: list[int] = field(default_factory=list)

    def add(self, variable: Index, entry: Array, limit: float, payer: int) -> None:
        self.row.append(np.full(variable.shape, len(self.limit), dtype=np.int64))
        self.variable.append(variable)
        self.entry.append(entry)
        self.limit.append(limit)
        self.payer.append(payer)


@dataclass(slots=True)
class _Variables:
    """Variables beyond the market's columns: copies for staying, and switches."""

    column: list[int]
    gain: list[float]
    hours: list[float]

    def add(self, column: int, gain: float, hours: float) -> int:
        self.column.append(column)
        self.gain.append(gain)
        self.hours.append(hours)
        return len(self.column) - 1


def program_of(market: Market) -> Program:
    """Write the market down as a programme."""
    variables = _Variables(
        list(range(market.columns)), market.gain.tolist(), market.gpu_hours.tolist()
    )
    stays: list[tuple[int, int]] = []  # (variable, column) of copies that take capacity too
    rows = _Rows()
    for pool in range(market.pools):
        at = np.flatnonzero(market.pool == pool)
        rows.add(at, market.gpu_hours[at], float(market.capacity[pool]), -1)
    for job in range(market.jobs):
        at = np.arange(market.columns)[market.columns_of(job)]
        if not at.size:
            continue
        if market.gang[job]:
            rows.add(at, np.ones(at.shape), 1.0, job)
        elif market.move_charge[job]:
            stays += _add_mover(market, job, at, variables, rows)
        else:
            _add_divisible(market, job, at, at, rows)
    return _assemble(market, variables, rows, stays)


def _add_divisible(market: Market, job: int, at: Index, columns: Index, rows: _Rows) -> None:
    """Demand, width and floor of a divisible job over variables `at` that serve `columns`."""
    if np.isfinite(market.demand[job]):
        rows.add(at, market.msamples[columns], float(market.demand[job]), job)
    if np.isfinite(market.width[job]):
        rows.add(at, market.gpu_hours[columns], float(market.width[job]), job)
    if market.floor[job]:
        rows.add(at, -market.msamples[columns], -float(market.floor[job]), job)


def _add_mover(
    market: Market, job: int, at: Index, variables: _Variables, rows: _Rows
) -> list[tuple[int, int]]:
    """Two alternatives, stay or go; each is a divisible job whose limits its switch turns on."""
    at_home = at[market.stays[at]]
    copies = [
        (variables.add(int(k), float(market.gain[k]), float(market.gpu_hours[k])), int(k))
        for k in at_home
    ]
    hours = float(market.gpu_hours[at].max())
    switches = []
    for served, columns, charge in (
        (np.array([copy for copy, _ in copies], dtype=np.int64), at_home, 0.0),
        (at, at, float(market.move_charge[job])),
    ):
        if not served.size:
            continue
        switch = variables.add(-1, -charge, hours)
        switches.append(switch)
        _add_switched(market, job, served, columns, switch, rows)
    taken = np.array(switches, dtype=np.int64)
    rows.add(taken, np.ones(taken.shape), 1.0, job)
    if market.floor[job]:
        rows.add(taken, -np.ones(taken.shape), -1.0, job)
    return copies


def _add_switched(
    market: Market, job: int, at: Index, columns: Index, switch: int, rows: _Rows
) -> None:
    """The limits of a divisible job, times its switch."""
    with_switch = np.append(at, switch)
    for entries, most in (
        (market.msamples[columns], market.demand[job]),
        (market.gpu_hours[columns], market.width[job]),
        (-market.msamples[columns], -market.floor[job]),
    ):
        if np.isfinite(most) and most != 0.0:
            rows.add(with_switch, np.append(entries, -most), 0.0, job)


def _assemble(
    market: Market, variables: _Variables, rows: _Rows, stays: list[tuple[int, int]]
) -> Program:
    for variable, copied in stays:
        pool = int(market.pool[copied])
        rows.row.append(np.array([pool], dtype=np.int64))
        rows.variable.append(np.array([variable], dtype=np.int64))
        rows.entry.append(market.gpu_hours[[copied]])
    size = (len(rows.limit), len(variables.column))
    none = np.zeros(0, dtype=np.int64)
    matrix = csr_array(
        (
            np.concatenate([np.zeros(0), *rows.entry]),
            (np.concatenate([none, *rows.row]), np.concatenate([none, *rows.variable])),
        ),
        shape=size,
    )
    column: Index = np.array(variables.column, dtype=np.int64)
    payer: Index = np.array(rows.payer, dtype=np.int64)
    whole: Mask = np.append(market.gang[market.job], column[market.columns :] < 0)
    owner = np.append(market.owner, market.home[payer[market.pools :]])
    return Program(
        matrix=matrix,
        limit=np.array(rows.limit, dtype=float),
        owner=owner.astype(np.int64),
        gain=np.array(variables.gain, dtype=float),
        hours=np.array(variables.hours, dtype=float),
        whole=whole,
        column=column,
        payer=payer,
        pools=market.pools,
    )
