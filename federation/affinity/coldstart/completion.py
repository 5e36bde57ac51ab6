"""Speeds of pairs that never met: low-rank completion of the class x pool matrix.

In logarithms the speed of class c on pool p is

    y_cp = mean + level_c + pool_p + sum_r u_cr v_pr + kin effects + noise

Level and pool are the one-factor model (class speed times pool speed). What goes beyond it is
shared by kin: classes of a family, near in batch or in GPUs, deviate alike on a pool; all classes
of so many GPUs share what the pool's hosts do at that size. The low-rank part is the matrix
completion of Paragon and Quasar (Delimitrou and Kozyrakis, ASPLOS 2013 and 2014) and of Gavel's
throughput estimator (Narayanan and others, OSDI 2020), here with Gaussian u and the directions v
first taken from the singular vectors of the matrix completed by kin, then found by turns with u,
as alternating least squares does. Its rank is that of least error on cells left out in turn; all
variances, the regularisation, are those of greatest likelihood (`components`). Every cell so has
its own spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from federation.affinity.coldstart.blend import Prior, prior_or_none
from federation.affinity.coldstart.components import Array, Effects, condition, learn
from federation.affinity.coldstart.kinship import (
    Kind,
    near_gpus,
    near_size,
    same_family,
    same_gpus,
)

RANKS = (0, 1, 2)  #: ranks tried beyond the one-factor model
FOLDS = 4
FACTORS = 2  #: effects along the directions: of a class, and of its kin
BLOCK = 32  #: classes completed at once
TURNS = 8  #: times the directions are turned
LEARNT_FROM = 600  #: cells the variances are learnt from
LARGEST = 2000  #: cells that inform one prediction

Pair = tuple[int, int]  #: a class and a pool by their places


@dataclass(frozen=True, slots=True)
class Cell:
    """A measured rate (geometric mean) of a class on a pool."""

    name: str  #: of the class
    pool: str
    rate: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(
                f"The rate of {self.name} on {self.pool} is {self.rate}: "
                "a rate is a positive, finite number. A pair that does not run has no cell."
            )


@dataclass(frozen=True, slots=True)
class Completion:
    """The completed matrix; ask it cell by cell."""

    kinds: Mapping[str, Kind]
    names: Mapping[str, int]
    pools: Mapping[str, int]
    seen: Mapping[tuple[str, str], int]  #: (family, pool): cells behind
    rank: int
    errors: Mapping[int, float]  #: mean absolute log error left out, by rank; empty: not tried
    effects: Mapping[str, Effects[Pair]]  #: by family

    def prior(self, name: str, pool: str) -> Prior | None:
        """What kin say of a pair; None when nobody of its family or nothing on the pool ran."""
        return self.priors([(name, pool)])[0]

    def priors(self, pairs: Sequence[tuple[str, str]]) -> list[Prior | None]:
        """As `prior`, for many pairs at once, in their order."""
        found: dict[tuple[str, str], Prior] = {}
        for family, asked in self._asked(pairs).items():
            means, spreads = self.effects[family].predict([self._place(pair) for pair in asked])
            for pair, mean, spread in zip(asked, means.tolist(), spreads.tolist(), strict=True):
                said = prior_or_none(mean, spread, "neighbours", self._behind(*pair))
                found |= {} if said is None else {pair: said}
        return [found.get(pair) for pair in pairs]

    def _asked(self, pairs: Sequence[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
        """Those of the pairs that something is known of, by family."""
        asked: dict[str, list[tuple[str, str]]] = {}
        for name, pool in dict.fromkeys(pairs):
            if (
                name in self.names
                and pool in self.pools
                and self.kinds[name].family in self.effects
            ):
                asked.setdefault(self.kinds[name].family, []).append((name, pool))
        return asked

    def _place(self, pair: tuple[str, str]) -> Pair:
        return self.names[pair[0]], self.pools[pair[1]]

    def _behind(self, name: str, pool: str) -> int:
        family = self.kinds[name].family
        return sum(n for (seen, where), n in self.seen.items() if pool == where or seen == family)


def complete(
    cells: Sequence[Cell], kinds: Mapping[str, Kind], *, ranks: Sequence[int] = RANKS
) -> Completion:
    """Learn the matrix from its measured cells; equal whatever their order.

    `kinds` names every class asked about later, measured or not. ValueError when there is no
    cell, or one of a class without a kind.
    """
    with threadpool_limits(limits=1):  # last digits of sums must not depend on threads
        return _completed(_table(cells, kinds), cells, kinds, ranks)


def _completed(
    table: _Table, cells: Sequence[Cell], kinds: Mapping[str, Kind], ranks: Sequence[int]
) -> Completion:
    errors = _errors(table, [rank for rank in ranks if rank < len(table.pools)])
    rank = min(errors, key=lambda tried: (errors[tried], tried)) if errors else 0
    sample = _sample(table.items, LARGEST)
    effects = _few(table, _fitted(table, sample, [rank])[rank])
    seen: dict[tuple[str, str], int] = {}
    for cell in cells:
        key = kinds[cell.name].family, cell.pool
        seen[key] = seen.get(key, 0) + 1
    names = {name: place for place, name in enumerate(table.names)}
    pools = {pool: place for place, pool in enumerate(table.pools)}
    return Completion(dict(kinds), names, pools, seen, rank, errors, _by_family(table, effects))


@dataclass(frozen=True, slots=True)
class _Table:
    names: tuple[str, ...]
    pools: tuple[str, ...]
    kinds: tuple[Kind, ...]  # of the names
    items: tuple[Pair, ...]  # of the cells, sorted
    values: Array  # (n,) logarithms


def _table(cells: Sequence[Cell], kinds: Mapping[str, Kind]) -> _Table:
    if not cells:
        raise ValueError("No class was measured on any pool: there is nothing to complete.")
    if strange := sorted({cell.name for cell in cells} - set(kinds)):
        raise ValueError(f"Nothing says what kind of class {strange[0]} is: name its family.")
    names = tuple(sorted(kinds))
    pools = tuple(sorted({cell.pool for cell in cells}))
    row = {name: place for place, name in enumerate(names)}
    column = {pool: place for place, pool in enumerate(pools)}
    ordered = sorted(cells, key=lambda cell: (row[cell.name], column[cell.pool], cell.rate))
    items = tuple((row[cell.name], column[cell.pool]) for cell in ordered)
    values = np.array([math.log(cell.rate) for cell in ordered])
    return _Table(names, pools, tuple(kinds[name] for name in names), items, values)


def _errors(table: _Table, ranks: Sequence[int]) -> dict[int, float]:
    """Mean absolute log error of the cells left out in turn, by rank; empty when none can be."""
    if len(ranks) < 2:
        return {}
    tried = _sample(table.items, LEARNT_FROM)
    folds = dict(zip(tried, _folds([table.items[place] for place in tried]), strict=True))
    missed: dict[int, list[float]] = {rank: [] for rank in ranks}
    for fold in range(FOLDS):
        kept = [place for place, own in folds.items() if own != fold]
        left = [place for place, own in folds.items() if own == fold]
        if not left:
            continue
        for rank, effects in _fitted(table, kept, ranks).items():
            means = effects.means([table.items[place] for place in left])
            missed[rank] += np.abs(means - table.values[left]).tolist()
    return {rank: math.fsum(gaps) / len(gaps) for rank, gaps in missed.items() if gaps}


def _folds(items: Sequence[Pair]) -> list[int]:
    """The fold of each cell: those of a class take turns; a class's only cell stays (-1)."""
    cells: dict[int, list[int]] = {}
    for place, (row, _) in enumerate(items):
        cells.setdefault(row, []).append(place)
    folds = [-1] * len(items)
    for turn, places in enumerate(cells.values()):
        for step, place in enumerate(places):
            folds[place] = (turn + step) % FOLDS if len(places) > 1 else -1
    return folds


def _fitted(table: _Table, kept: Sequence[int], ranks: Sequence[int]) -> dict[int, Effects[Pair]]:
    """Effects learnt from the cells kept, by rank."""
    items = [table.items[place] for place in kept]
    values = table.values[kept]
    sample = _sample(items, LEARNT_FROM)
    kernels = _kin(table.kinds, len(table.pools))
    plain = learn(kernels, items, values, sample=sample)
    fitted = {0: plain}
    for rank in ranks:
        if rank:
            fitted[rank] = _turned(table, plain, kept, rank)
    return {rank: fitted[rank] for rank in ranks}


def _turned(table: _Table, plain: Effects[Pair], kept: Sequence[int], rank: int) -> Effects[Pair]:
    """Effects with so many directions: learnt along the first guess, turned by regression on
    what they leave, and learnt again along the last."""
    items, values = list(plain.items), table.values[kept]
    kin = _kin(table.kinds, len(table.pools))
    directions = _directions(plain, table, rank)
    first = _along(table, kin, directions, kept)
    fixed = _gathered(table, kin, first.weights[:-FACTORS])
    factors = _factors(table.kinds, directions.T @ directions)
    [shared] = _gathered(table, factors, first.weights[-FACTORS:])
    doubt = first.noise + float(first.weights[len(kin) - 1])  # the last of kin is a cell's own
    for _ in range(TURNS):
        factor = replace(shared, columns=directions.T @ directions)
        kernels = (*fixed, factor)
        ones = np.ones(len(kernels))
        effects = condition(replace(first, kernels=kernels, weights=ones), items, values)
        directions = _turn(effects, shared.rows[0], directions, doubt)
    return _along(table, kin, directions, kept)


def _turn(effects: Effects[Pair], rows: Array, directions: Array, doubt: float) -> Array:
    """Directions (R, P) by ridge regression, pool by pool, of what the cells leave when all but
    the low-rank part is taken off, on the weights of their classes; `doubt` is the variance of
    what is a cell's own."""
    r, p = np.array(effects.items).T
    weights = rows[:, r] @ (directions[:, p].T * effects.solved[:, None])  # (C, R)
    left = (weights[r] * directions[:, p].T).sum(axis=1) + doubt * effects.solved
    ridge = doubt * np.eye(len(directions))
    turned = np.zeros_like(directions)
    for pool in range(directions.shape[1]):
        own = weights[r[p == pool]]
        turned[:, pool] = np.linalg.solve(own.T @ own + ridge, own.T @ left[p == pool])
    return _scaled(turned)


def _scaled(directions: Array) -> Array:
    """So that they give a pool a variance of 1 on average."""
    mean = float((directions**2).sum()) / directions.shape[1]
    return np.asarray(directions / math.sqrt(max(mean, 1e-12)))


def _along(
    table: _Table, kin: Sequence[_Product], directions: Array, kept: Sequence[int]
) -> Effects[Pair]:
    """Effects with these directions, learnt from the cells kept."""
    items = [table.items[place] for place in kept]
    kernels = [*kin, *_factors(table.kinds, directions.T @ directions)]
    return learn(kernels, items, table.values[kept], sample=_sample(items, LEARNT_FROM))


def _sample(items: Sequence[Pair], most: int) -> list[int]:
    """Places of about so many cells at most: whole classes, evenly taken."""
    step = math.ceil(len(items) / most)
    chosen = set(sorted({row for row, _ in items})[::step])
    return [place for place, (row, _) in enumerate(items) if row in chosen]


def _by_family(table: _Table, effects: Effects[Pair]) -> dict[str, Effects[Pair]]:
    """What informs each family: all cells; of a table larger than LARGEST its own (so many of
    them at most) and as many of the others as the sample holds."""
    families = [table.kinds[row].family for row, _ in table.items]
    if len(table.items) <= LARGEST:
        return dict.fromkeys(sorted(set(families)), effects)
    found = {}
    others = _sample(table.items, LARGEST // 2)
    for family in sorted(set(families)):
        own = [place for place, of in enumerate(families) if of == family]
        own = [own[at] for at in _sample([table.items[place] for place in own], LARGEST)]
        places = sorted({*own, *others})
        items = [table.items[place] for place in places]
        found[family] = condition(effects, items, table.values[places])
    return found


def _kin(kinds: Sequence[Kind], pools: int) -> list[_Product]:
    """Effects of the level of a class, then of what a pool adds to it."""
    family, gpus = same_family(kinds, kinds), same_gpus(kinds, kinds)
    size, count = near_size(kinds, kinds), near_gpus(kinds, kinds)
    alone = np.eye(len(kinds))
    every, each = np.ones((pools, pools)), np.eye(pools)
    level = [(family,), (size,), (count,), (size, count), (alone,)]
    deviation = [(), (family,), (size,), (count,), (size, count), (size, gpus), (gpus,), (alone,)]
    kernels = [_Product(rows, every) for rows in level]
    return kernels + [_Product(rows, each) for rows in deviation]


def _factors(kinds: Sequence[Kind], alike: Array) -> list[_Product]:
    """Effects that run along the directions: each class's own, and those its kin share."""
    alone = np.eye(len(kinds))
    return [_Product((rows,), alike) for rows in (alone, near_size(kinds, kinds))]


def _directions(effects: Effects[Pair], table: _Table, rank: int) -> Array:
    """(R, P): the first singular vectors of what remains of the completed matrix when level and
    pool are taken off, by their strength."""
    rows, pools = sorted({row for row, _ in effects.items}), len(table.pools)
    means = [
        effects.means([(row, pool) for row in some for pool in range(pools)])
        for some in _blocks(rows)
    ]
    matrix = np.concatenate(means).reshape(len(rows), pools)
    matrix -= matrix.mean(axis=1, keepdims=True)
    matrix -= matrix.mean(axis=0, keepdims=True)
    _, strength, vectors = np.linalg.svd(matrix, full_matrices=False)
    return _scaled(vectors[:rank] * strength[:rank, None])


@dataclass(frozen=True, slots=True)
class _Product:
    """The effect whose covariance is the product of those of the classes and that of the pools."""

    rows: tuple[Array, ...]  # each (C, C); none: the same for every class
    columns: Array  # (P, P)

    def __call__(self, own: Sequence[Pair], other: Sequence[Pair]) -> Array:
        r, p = np.array(own).T
        s, q = np.array(other).T
        found = self.columns[np.ix_(p, q)]
        for matrix in self.rows:
            found = found * matrix[np.ix_(r, s)]
        return np.asarray(found)

    def of_classes(self, count: int) -> Array:
        """(C, C): what the classes share of it."""
        return np.asarray(math.prod(self.rows, start=np.ones((count, count))))


def _blocks(rows: Sequence[int]) -> list[Sequence[int]]:
    return [rows[at : at + BLOCK] for at in range(0, len(rows), BLOCK)]


def _few(table: _Table, effects: Effects[Pair]) -> Effects[Pair]:
    """The same effects with as few kernels as there are matrices of pools: quicker to ask."""
    products = [kernel for kernel in effects.kernels if isinstance(kernel, _Product)]
    kernels = tuple(_gathered(table, products, effects.weights))
    return replace(effects, kernels=kernels, weights=np.ones(len(kernels)))


def _gathered(table: _Table, products: Sequence[_Product], weights: Array) -> list[_Product]:
    """The same covariance as few products: those of one matrix of pools added up."""
    columns = {id(product.columns): product.columns for product in products}
    rows = {key: np.zeros((len(table.kinds), len(table.kinds))) for key in columns}
    for product, weight in zip(products, weights, strict=True):
        rows[id(product.columns)] += weight * product.of_classes(len(table.kinds))
    return [_Product((rows[key],), matrix) for key, matrix in columns.items()]
