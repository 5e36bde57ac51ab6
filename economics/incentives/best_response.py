"""Sites that choose, in turn, how much they offer and at which reserve: where does it lead?

The sharing game of economics.md, section 7. Each site offers a share of its GPUs to everybody, at
its true reserve times a factor; what it keeps serves its own jobs only, at the true cost. Payoffs
are those of the market at true costs. Sites answer in turn with what pays them most, and three ends
are told apart: an *equilibrium*, when in a whole sweep nobody could gain; a *cycle*, when the sites
come back to an earlier profile (its range is reported, and it is never called an equilibrium); and
*unfinished*, when the sweeps ran out.

Divisible books are priced at the duals of the welfare programme (the Owen point), which one solve
gives. Where duals are not unique these are the solver's, while a round takes those of its price
rule. Books with whole gangs are priced by that rule, which is slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from economics.book import Book
from economics.incentives.offers import OfferGame, Profile
from economics.market import Array

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
RESERVES = (1.0, 1.25, 1.5, 2.0)
SWEEPS = 12
WORTHWHILE = 1e-7  # gain below this, times the size of the welfare, is solver rounding

EQUILIBRIUM, CYCLE, UNFINISHED = "equilibrium", "cycle", "unfinished"


@dataclass(frozen=True, slots=True)
class Step:
    """One site's answer to what the others do."""

    sweep: int  # from 1
    site: str
    share: float  # of its GPUs on offer, 0..1
    reserve: float  # times its true reserve
    payoff: float  # credits per round, at true costs
    welfare: float  # credits per round, of all sites


@dataclass(frozen=True, slots=True)
class Stand:
    """What one site does at the end of a path, or over its cycle, and what it earns."""

    site: str
    share: tuple[float, float]  # least and most; equal at an equilibrium
    reserve: tuple[float, float]
    payoff: tuple[float, float]  # credits per round
    full_sharing: float  # credits per round if everybody offered all at true reserves


@dataclass(frozen=True, slots=True)
class Path:
    """A best-response path. Ranges are points at an equilibrium."""

    outcome: str  # equilibrium, cycle or unfinished
    sweeps: int  # made
    period: int  # sweeps of the cycle; 0 when there is none
    steps: tuple[Step, ...]  # only answers that changed something
    stands: tuple[Stand, ...]  # of the equilibrium, of the cycle, or of the last profile
    full_sharing: float  # welfare if everybody offered all at true reserves, credits per round
    welfare_ratio: tuple[float, float]  # least and most: welfare over that of full sharing

    @property
    def equilibrium(self) -> tuple[Stand, ...] | None:
        """What everybody does at the equilibrium; None unless one was found."""
        return self.stands if self.outcome == EQUILIBRIUM else None


def best_response(
    book: Book,
    *,
    shares: Sequence[float] = SHARES,
    reserves: Sequence[float] = RESERVES,
    sweeps: int = SWEEPS,
    seed: int | None = None,
) -> Path:
    """Let the sites answer each other in turn until nobody moves, they go round, or sweeps end.

    Without a seed everybody starts by offering all at true reserves and answers by name; a seed
    draws the first profile and the order. A site moves only to what pays strictly more; among
    equals it prefers the larger share, then the lower reserve.
    """
    game = OfferGame.of(book)
    options = _options(shares, reserves)
    profile, order = _start(game.sites, options, seed)
    walk = _Walk(game, options, book.sites)
    seen = {profile: 0}
    trail = [profile]
    steps: list[Step] = []
    for sweep in range(1, sweeps + 1):
        profile, made = walk.swept(profile, order, sweep)
        steps += made
        if not made:
            return walk.path(EQUILIBRIUM, sweep, (profile,), steps)
        first = seen.get(profile)
        if first is not None:
            period = sweep - first
            inside = (*_within(trail[first], steps, first, book.sites),)
            return walk.path(CYCLE, sweep, inside, steps, period=period)
        seen[profile] = sweep
        trail.append(profile)
    return walk.path(UNFINISHED, sweeps, (profile,), steps)


def _options(shares: Sequence[float], reserves: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """What a site may do, best liked first: (share, reserve factor). Nothing offered is one."""
    chosen = sorted(set(shares), reverse=True)
    return tuple(
        dict.fromkeys(
            (share, factor if share else 1.0)
            for share, factor in product(chosen, sorted(set(reserves)))
        )
    )


def _start(
    sites: int, options: Sequence[tuple[float, float]], seed: int | None
) -> tuple[Profile, list[int]]:
    if seed is None:
        return ((1.0, 1.0),) * sites, list(range(sites))
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(options), sites).tolist()
    return tuple(options[at] for at in drawn), random.permutation(sites).tolist()


def _within(
    profile: Profile, steps: Sequence[Step], first: int, names: Sequence[str]
) -> list[Profile]:
    """The profiles passed after the sweep `first`, which ended at `profile`."""
    passed = [profile]
    for step in steps:
        if step.sweep > first:
            at = names.index(step.site)
            passed.append((*passed[-1][:at], (step.share, step.reserve), *passed[-1][at + 1 :]))
    return passed


@dataclass(frozen=True, slots=True)
class _Walk:
    """The players, and what they may do."""

    game: OfferGame
    options: tuple[tuple[float, float], ...]
    names: tuple[str, ...]

    def swept(
        self, profile: Profile, order: Sequence[int], sweep: int
    ) -> tuple[Profile, list[Step]]:
        """Every site answers once; the profile after, and the answers that changed it."""
        made = []
        for site in order:
            if not self.game.sells[site]:
                continue
            answer = self._answer(profile, site)
            if answer != profile[site]:
                profile = (*profile[:site], answer, *profile[site + 1 :])
                payoff = self.game.payoffs(profile)
                made.append(
                    Step(
                        sweep,
                        self.names[site],
                        *answer,
                        payoff=float(payoff[site]),
                        welfare=float(payoff.sum()),
                    )
                )
        return profile, made

    def _answer(self, profile: Profile, site: int) -> tuple[float, float]:
        """What pays this site most while the others stay; what it does now among equals."""
        now = self.game.payoffs(profile)
        chosen, most = profile[site], float(now[site])
        worthwhile = WORTHWHILE * max(1.0, abs(float(now.sum())))
        for option in self.options:
            tried = self.game.payoffs((*profile[:site], option, *profile[site + 1 :]))
            if tried[site] > most + worthwhile:
                chosen, most = option, float(tried[site])
        return chosen

    def path(
        self,
        outcome: str,
        sweeps: int,
        profiles: Sequence[Profile],
        steps: list[Step],
        *,
        period: int = 0,
    ) -> Path:
        full = self.game.payoffs(((1.0, 1.0),) * self.game.sites)
        payoff = np.array([self.game.payoffs(profile) for profile in profiles])  # (T, N)
        doing = np.array(profiles)  # (T, N, 2)
        optimum = float(full.sum())
        total = payoff.sum(axis=1)
        return Path(
            outcome=outcome,
            sweeps=sweeps,
            period=period,
            steps=tuple(steps),
            stands=tuple(
                Stand(
                    site=name,
                    share=_range(doing[:, at, 0]),
                    reserve=_range(doing[:, at, 1]),
                    payoff=_range(payoff[:, at]),
                    full_sharing=float(full[at]),
                )
                for at, name in enumerate(self.names)
            ),
            full_sharing=optimum,
            welfare_ratio=_range(total / optimum) if optimum > 0 else (1.0, 1.0),
        )


def _range(values: Array) -> tuple[float, float]:
    return float(values.min()), float(values.max())
