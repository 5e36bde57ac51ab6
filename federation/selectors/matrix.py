"""The affinity matrix of some offers: every speed that is declared, measured or forecast.

Held as arrays sorted by class, pool and GPUs. `Matrix.table` works out what is planned on for all
cells at once; a `Believed` is made only where one is looked at, for its class. Both say the same:
the array form of `federation.affinity.belief.planned` is checked against it by a test.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from federation.affinity.belief import INTERVAL_SDS, NOISE, Belief, caution, observed, planned
from federation.affinity.believed import Believed
from federation.selectors.cell_codes import SIZE_BITS, SIZES, Axes, Cell, Codes
from federation.selectors.planned_columns import Beliefs, planned_speeds

Array = NDArray[np.float64]
Spot = tuple[UUID, int]  #: pool, GPUs
FORECAST = "forecast"  #: of a model, inside what was measured
EXTRAPOLATED = "extrapolated"  #: of a model, beyond it: shown, never priced on
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stated:
    """What sites say; all (n,), sorted by code."""

    codes: Codes
    speed: Array
    probed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shown:
    """What leases showed; all (n,), sorted by code."""

    codes: Codes
    speed: Array
    log_sd: Array
    leases: Codes
    at: Array  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What models say; all (n,), sorted by code."""

    codes: Codes
    speed: Array
    low: Array
    high: Array
    extrapolated: NDArray[np.bool_]
    samples: Codes
    at: Array


@dataclass(frozen=True, slots=True)
class Table:
    """All cells with what is planned on, 0 where a forecast is not priced on; all (n,)."""

    codes: Codes
    speed: Array


@dataclass(frozen=True, slots=True)
class _Curve:
    """Forecasts of one class on one pool by GPUs, ascending."""

    sizes: list[int]
    said: list[Believed]

    def at(self, gpus: int) -> Believed:
        """A size that was not forecast by itself: between its neighbours, in logarithms of both.

        Priced on only between two that are.
        """
        place = bisect_left(self.sizes, gpus)
        if place == 0 or place == len(self.sizes):
            end = self.sizes[min(place, len(self.sizes) - 1)]
            said = self.said[min(place, len(self.sizes) - 1)]
            return replace(_scaled(said, gpus / end), source=EXTRAPOLATED)
        least, most = self.sizes[place - 1], self.sizes[place]
        low, high = self.said[place - 1], self.said[place]
        share = math.log(gpus / least) / math.log(most / least)
        between = _scaled(low, (high.samples_per_s / low.samples_per_s) ** share)
        inside = low.source == high.source == FORECAST
        return replace(between, source=FORECAST if inside else EXTRAPOLATED)


@dataclass(slots=True)
class _Rows:
    """What was made of one class's rows."""

    cells: dict[Spot, Believed]
    curves: dict[UUID, _Curve]


@dataclass(frozen=True, eq=False)
class Matrix(Mapping[Cell, Believed]):
    """What is believed of every cell.

    It also answers for a gang size that no row has, where its class has a model on the pool.
    """

    axes: Axes
    stated: Stated
    shown: Shown
    foreseen: Foreseen
    contracts: Mapping[UUID, int]  #: pool -> contracts that its site settled with others
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
        return map(self.axes.cell, self.table.codes.tolist())

    def __len__(self) -> int:
        return len(self.table.codes)

    def speed(self, pool: UUID, job_class: UUID, gpus: int) -> float | None:
        """Samples/s that is planned on; None = not known to run, or not priced on."""
        speeds = self._speeds_of(job_class)
        own = speeds.get((pool, gpus))
        if own is None and self._modelled(pool, job_class):
            said = self.get((pool, job_class, gpus))
            own = said.samples_per_s if said is not None and said.source == FORECAST else 0.0
        if own is None:
            one = speeds.get((pool, 1))
            return None if not one else one * gpus
        return own or None

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
        stated, shown = self.stated, self.shown
        claims, both = _taken(stated.codes, stated.speed, shown.codes)
        both &= shown.leases > 0
        columns = (shown.codes, claims, shown.speed, shown.log_sd, shown.leases)
        values = zip(*(column[both].tolist() for column in columns), strict=True)
        for code, claim, speed, log_sd, leases in values:
            belief = observed(measured=speed, log_sd=log_sd, leases=leases)
            if belief is not None:
                yield self.axes.cell(code), claim, belief

    def _has_models(self, job_class: UUID) -> bool:
        at = self._class_at.get(job_class)
        rows = None if at is None else self.axes.slice_of(self.foreseen.codes, at)
        return rows is not None and rows.start < rows.stop

    @cached_property
    def table(self) -> Table:
        """Every cell at once, as `planned` says; forecasts where nothing else is known."""
        stated, shown, foreseen = self.stated, self.shown, self.foreseen
        codes = _joined(stated.codes, shown.codes)
        own, is_own = _taken(stated.codes, stated.speed, codes)
        ones = (codes >> SIZE_BITS << SIZE_BITS) | 1
        single, has_single = _taken(stated.codes, stated.speed, ones)
        claim = np.where(is_own, own, np.where(has_single, single * (codes & SIZES), np.nan))
        at = np.searchsorted(codes, shown.codes)  # all are among them
        doubted = _among(self._waiting_codes, np.where(is_own, codes, ones)[at])
        beliefs = Beliefs(shown.speed, shown.log_sd, shown.leases)
        claim[at] = planned_speeds(claim[at], beliefs, self._cautions(shown.codes), doubted)
        known = ~np.isnan(claim)
        codes, speed = codes[known], claim[known]
        new = ~_among(codes, foreseen.codes)
        said = np.where(foreseen.extrapolated, 0.0, foreseen.speed)[new]
        every = np.concatenate([codes, foreseen.codes[new]])
        order = np.argsort(every, kind="stable")
        return Table(every[order], np.concatenate([speed, said])[order])

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
        cells: dict[Spot, Believed] = {}
        for cell in stated.keys() | shown.keys():
            found = self._planned(cell, self.axes.classes[job_class], stated, shown)
            if found is not None:
                cells[cell] = found
        curves: dict[UUID, _Curve] = defaultdict(lambda: _Curve([], []))
        for (pool, gpus), said in self._foreseen_of(job_class):
            one = stated.get((pool, 1))
            claim = None if one is None else one[0] * gpus
            curves[pool].sizes.append(gpus)
            curves[pool].said.append(replace(said, declared=claim))
            cells.setdefault((pool, gpus), curves[pool].said[-1])
        return _Rows(cells, dict(curves))

    def _planned(
        self,
        cell: Spot,
        job_class: UUID,
        stated: Mapping[Spot, tuple[float, str]],
        shown: Mapping[Spot, tuple[Belief | None, datetime]],
    ) -> Believed | None:
        pool, gpus = cell
        own = cell if cell in stated else (pool, 1)
        speed, source = stated.get(own, (None, "declared"))
        if speed is not None and own != cell:
            speed *= gpus
        belief, at = shown.get(cell, (None, None))
        return planned(
            declared=speed,
            belief=belief,
            contracts=self.contracts.get(pool) or 0,
            source=source,
            unconfirmed=(own[0], job_class, own[1]) in self.waiting,
            measured_at=at,
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
            (observed(measured=speed, log_sd=log_sd, leases=leases), _moment(at))
            for speed, log_sd, leases, at in values
        )
        return dict(zip(self._places(all_of.codes[rows]), beliefs, strict=True))

    def _foreseen_of(self, job_class: int) -> Iterator[tuple[Spot, Believed]]:
        rows, all_of = self.axes.slice_of(self.foreseen.codes, job_class), self.foreseen
        columns = (all_of.speed, all_of.low, all_of.high, all_of.extrapolated, all_of.samples)
        values = zip(*(column[rows].tolist() for column in (*columns, all_of.at)), strict=True)
        for place, value in zip(self._places(all_of.codes[rows]), values, strict=True):
            yield place, _forecast(*value)

    def _places(self, codes: Codes) -> list[Spot]:
        pools = self.axes.pools
        places = ((codes >> SIZE_BITS) % max(len(pools), 1)).tolist()
        return [
            (pools[at], gpus) for at, gpus in zip(places, (codes & SIZES).tolist(), strict=True)
        ]


def _forecast(
    speed: float, low: float, high: float, extrapolated: bool, samples: int, at: float
) -> Believed:
    """A model's word: planned on at its mean, for nobody claimed it."""
    belief = Belief(math.log(speed), math.log(high / low) / (2 * INTERVAL_SDS), samples, NOISE)
    found = planned(declared=None, belief=belief, contracts=0, measured_at=_moment(at))
    assert found is not None  # noqa: S101 - there is a belief
    source = EXTRAPOLATED if extrapolated else FORECAST
    return replace(found, samples_per_s=speed, measured=None, source=source)


def _scaled(said: Believed, factor: float) -> Believed:
    """The same, so many times as fast."""
    low, high = said.low, said.high
    return replace(
        said,
        samples_per_s=said.samples_per_s * factor,
        declared=None,
        low=None if low is None else low * factor,
        high=None if high is None else high * factor,
    )


def _joined(codes: Codes, more: Codes) -> Codes:
    """The codes that are in either, sorted as both are."""
    return np.sort(np.concatenate([codes, more[~_among(codes, more)]]), kind="stable")


def _among(codes: Codes, asked: Codes) -> NDArray[np.bool_]:
    """Which of those asked for are among the sorted codes, (n,)."""
    if not codes.size:
        return np.zeros(asked.size, dtype=bool)
    place = np.minimum(np.searchsorted(codes, asked), codes.size - 1)
    return np.asarray(codes[place] == asked)


def _taken(codes: Codes, values: Array, asked: Codes) -> tuple[Array, NDArray[np.bool_]]:
    """The values of the codes asked for, and where there is one."""
    if not codes.size:
        return np.full(asked.size, np.nan), np.zeros(asked.size, dtype=bool)
    place = np.minimum(np.searchsorted(codes, asked), codes.size - 1)
    return values[place], codes[place] == asked


def _moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)
