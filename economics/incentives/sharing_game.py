"""How much would small clouds share at a given price? A game on the federation's exact chain.

A machine-hour of the public cloud costs 1, one borrowed from a partner `price_ratio`, and the
lender is paid what the borrower pays. With P bought outside, O borrowed and I lent (long-run means
of `sharing_chain.py`) a cloud's cost, saving and utility are

    cost_i    = P_i + price_ratio (O_i - I_i)
    saving_i  = cost_i alone - cost_i
    utility_i = saving_i / (utilisation_i - utilisation_i alone) ^ gamma        0 <= gamma <= 1

as in SC-Share (Lin, Pal, Paolieri and Golubchik, ICDCS 2017). At gamma 0 a cloud wants savings
alone, at gamma 1 savings for each unit by which its own machines are busier. Above 0 a cloud whose
machines are no busier than alone has a utility of zero: who lends nothing earns nothing from the
federation. (With the quotient's limit, infinity, instead, every cloud would stop lending first.)

The clouds choose their shares in turn, in the order given, each the best reply to what the others
offer at that moment, among all its shares; it stays where it is unless another share is better by
more than GAINED, and takes the smallest of equally good ones. A round in which nobody moves is an
equilibrium. The profiles at the ends of the rounds are remembered, and one that comes back is a
cycle, which is reported as such, with the range of its savings. Efficiency is the welfare of a
profile over the largest of all profiles: both are alpha-fair means of the savings, so that
efficiency is in the same unit for every alpha. These choices of the order, of utility at zero and
of efficiency are the ones that give the two-site table of the design notes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from economics.incentives.sharing_chain import BadFederation, Cloud, Use, use_of

Kind = Literal["equilibrium", "cycle", "stopped"]
Profile = tuple[int, ...]

GAINED = 1e-9  # of a public machine; a smaller gain moves nobody
ROUNDS = 100
MOST_PROFILES = 2_000  # the best welfare needs a chain for each


@dataclass(frozen=True, slots=True)
class Standing:
    """A profile of shares and what it is worth; one entry for each cloud."""

    profile: Profile
    savings: tuple[float, ...]  # public machines
    utilities: tuple[float, ...]
    efficiency: float | None  # None: no profile has a welfare above zero, or this one has none


@dataclass(frozen=True, slots=True)
class GamePath:
    """Where best replies led. `profile`, `savings` and `efficiency` are None in a cycle."""

    kind: Kind
    profile: Profile | None
    savings: tuple[float, ...] | None
    efficiency: float | None
    alone: tuple[float, ...]  # costs without a federation, public machines
    price_ratio: float
    gamma: float
    alpha: float
    visited: tuple[Profile, ...]  # from the start, after each move
    cycle: tuple[Standing, ...]  # empty unless `kind` is "cycle"

    @property
    def savings_range(self) -> tuple[tuple[float, float], ...]:
        """Least and largest saving of each cloud over the cycle, or at the profile."""
        over = [s.savings for s in self.cycle] or [self.savings or ()]
        return tuple((min(each), max(each)) for each in zip(*over, strict=True))

    def document(self) -> dict[str, Any]:
        """Everything as JSON would have it, `savings_range` too; an infinite alpha is "inf"."""
        alpha = self.alpha if math.isfinite(self.alpha) else "inf"
        return {**asdict(self), "alpha": alpha, "savings_range": self.savings_range}


@dataclass(frozen=True, slots=True)
class Trail:
    """Best replies of any game: the profiles after each move, and how it ended."""

    kind: Kind
    visited: tuple[Profile, ...]
    cycle: tuple[Profile, ...]  # every profile of one lap; empty unless `kind` is "cycle"


def best_replies(
    choices: Sequence[Sequence[int]],
    utility: Callable[[int, Profile], float],
    start: Sequence[int],
    *,
    rounds: int = ROUNDS,
) -> Trail:
    """Let the players reply in turn until nobody moves, a profile comes back, or `rounds` end.

    `choices[i]` are player i's, ascending; `utility(i, profile)` is what a profile is to it.
    """
    profile = tuple(start)
    visited, ends = [profile], {profile: 0}
    for _ in range(rounds):
        before = profile
        for player, own in enumerate(choices):
            moved = _reply(player, own, utility, profile)
            if moved != profile:
                visited.append(moved)
                profile = moved
        if profile == before:
            return Trail("equilibrium", tuple(visited), ())
        if profile in ends:
            return Trail("cycle", tuple(visited), tuple(visited[ends[profile] + 1 :]))
        ends[profile] = len(visited) - 1
    return Trail("stopped", tuple(visited), ())


def _reply(
    player: int,
    choices: Sequence[int],
    utility: Callable[[int, Profile], float],
    profile: Profile,
) -> Profile:
    """The profile after one player's best reply."""
    replies = [(*profile[:player], own, *profile[player + 1 :]) for own in choices]
    worth = [utility(player, reply) for reply in replies]
    best = max(worth)
    if utility(player, profile) >= best - GAINED:
        return profile
    return next(r for r, w in zip(replies, worth, strict=True) if w >= best - GAINED)


@dataclass(frozen=True, slots=True)
class Federation:
    """Clouds, and the chains of the profiles asked for so far."""

    clouds: tuple[Cloud, ...]
    _uses: dict[Profile, Use] = field(default_factory=dict, repr=False, compare=False)

    def use(self, profile: Profile) -> Use:
        """Long-run means at a profile; raises as `use_of` does."""
        if profile not in self._uses:
            self._uses[profile] = use_of(self.clouds, profile)
        return self._uses[profile]

    @property
    def choices(self) -> tuple[range, ...]:
        return tuple(range(cloud.machines + 1) for cloud in self.clouds)

    @property
    def nothing(self) -> Profile:
        """The profile of clouds that stay alone."""
        return (0,) * len(self.clouds)

    def profiles(self) -> tuple[Profile, ...]:
        """All of them; raises BadFederation when they are more than MOST_PROFILES."""
        if (count := math.prod(len(own) for own in self.choices)) > MOST_PROFILES:
            raise BadFederation(f"{count} profiles of shares, more than {MOST_PROFILES}")
        return tuple(itertools.product(*self.choices))


@dataclass(frozen=True, slots=True)
class Terms:
    """What turns the use of machines into utility and welfare."""

    price_ratio: float  # of a borrowed machine over a public one
    gamma: float = 0.0
    alpha: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.price_ratio <= 1:
            raise BadFederation("a price ratio is between 0 and 1: dearer, nobody would borrow")
        if not 0 <= self.gamma <= 1:
            raise BadFederation("gamma is between 0 and 1")
        if not self.alpha >= 0:
            raise BadFederation("alpha is at least 0")

    def costs(self, use: Use) -> tuple[float, ...]:
        """Public machines each cloud pays for, or could buy for what it pays."""
        return tuple(
            public + self.price_ratio * (borrowed - lent)
            for public, borrowed, lent in zip(use.public, use.borrowed, use.lent, strict=True)
        )

    def savings(self, federation: Federation, profile: Profile) -> tuple[float, ...]:
        alone = self.costs(federation.use(federation.nothing))
        shared = self.costs(federation.use(profile))
        return tuple(before - after for before, after in zip(alone, shared, strict=True))

    def utilities(self, federation: Federation, profile: Profile) -> tuple[float, ...]:
        """Savings, over the further utilisation to the power gamma where gamma is not 0."""
        savings = self.savings(federation, profile)
        if self.gamma == 0:
            return savings
        alone = federation.use(federation.nothing).utilisation
        busier = federation.use(profile).utilisation
        return tuple(
            saving / (now - before) ** self.gamma if now - before > GAINED else 0.0
            for saving, now, before in zip(savings, busier, alone, strict=True)
        )

    def welfare(self, savings: Sequence[float]) -> float | None:
        """Alpha-fair mean of the savings: 0 their mean, 1 the geometric one, inf the least.

        None where a saving is negative and alpha above 0: fairness says nothing about losses.
        """
        each = np.asarray(savings, dtype=float)
        if self.alpha == 0:
            return float(each.mean())
        each = np.where(np.abs(each) <= GAINED, 0.0, each)
        least = float(each.min())
        if least < 0:
            return None
        if least == 0 and self.alpha >= 1:
            return 0.0
        if math.isinf(self.alpha):
            return least
        if self.alpha == 1:
            return float(np.exp(np.log(each).mean()))
        power = 1.0 - self.alpha
        scale = float(each.max()) or 1.0
        return scale * float(((each / scale) ** power).mean() ** (1.0 / power))


def sharing_game(
    clouds: Sequence[Cloud],
    price_ratio: float,
    *,
    gamma: float = 0.0,
    alpha: float = 0.0,
    start: Sequence[int] | None = None,
    rounds: int = ROUNDS,
) -> GamePath:
    """Best replies from `start` (default: every cloud offers one machine) at one price.

    Raises BadFederation for clouds, shares or terms that make no game, and TooManyStates when the
    exact chain of full sharing would be too large.
    """
    terms = Terms(price_ratio, gamma, alpha)
    return _played(Federation(tuple(clouds)), terms, start, rounds)


def price_sweep(
    clouds: Sequence[Cloud],
    price_ratios: Sequence[float],
    *,
    gamma: float = 0.0,
    alpha: float = 0.0,
    start: Sequence[int] | None = None,
    rounds: int = ROUNDS,
) -> tuple[GamePath, ...]:
    """The same game at each price; each profile's chain is solved once for all of them."""
    federation = Federation(tuple(clouds))
    return tuple(
        _played(federation, Terms(ratio, gamma, alpha), start, rounds) for ratio in price_ratios
    )


def _played(
    federation: Federation, terms: Terms, start: Sequence[int] | None, rounds: int
) -> GamePath:
    begins = tuple(start) if start is not None else (1,) * len(federation.clouds)
    everything = tuple(cloud.machines for cloud in federation.clouds)
    for profile in (everything, begins):  # refuse what is too large before the first move
        federation.use(profile)
    best = _best(federation, terms)
    trail = best_replies(
        federation.choices,
        lambda player, profile: terms.utilities(federation, profile)[player],
        begins,
        rounds=rounds,
    )
    last = None
    if trail.kind != "cycle":
        last = _standing(federation, terms, best, trail.visited[-1])
    return GamePath(
        kind=trail.kind,
        profile=last.profile if last else None,
        savings=last.savings if last else None,
        efficiency=last.efficiency if last else None,
        alone=terms.costs(federation.use(federation.nothing)),
        price_ratio=terms.price_ratio,
        gamma=terms.gamma,
        alpha=terms.alpha,
        visited=trail.visited,
        cycle=tuple(_standing(federation, terms, best, profile) for profile in trail.cycle),
    )


def _best(federation: Federation, terms: Terms) -> float:
    """Largest welfare of all profiles; staying alone has none, so it is not negative."""
    found = (terms.welfare(terms.savings(federation, p)) for p in federation.profiles())
    return max(welfare for welfare in found if welfare is not None)


def _standing(federation: Federation, terms: Terms, best: float, profile: Profile) -> Standing:
    savings = terms.savings(federation, profile)
    welfare = terms.welfare(savings)
    return Standing(
        profile=profile,
        savings=savings,
        utilities=terms.utilities(federation, profile),
        efficiency=welfare / best if welfare is not None and best > GAINED else None,
    )
