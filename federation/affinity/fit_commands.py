"""`fit` and `predict` of `python -m federation.affinity`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from economics.canonical import parse_json
from economics.errors import BadBook
from federation.affinity.documents import put, put_json
from federation.affinity.samples import BadSamples

if TYPE_CHECKING:
    from federation.affinity.sample_files import Asked


def add_commands(commands: Any) -> None:
    """Add both to the sub-commands of a parser."""
    fit = commands.add_parser("fit", help="fit throughput models to samples")
    fit.add_argument("samples", metavar="SAMPLES.csv", type=Path)
    fit.add_argument("-o", "--output", metavar="MODEL.json", type=Path)
    fit.set_defaults(run=_fit)
    predict = commands.add_parser("predict", help="forecast step times of configurations")
    predict.add_argument("model", metavar="MODEL.json", type=Path)
    predict.add_argument("configurations", metavar="CONFIGS.csv", type=Path)
    predict.add_argument("-o", "--output", metavar="OUT.csv", type=Path)
    predict.set_defaults(run=_predict)


def _fit(asked: argparse.Namespace) -> int:
    from federation.affinity.models_file import document  # noqa: PLC0415 help needs no numpy
    from federation.affinity.pools import fit_all  # noqa: PLC0415
    from federation.affinity.sample_files import read_samples  # noqa: PLC0415

    fits = fit_all(read_samples(asked.samples))
    sentences = tuple(f"{asked.samples}: {why}" for why in fits.refused)
    if not fits.models:
        raise BadSamples(sentences)
    put_json(document(fits.models), asked.output)
    for sentence in sentences:
        sys.stderr.write(f"{sentence}\n")
    return 0


def _predict(asked: argparse.Namespace) -> int:
    from federation.affinity.models_file import read  # noqa: PLC0415 help needs no numpy
    from federation.affinity.sample_files import read_configurations, written  # noqa: PLC0415

    try:
        models = read(parse_json(asked.model.read_bytes(), name=str(asked.model)))
    except OSError as error:
        raise BadSamples((f"{asked.model}: {error.strerror or error}",)) from None
    except BadBook as refused:
        raise BadSamples(tuple(map(str, refused.problems))) from None
    except BadSamples as refused:
        raise BadSamples(tuple(f"{asked.model}: {why}" for why in refused.problems)) from None
    table = read_configurations(asked.configurations)
    keys = _known(table, models, asked.configurations)
    places: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    found: dict[int, Any] = {}
    for key, rows in places.items():
        forecasts = models[key].forecasts([table.configurations[row] for row in rows])
        found.update(zip(rows, forecasts, strict=True))
    put(written(table, [found[place] for place in range(len(keys))]), asked.output)
    return 0


def _known(
    table: Asked, models: Mapping[tuple[str, str], Any], path: Path
) -> list[tuple[str, str]]:
    """Each row's model; a row without a pool means the only one that its class was fitted on."""
    pools: dict[str, list[str]] = {}
    for name, pool in models:
        pools.setdefault(name, []).append(pool)
    found: list[tuple[str, str]] = []
    problems: dict[tuple[str, str], str] = {}
    for line, (name, pool) in zip(table.lines, table.keys, strict=True):
        only = pools.get(name, [])
        if (name, pool) in models:
            found.append((name, pool))
        elif not pool and len(only) == 1:
            found.append((name, only[0]))
        else:
            problems.setdefault((name, pool), f"line {line}: {_unknown(name, pool, only)}")
    if problems:
        raise BadSamples(tuple(f"{path}: {why}" for why in problems.values()))
    return found


def _unknown(name: str, pool: str, pools: list[str]) -> str:
    if not pools:
        return f"class {name!r} was not fitted"
    where = f"not on pool {pool!r}" if pool else "its pool must be named"
    return f"class {name!r} was fitted on {', '.join(map(repr, sorted(pools)))}: {where}"
