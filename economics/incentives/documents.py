"""Reports as `hanse.incentives/1` documents: plain JSON, no figure without its interval.

A `Figure` is written as {"value", "low", "high"}, an `Interval` as {"estimate", "low", "high",
"count"}; every other field under its own name, so the dataclasses of this package say what each
means and in which unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from economics.incentives.best_response import EQUILIBRIUM, Path
from economics.incentives.decomposition import Decomposition
from economics.incentives.join import JoinReport
from economics.incentives.leave import Leaving
from economics.incentives.misreport import MisreportReport
from economics.incentives.sensitivity import Knob

FORMAT = "hanse.incentives/1"
DECIMALS = 9

Report = JoinReport | Path | Decomposition | MisreportReport | Sequence[Leaving] | Sequence[Knob]


def document(report: Report) -> dict[str, Any]:
    """The document of any report of this package; its `study` says of which."""
    if isinstance(report, JoinReport):
        return _document("join", _plain(report))
    if isinstance(report, MisreportReport):
        return _document("misreport", _plain(report))
    if isinstance(report, Path):
        return _document("best_response", _path(report))
    if isinstance(report, Decomposition):
        names = ("types", "affinity", "gain_share", "pooling_share")
        shares = {name: _plain(getattr(report, name)) for name in names}
        return _document("decomposition", {**_plain(report), **shares})
    if all(isinstance(row, Leaving) for row in report):
        return _document("leave", {"sites": _plain(tuple(report))})
    return _document("sensitivity", {"knobs": _plain(tuple(report))})


def _document(study: str, rows: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "study": study, **rows}


def _path(path: Path) -> dict[str, Any]:
    """`stands` are the equilibrium only where there is one, and the document says so."""
    found = {field.name: _plain(getattr(path, field.name)) for field in fields(path)}
    return {**found, "equilibrium": path.outcome == EQUILIBRIUM}


def _plain(value: Any) -> Any:
    """As JSON: at most 9 decimals, and no negative zero."""
    if isinstance(value, Path):
        return _path(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0
    return value
