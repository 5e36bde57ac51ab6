"""The affinity matrix of some offers: every speed that is declared, measured, forecast or guessed.

Held as arrays sorted by class, pool and GPUs. `Matrix.table` works out what is planned on for all
cells at once; a `Believed` is made only where one is looked at, for its class. Both say the same:
the array form of `federation.affinity.belief.planned` is checked against it by a test. What a prior
says is shown and never planned on, alone or beside leases, so the table knows of none, and they are
read only when somebody looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from federation.affinity.belief import (
    Belief,
    caution,
    claims_spread,
    observed,
    planned,
    supposed,
)
from federation.affinity.believed import EXTRAPOLATED as EXTRAPOLATED
from federation.affinity.believed import GUESSED, Believed
from federation.affinity.coldstart.blend import Prior
from federation.selectors.cell_codes import SIZE_BITS, SIZES, Axes, Cell, Codes
from federation.selectors.matrix_columns import (
    Array,
    Foreseen,
    Guessed,
    Shown,
    Stated,
    Table,
    among,
    joined,
    taken,
)
from federation.selectors.matrix_values import Curve, forecast, moment
from federation.selectors.planned_columns import Beliefs, planned_speeds

Spot = tuple[UUID, int]  #: pool, GPUs


class Guesses(Protocol):
    """Priors of the pools, read when somebody asks."""

    def all(self) -> Guessed:
        """Every one that is stored and believable."""


@dataclass(slots=True)
class _Rows:
    """What was made of one class's rows."""

    cells: dict[Spot, Believed]
    curves: dict[UUID, Curve]


@dataclass(frozen=True, eq=False)
class Matrix(Mapping[Cell, Believed]):
    """What is believed of every cell.

    It also answers for a gang size that no row has, where its class has a model on the pool.
    """

    axes: Axes
    stated: Stated
    shown: Shown
    foreseen: Foreseen
    guesses: Guesses
    contracts: Mapping[UUID, int]  #: pool -> contracts that its site settled with others
    offered: Mapping[UUID, datetime]  #: pool -> when its offer was made
    waiting: AbstractSet[Cell]  #: claims that wait for a probe

    def __getitem__(self, cell: Cell) -> Believed:
        pool, job_class, gpus = cell
        rows = self._rows_of(job_class)
        found = rows.cells.get((pool, gpus))
        if found is None and pool in rows.curves and gpus > 0:
            found = rows.curves[pool].at(gpus)
        if found is None:
            raise KeyError(cell)
        return found

    def __iter__(self) -> Iterator[Cell]:
        every = joined(self.table.codes, self._only_guessed)
        return map(self.axes.cell, every.tolist())

    def __len__(self) -> int:
        return len(self.table.codes) + len(self._only_guessed)

    def speed(self, pool: UUID, job_class: UUID, gpus: int) -> float | None:
        """Samples/s that is planned on; None = not known to run, or not priced on."""
        speeds = self._speeds_of(job_class)
        own = speeds.get((pool, gpus))
        if own is None and self._modelled(pool, job_class):
            said = self.get((pool, job_class, gpus))
            own = said.samples_per_s if said is not None and said.priced else 0.0
        if own is None:
            one = speeds.get((pool, 1))
            return None if not one else one * gpus
        return own or None

    def supposed(self, pool: UUID, job_class: UUID, gpus: int) -> Believed | None:
        """What is shown of a gang, priced on or not; None where nothing at all is known."""
        found = self.get((pool, job_class, gpus))
        if found is None:
            one = self.get((pool, job_class, 1))
            found = None if one is None else one.times(gpus)
        return found

    def row_speeds(self, job_class: UUID) -> Mapping[Spot, float]:
        """(pool, GPUs) -> samples/s of every row of a class, 0 where it is not priced on."""
        return self._speeds_of(job_class)

    def asked(self, job_class: UUID, sizes: Iterable[int]) -> dict[Spot, float]:
        """The same of sizes that no row has, at the pools where the class has a model."""
        if not self._has_models(job_class):
            return {}
        known = self._speeds_of(job_class)
        return {
            (pool, gpus): self.speed(pool, job_class, gpus) or 0.0
            for pool in self._rows_of(job_class).curves
            for gpus in sizes
            if (pool, gpus) not in known
        }

    def _modelled(self, pool: UUID, job_class: UUID) -> bool:
        return self._has_models(job_class) and pool in self._rows_of(job_class).curves

    def held_against(self) -> Iterator[tuple[Cell, float, Belief]]:
        """Cells with a claim of their own that leases measured: the claim, and what they showed."""
        shown, (claims, both) = self.shown, self._claims_shown
        columns = (shown.codes, claims, shown.speed, shown.log_sd, shown.leases)
        values = zip(*(column[both].tolist() for column in columns), strict=True)
        for code, claim, speed, log_sd, leases in values:
            belief = observed(measured=speed, log_sd=log_sd, leases=leases)
            if belief is not None:
                yield self.axes.cell(code), claim, belief

    @cached_property
    def _claims_shown(self) -> tuple[Array, NDArray[np.bool_]]:
        """Claims of the cells that leases are known of, and where there is one to hold them to."""
        shown = self.shown
        claims, both = taken(self.stated.codes, self.stated.speed, shown.codes)
        return claims, both & (shown.leases > 0)

    @cached_property
    def _unseen(self) -> float:
        """Deviation of the logarithm of a speed around a claim that nothing was measured of."""
        claims, both = self._claims_shown
        return claims_spread(np.log(self.shown.speed[both] / claims[both]).tolist())

    def _has_models(self, job_class: UUID) -> bool:
        at = self._class_at.get(job_class)
        rows = None if at is None else self.axes.slice_of(self.foreseen.codes, at)
        return rows is not None and rows.start < rows.stop

    @cached_property
    def table(self) -> Table:
        """Every cell but those of priors alone, as `planned` says; forecasts where nothing else is
        known."""
        stated, shown, foreseen = self.stated, self.shown, self.foreseen
        codes = joined(stated.codes, shown.codes)
        own, is_own = taken(stated.codes, stated.speed, codes)
        ones = (codes >> SIZE_BITS << SIZE_BITS) | 1
        single, has_single = taken(stated.codes, stated.speed, ones)
        claim = np.where(is_own, own, np.where(has_single, single * (codes & SIZES), np.nan))
        at = np.searchsorted(codes, shown.codes)  # all are among them
        doubted = among(self._waiting_codes, np.where(is_own, codes, ones)[at])
        beliefs = Beliefs(shown.speed, shown.log_sd, shown.leases)
        claim[at] = planned_speeds(claim[at], beliefs, self._cautions(shown.codes), doubted)
        known = ~np.isnan(claim)
        codes, speed = codes[known], claim[known]
        new = ~among(codes, foreseen.codes)
        said = np.where(foreseen.extrapolated, 0.0, foreseen.speed)[new]
        every = np.concatenate([codes, foreseen.codes[new]])
        order = np.argsort(every, kind="stable")
        return Table(every[order], np.concatenate([speed, said])[order])

    @cached_property
    def _only_guessed(self) -> Codes:
        """Cells that a prior alone speaks of, of pairs without a model and a one-GPU speed."""
        codes, known = self.guesses.all().codes, self.table.codes
        ones = (codes >> SIZE_BITS << SIZE_BITS) | 1
        modelled = among(np.unique(self.foreseen.codes >> SIZE_BITS), codes >> SIZE_BITS)
        return codes[~(among(known, codes) | among(known, ones) | modelled)]

    def _cautions(self, codes: Codes) -> Array:
        each = [caution(self.contracts.get(pool) or 0) for pool in self.axes.pools]
        return np.array(each, dtype=np.float64)[self.axes.pools_of(codes)]

    @cached_property
    def _waiting_codes(self) -> Codes:
        pools = {pool: at for at, pool in enumerate(self.axes.pools)}
        many = len(pools)
        found = [
            ((self._class_at[job_class] * many + pools[pool]) << SIZE_BITS) | gpus
            for pool, job_class, gpus in self.waiting
            if pool in pools and job_class in self._class_at
        ]
        return np.array(sorted(found), dtype=np.int64)

    @cached_property
    def _class_at(self) -> dict[UUID, int]:
        return {job_class: at for at, job_class in enumerate(self.axes.classes)}

    @cached_property
    def _made(self) -> dict[UUID, _Rows]:
        return {}

    @cached_property
    def _speeds(self) -> dict[UUID, dict[Spot, float]]:
        return {}

    def _speeds_of(self, job_class: UUID) -> dict[Spot, float]:
        if job_class not in self._speeds:
            at = self._class_at.get(job_class)
            found: dict[Spot, float] = {}
            if at is not None:
                rows = self.axes.slice_of(self.table.codes, at)
                codes = self.table.codes[rows]
                found = dict(zip(self._places(codes), self.table.speed[rows].tolist(), strict=True))
            self._speeds[job_class] = found
        return self._speeds[job_class]

    def _rows_of(self, job_class: UUID) -> _Rows:
        if job_class not in self._made:
            at = self._class_at.get(job_class)
            self._made[job_class] = _Rows({}, {}) if at is None else self._make(at)
        return self._made[job_class]

    def _make(self, job_class: int) -> _Rows:
        """Every cell of a class as values."""
        stated = self._stated_of(job_class)
        shown = self._shown_of(job_class)
        guessed = dict(self._guessed_of(job_class))
        cells: dict[Spot, Believed] = {}
        for cell in stated.keys() | shown.keys():
            prior, _ = guessed.get(cell, (None, None))
            found = self._planned(cell, self.axes.classes[job_class], stated, shown, prior)
            if found is not None:
                cells[cell] = found
        curves: dict[UUID, Curve] = defaultdict(lambda: Curve([], []))
        for (pool, gpus), said in self._foreseen_of(job_class):
            one = stated.get((pool, 1))
            claim = None if one is None else one[0] * gpus
            curves[pool].sizes.append(gpus)
            curves[pool].said.append(replace(said, declared=claim))
            cells.setdefault((pool, gpus), curves[pool].said[-1])
        cells |= {
            (pool, gpus): supposed(prior, at)
            for (pool, gpus), (prior, at) in guessed.items()
            if pool not in curves and (pool, gpus) not in cells and (pool, 1) not in cells
        }
        return _Rows(cells, dict(curves))

    def _planned(
        self,
        cell: Spot,
        job_class: UUID,
        stated: Mapping[Spot, tuple[float, str]],
        shown: Mapping[Spot, tuple[Belief | None, datetime]],
        prior: Prior | None,
    ) -> Believed | None:
        pool, gpus = cell
        own = cell if cell in stated else (pool, 1)
        speed, source = stated.get(own, (None, "declared"))
        if speed is not None and own != cell:
            speed *= gpus
        belief, at = shown.get(cell, (None, None))
        if belief is None:
            at, prior = self.offered.get(pool), None  # where nobody claims either, it is a guess
        return planned(
            declared=speed,
            belief=belief,
            contracts=self.contracts.get(pool) or 0,
            source=source,
            unconfirmed=(own[0], job_class, own[1]) in self.waiting,
            known_at=at,
            prior=prior,
            unseen=self._unseen,
        )

    def _stated_of(self, job_class: int) -> dict[Spot, tuple[float, str]]:
        rows = self.axes.slice_of(self.stated.codes, job_class)
        values = zip(
            self.stated.speed[rows].tolist(), self.stated.probed[rows].tolist(), strict=True
        )
        sources = ((speed, "probed" if probed else "declared") for speed, probed in values)
        return dict(zip(self._places(self.stated.codes[rows]), sources, strict=True))

    def _shown_of(self, job_class: int) -> dict[Spot, tuple[Belief | None, datetime]]:
        rows, all_of = self.axes.slice_of(self.shown.codes, job_class), self.shown
        columns = (all_of.speed, all_of.log_sd, all_of.leases, all_of.at)
        values = zip(*(column[rows].tolist() for column in columns), strict=True)
        beliefs = (
            (observed(measured=speed, log_sd=log_sd, leases=leases), moment(at))
            for speed, log_sd, leases, at in values
        )
        return dict(zip(self._places(all_of.codes[rows]), beliefs, strict=True))

    def _foreseen_of(self, job_class: int) -> Iterator[tuple[Spot, Believed]]:
        rows, all_of = self.axes.slice_of(self.foreseen.codes, job_class), self.foreseen
        columns = (all_of.speed, all_of.low, all_of.high, all_of.extrapolated, all_of.samples)
        values = zip(*(column[rows].tolist() for column in (*columns, all_of.at)), strict=True)
        for place, value in zip(self._places(all_of.codes[rows]), values, strict=True):
            yield place, forecast(*value)

    def _guessed_of(self, job_class: int) -> Iterator[tuple[Spot, tuple[Prior, datetime]]]:
        all_of = self.guesses.all()
        rows = self.axes.slice_of(all_of.codes, job_class)
        columns = (all_of.log_mean, all_of.log_sd, all_of.source, all_of.n, all_of.at)
        values = zip(*(column[rows].tolist() for column in columns), strict=True)
        for place, (mean, spread, source, n, at) in zip(
            self._places(all_of.codes[rows]), values, strict=True
        ):
            yield place, (Prior(mean, spread, GUESSED[source], n), moment(at))

    def _places(self, codes: Codes) -> list[Spot]:
        pools = self.axes.pools
        places = ((codes >> SIZE_BITS) % max(len(pools), 1)).tolist()
        return [
            (pools[at], gpus) for at, gpus in zip(places, (codes & SIZES).tolist(), strict=True)
        ]
