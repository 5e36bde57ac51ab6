"""All that is known of speeds nobody measured: kin, results, operators, data sheets, in one voice.

Neighbours and catalogue learn from the same leases, so they are no two voices. Where operations are
known the surer of them speaks; what the catalogue knows by a work's name alone is heard only where
kin are silent, for it knows nothing that they do not. Operators learn from timings of operators and
a data sheet from its maker, so these are blended with it by their variances; the data sheet only
where no result was learnt from. A gang size is told by kin of that size (`kinship.near_gpus`) and
by the catalogue's curve in the GPUs. Operators without a communication line for a size, and the
data sheet, take it as so many times one GPU and DOUBLING_SD wider for each doubling.

A cell that was measured itself is told by what others showed: its own leases are left out.

No voice passes the roof of the device, its peak over the operations of a sample, and nothing is
learnt from a cell that does. A class is told by the timings of its teachers alone: whoever could
add a network to them could move what they say. What cannot be learnt from is left out and said in
`Voices.silent`; the other voices speak on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from federation.affinity.coldstart.blend import Prior, believable, blend_known, prior_or_none
from federation.affinity.coldstart.catalogue import (
    Catalogue,
    Query,
    Result,
    roof,
    roofline,
    study,
)
from federation.affinity.coldstart.completion import Cell, Completion, complete
from federation.affinity.coldstart.devices import DEVICES, recognise
from federation.affinity.coldstart.kinship import Kind
from federation.affinity.coldstart.operators import (
    Exchange,
    OperatorModel,
    Timing,
    Unpredictable,
    fit_operators,
)
from federation.affinity.coldstart.profile import Profile
from federation.affinity.coldstart.tables import Row, on_same_device, results
from federation.affinity.posterior import COMMON, NOISE

DOUBLING_SD = 0.15  #: of the logarithm: a doubling of the GPUs that brings 1.7 to 2 times the speed
POOLS_APART = 0.1  #: deviation of the logarithm between two pools of one kind of GPU
Learnt = TypeVar("Learnt")


@dataclass(frozen=True, slots=True)
class Measured:
    """What leases of a class showed on one pool."""

    job_class: str
    column: str  #: its kind of GPU, as `column_of` names it
    gpus: int
    rate: float  #: samples/s of the gang
    leases: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A speed to be told. `own`: what leases of the very pool showed, which is left out."""

    job_class: str
    column: str
    gpus: int
    own: Measured | None = None


@dataclass(frozen=True, slots=True)
class Voices:
    """What was learnt; ask it for many speeds at once."""

    profiles: Mapping[str, Profile]
    rates: Mapping[tuple[str, str, int], tuple[Measured, ...]]  #: by class, column and GPUs
    completion: Completion | None
    counted: Catalogue | None  #: of works whose operations are known
    named: Catalogue | None  #: of works by their names
    operators: Mapping[str, OperatorModel]  #: by class
    table: tuple[Row, ...] = ()  #: speeds measured elsewhere
    silent: tuple[str, ...] = ()  #: voices that could not be learnt, each with why

    def priors(self, asked: Sequence[Asked]) -> list[Prior | None]:
        """What is known of each, in their order; None where nothing is."""
        unique = list(dict.fromkeys(asked))
        pairs = [(_name(one.job_class, one.gpus), one.column) for one in unique]
        kin: list[Prior | None] = [None] * len(pairs)
        if self.completion is not None:
            kin = self.completion.priors(pairs)
        told = self._of_results(unique)
        found = {one: self._prior(one, *both) for one, *both in zip(unique, kin, told, strict=True)}
        return [found[one] for one in asked]

    def _prior(self, asked: Asked, kin: Prior | None, told: Prior | None) -> Prior | None:
        profile = self.profiles[asked.job_class]
        if asked.own is not None:
            kin, told = self._of_others(asked, asked.own), None
        query = _query(asked.job_class, profile, asked.column, asked.gpus)
        sheet = None if query is None or told is not None else roofline(query)
        elsewhere = self._of_table(asked, profile)
        if profile.operations is None and (kin is not None or elsewhere is not None):
            told = None  # it learnt from the same, and knows no more
        learnt = min((one for one in (kin, told) if one), key=lambda one: one.log_sd, default=None)
        said = blend_known(
            learnt,
            self._of_operators(asked, profile),
            elsewhere,
            _grown(sheet, asked.gpus, 1),
        )
        return _under(None if query is None else roof(query), said)

    def _of_others(self, asked: Asked, own: Measured) -> Prior | None:
        """Kin without the cell's own leases: other pools of the kind, and all other cells."""
        every = self.rates.get((asked.job_class, asked.column, asked.gpus), ())
        others = [one for one in every if one is not own]
        left = None
        if self.completion is not None and every:
            left = left_out(
                self.completion, _name(asked.job_class, asked.gpus), asked.column, _mean(every)
            )
        if not others:
            return left
        leases = sum(one.leases for one in others)
        spread = math.hypot(NOISE / math.sqrt(leases), COMMON, POOLS_APART)
        return blend_known(left, prior_or_none(_mean(others), spread, "neighbours", leases))

    def _of_results(self, asked: Sequence[Asked]) -> list[Prior | None]:
        """What the catalogue of measured and public results says: by the operations of the work
        where they are known, else by its name."""
        queries = [
            _query(one.job_class, self.profiles[one.job_class], one.column, one.gpus)
            for one in asked
        ]
        found: list[Prior | None] = [None] * len(queries)
        for catalogue, counted in ((self.named, False), (self.counted, True)):
            places = {
                at: query if counted else replace(query, operations=None)
                for at, query in enumerate(queries)
                if query is not None and (query.operations is not None or not counted)
            }
            if catalogue is not None and places:
                told = catalogue.priors(list(places.values()))
                for at, said in zip(places, told, strict=True):
                    found[at] = said or found[at]
        return found

    def _of_table(self, asked: Asked, profile: Profile) -> Prior | None:
        """What was measured elsewhere on a device of the very name; nothing to do with leases."""
        one = on_same_device(
            self.table,
            work=profile.work,
            column=asked.column,
            batch=profile.batch,
            precision=profile.precision,
        )
        return _grown(one, asked.gpus, asked.gpus)

    def _of_operators(self, asked: Asked, profile: Profile) -> Prior | None:
        network = profile.network(asked.job_class)
        model = self.operators.get(asked.job_class)
        if model is None or network is None or profile.batch is None:
            return None
        at_size = model.prior(network, asked.column, asked.gpus, profile.batch)
        if at_size is not None:
            return at_size
        one = model.prior(network, asked.column, 1, profile.batch)
        return _grown(one, asked.gpus, asked.gpus)


def column_of(gpu: str) -> str:
    """The column of the matrix that a pool's GPUs belong to: its device, else its own name."""
    device = recognise(gpu)
    return gpu.lower() if device is None else device.name


def listen(
    profiles: Mapping[str, Profile],
    measured: Sequence[Measured],
    *,
    asked: Iterable[tuple[str, int]] = (),
    table: Sequence[Row] = (),
    teachers: Mapping[str, Sequence[str]] | None = None,
) -> Voices:
    """Learn from what was measured; what cannot be learnt is silent, and says why.

    `profiles` has an entry, empty where nothing is said, for each class that was measured or is
    asked about. `asked` are the classes and gang sizes that completion is asked about: it costs
    time and memory by the square of them. `table` holds speeds measured elsewhere. `teachers`:
    for each class whose operators may speak, the classes whose timings they are learnt from.
    """
    silent: list[str] = []
    rates: dict[tuple[str, str, int], list[Measured]] = defaultdict(list)
    for one in measured:
        if not _plausible(one, profiles[one.job_class]):
            continue
        rates[one.job_class, one.column, one.gpus].append(one)
    cells = {key: tuple(rows) for key, rows in sorted(rates.items())}
    own = [found for key, rows in cells.items() if (found := _result(profiles, key, rows))]
    counted = [one for one in own if one.query.operations is not None]
    named = [replace(one, query=replace(one.query, operations=None)) for one in own]
    elsewhere = results(table)
    return Voices(
        profiles=profiles,
        rates=cells,
        completion=_tried(silent, "neighbours", lambda: _completed(profiles, cells, asked)),
        counted=_tried(silent, "catalogue", lambda: _studied(counted)),
        named=_tried(silent, "catalogue", lambda: _studied([*named, *elsewhere])),
        operators=_taught(profiles, teachers or {}, silent),
        table=tuple(table),
        silent=tuple(silent),
    )


def _tried(silent: list[str], voice: str, learn: Callable[[], Learnt | None]) -> Learnt | None:
    """What was learnt; None, with why among the `silent`, where its numbers cannot be."""
    try:
        return learn()
    except (ValueError, ArithmeticError, RuntimeError) as error:
        silent.append(f"{voice}: {error}")
        return None


def _plausible(one: Measured, profile: Profile) -> bool:
    """Whether a measured speed is one that can be: a sensible number, no higher than the roof."""
    if not one.rate > 0 or not believable(math.log(one.rate), NOISE):
        return False
    query = _query(one.job_class, profile, one.column, one.gpus)
    most = None if query is None else roof(query)
    return most is None or one.rate <= most


def _under(most: float | None, prior: Prior | None) -> Prior | None:
    """The prior, its mean no higher than a rate."""
    if prior is None or most is None or prior.log_mean <= math.log(most):
        return prior
    marked = prior.extrapolated
    return prior_or_none(math.log(most), prior.log_sd, prior.source, prior.n, extrapolated=marked)


def _studied(results: Sequence[Result]) -> Catalogue | None:
    return study(results) if results else None


def left_out(completion: Completion, name: str, pool: str, log_rate: float) -> Prior | None:
    """What all other cells say of one that completion learnt from, whose rate is given.

    The closed form of leaving one out (Rasmussen and Williams, Gaussian Processes for Machine
    Learning, section 5.4.2, equation 5.12). None when it was not among those learnt from.
    """
    effects = completion.effects.get(completion.kinds[name].family)
    if effects is None or pool not in completion.pools:
        return None
    place = (completion.names[name], completion.pools[pool])
    if place not in effects.items:
        return None
    at = effects.items.index(place)
    precision = float(effects.inverse[at, at])
    mean = log_rate - float(effects.solved[at]) / precision
    spread = effects.widening / math.sqrt(precision)
    return prior_or_none(mean, spread, "neighbours", len(effects.items) - 1)


def _completed(
    profiles: Mapping[str, Profile],
    cells: Mapping[tuple[str, str, int], tuple[Measured, ...]],
    asked: Iterable[tuple[str, int]],
) -> Completion | None:
    if not cells:
        return None
    kinds = {
        _name(job_class, gpus): _kind(job_class, profiles[job_class], gpus)
        for job_class, gpus in {*asked, *((name, gpus) for name, _, gpus in cells)}
    }
    known = [
        Cell(_name(name, gpus), column, math.exp(_mean(rows)))
        for (name, column, gpus), rows in cells.items()
    ]
    return complete(known, kinds)


def _taught(
    profiles: Mapping[str, Profile], teachers: Mapping[str, Sequence[str]], silent: list[str]
) -> dict[str, OperatorModel]:
    """The regression on operators of each class, made once for those of the same teachers."""
    found: dict[str, OperatorModel] = {}
    made: dict[tuple[str, ...], OperatorModel | None] = {}
    for job_class, names in sorted(teachers.items()):
        own = tuple(sorted(names))
        if own not in made:
            timings = [one for name in own for one in profiles[name].timings(name)]
            exchanges = [one for name in own for one in profiles[name].exchanged(name)]
            made[own] = _tried(silent, "operators", partial(_fitted, timings, exchanges))
        model = made[own]
        found |= {} if model is None else {job_class: model}
    return found


def _fitted(timings: Sequence[Timing], exchanges: Sequence[Exchange]) -> OperatorModel | None:
    """The regression on operators; None while too few networks were timed."""
    with suppress(Unpredictable):
        return fit_operators(timings, exchanges)
    with suppress(Unpredictable):  # a communication line may be what is missing
        return fit_operators(timings, [])
    return None


def _kind(job_class: str, profile: Profile, gpus: int) -> Kind:
    """Classes of one work are kin; a class that names none is its own family."""
    size = None if profile.batch is None else math.log2(profile.batch)
    return Kind(profile.work or job_class, size, gpus)


def _query(job_class: str, profile: Profile, column: str, gpus: int) -> Query | None:
    if column not in DEVICES:
        return None
    return Query(
        work=profile.work or job_class,
        device=column,
        gpus=gpus,
        batch=profile.batch,
        precision=profile.precision,
        operations=profile.operations,
        parameters=profile.parameters,
    )


def _result(
    profiles: Mapping[str, Profile], key: tuple[str, str, int], rows: Sequence[Measured]
) -> Result | None:
    """A measured cell as a result of the catalogue."""
    query = _query(key[0], profiles[key[0]], key[1], key[2])
    return None if query is None else Result(query, math.exp(_mean(rows)))


def _name(job_class: str, gpus: int) -> str:
    return f"{job_class} x{gpus}"


def _mean(rows: Sequence[Measured]) -> float:
    """Logarithm of the geometric mean over leases."""
    leases = sum(one.leases for one in rows)
    return math.fsum(one.leases * math.log(one.rate) for one in rows) / leases


def _grown(prior: Prior | None, gpus: int, factor: int) -> Prior | None:
    """So many times the speed, and wider by every doubling of the GPUs."""
    if prior is None or gpus == 1:
        return prior
    spread = math.hypot(prior.log_sd, DOUBLING_SD * math.log2(gpus))
    mean, marked = prior.log_mean + math.log(factor), prior.extrapolated
    return prior_or_none(mean, spread, prior.source, prior.n, extrapolated=marked)
