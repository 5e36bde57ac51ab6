"""The market when every site offers only part of its GPUs, at a reserve of its choice.

Each pool is two: the part on offer, at the reserve asked, and the part kept, at the true reserve
and for the jobs of its own site. The programme is written once; a profile changes limits and gains.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import highspy
import numpy as np
from scipy.sparse import csc_array

from economics import accounts
from economics.book import Book
from economics.clearing.program import Program, program_of
from economics.clearing.reference import award_by_reference
from economics.clearing.solver import WORTH
from economics.errors import NotCleared
from economics.market import Array, Market, Mask
from economics.pricing import Wish
from economics.sharing.warm import OPTIONS

Profile = tuple[tuple[float, float], ...]  # (share on offer, factor on the reserve) of each site


@dataclass(frozen=True, slots=True)
class OfferGame:
    """What each site earns at a profile. P pools: those on offer first, then those kept."""

    split: Market  # 2P pools, as if everything were on offer and everything kept
    standing: Standing | None  # the programme of `split`; None where gangs are whole
    sites: int  # N
    sells: Mask  # (N,) whether the site has GPUs at all
    nodes: int
    known: dict[Profile, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, book: Book) -> OfferGame:
        """The game of a book's sites. Prices start afresh: no anchor, no cap, no epsilon."""
        market = book.market
        sells = np.bincount(market.owner, weights=market.capacity, minlength=market.sites) > 0
        split = _split(market)
        standing = Standing(program_of(split)) if split.divisible and split.columns else None
        return cls(split, standing, market.sites, sells, book.rules.nodes)

    def payoffs(self, profile: Profile) -> Array:
        """Credits per round each site has at true costs, (N,)."""
        if profile not in self.known:
            self.known[profile] = self._payoffs(profile)
        return self.known[profile]

    def _payoffs(self, profile: Profile) -> Array:
        share, factor = np.array(profile).T  # (N,) each
        split = self.split
        half = split.pools // 2
        offered = np.arange(split.pools) < half
        capacity = split.capacity * np.where(offered, share[split.owner], 1 - share[split.owner])
        reserve = split.reserve * np.where(offered, factor[split.owner], 1.0)
        if self.standing is not None:
            payoff, used = self.standing.owen(capacity, _gain(split, reserve), self.sites)
        else:
            payoff, used = self._ruled(replace(split, capacity=capacity, reserve=reserve))
        # The market counts the reserve that is asked as a cost; only the true one is.
        above = (reserve - split.reserve) * used
        return payoff + np.bincount(split.owner, weights=above, minlength=self.sites)

    def _ruled(self, asked: Market) -> tuple[Array, Array]:
        """The same by the price rule and the core repair of a round."""
        award = award_by_reference(asked, nodes=self.nodes)
        no_anchor = np.full(asked.pools, np.nan)
        rent = award.rents(Wish(previous=no_anchor, seller_share=0.5, epsilon=0.0))
        paid = (asked.reserve + rent)[asked.pool] * asked.gpu_hours * award.share
        payoff = accounts.site_payoffs(asked, award.share, paid)
        mended = award.repair(payoff, rent, 1e-7 * max(1.0, award.welfare))
        return payoff + mended.transfer, accounts.used_hours(asked, award.share)


class Standing:
    """The programme kept in the solver's memory, with other limits of pools and other gains.

    Every solve starts from the basis of the programme as it was given, so that a profile has the
    same digits whatever was asked before.
    """

    def __init__(self, program: Program) -> None:
        largest = abs(program.matrix).max(axis=1).toarray().ravel()
        self._row = 1.0 / np.where(largest > 0, largest, 1.0)
        spread = float(np.abs(program.gain).sum())
        self._worth = WORTH / spread if spread > 0 else 1.0
        self._program = program
        self._model = highspy.Highs()  # type: ignore[no-untyped-call]
        for name, option in OPTIONS.items():
            self._model.setOptionValue(name, option)
        if self._model.passModel(self._lp()) == highspy.HighsStatus.kError:
            raise NotCleared("the solver refused the model")
        self._run()
        self._first = self._model.getBasis()

    def owen(self, capacity: Array, gain: Array, sites: int) -> tuple[Array, Array]:
        """The Owen point, (N,) credits, and GPU-hours used, at these capacities and gains."""
        program, pools = self._program, np.arange(capacity.size, dtype=np.int32)
        high = capacity * self._row[: capacity.size]
        self._model.clearSolver()
        self._model.changeRowsBounds(  # type: ignore[attr-defined]
            pools.size, pools, np.full(pools.size, -np.inf), high
        )
        columns = np.arange(gain.size, dtype=np.int32)
        self._model.changeColsCost(columns.size, columns, -gain * self._worth)
        self._model.setBasis(self._first)
        self._run()
        solution = self._model.getSolution()
        limit = np.append(capacity, program.limit[capacity.size :])
        worth = -np.array(solution.row_dual) * self._row / self._worth * limit
        used: Array = program.matrix[: capacity.size] @ np.array(solution.col_value)
        payoff = np.bincount(program.owner, weights=worth, minlength=sites).astype(np.float64)
        return payoff, used

    def _lp(self) -> highspy.HighsLp:
        program, lp = self._program, highspy.HighsLp()
        matrix = csc_array(program.matrix.multiply(self._row[:, None]))
        rows, variables = program.matrix.shape
        lp.num_col_, lp.num_row_ = variables, rows
        lp.col_cost_ = -program.gain * self._worth
        lp.col_lower_, lp.col_upper_ = np.zeros(variables), np.full(variables, np.inf)
        lp.row_lower_, lp.row_upper_ = np.full(rows, -np.inf), program.limit * self._row
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = matrix.indptr
        lp.a_matrix_.index_ = matrix.indices
        lp.a_matrix_.value_ = matrix.data
        return lp

    def _run(self) -> None:
        self._model.run()
        status = self._model.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise NotCleared(self._model.modelStatusToString(status).lower())


def _gain(market: Market, reserve: Array) -> Array:
    """Credits a share of 1 of each column creates at these reserves, (K,)."""
    gain: Array = market.value - reserve[market.pool] * market.gpu_hours - market.cost
    return gain


def _split(market: Market) -> Market:
    """Every pool twice; columns of the second half are those of its own site's jobs."""
    own = np.flatnonzero(market.home[market.job] == market.owner[market.pool])
    column = np.append(np.arange(market.columns), own)
    pool = np.append(market.pool, market.pool[own] + market.pools)
    order = np.lexsort((market.gpu_hours[column], pool, market.job[column]))
    column, pool = column[order], pool[order]
    return replace(
        market,
        capacity=np.tile(market.capacity, 2),
        reserve=np.tile(market.reserve, 2),
        ceiling=np.full(2 * market.pools, np.inf),
        owner=np.tile(market.owner, 2),
        pool=pool,
        **{name: getattr(market, name)[column] for name in _COLUMNS},
    )


_COLUMNS = ("job", "gpu_hours", "msamples", "value", "cost", "stays", "speed", "fee")
