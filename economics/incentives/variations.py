"""The same book with one thing changed: other jobs, other speeds, costs or loads.

Every function takes a `hanse.book/1` document that can be read and returns a new one; what is given
is never changed, and what is not changed is shared with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator

Document = Mapping[str, Any]
Row = Mapping[str, Any]


def resampled(document: Document, random: Generator) -> dict[str, Any]:
    """Jobs drawn again with replacement, as many of each site as there were.

    A plain divisible job that is drawn m times wants, may use and may spend m times as much, which
    is the same as m jobs; of any other there are m copies. A floor is kept once.
    """
    homes: dict[str, list[Row]] = {}
    for row in sorted(document["jobs"], key=lambda row: str(row["id"])):
        homes.setdefault(row["site"], []).append(row)
    taken = {row["id"] for row in document["jobs"]}
    drawn: list[Row] = []
    for site in sorted(homes):
        rows = homes[site]
        times = np.bincount(random.integers(0, len(rows), len(rows)), minlength=len(rows))
        for row, count in zip(rows, times.tolist(), strict=True):
            drawn += _copies(row, count, taken)
    return _with_jobs(document, drawn)


def _copies(row: Row, count: int, taken: set[str]) -> list[Row]:
    if count <= 1:
        return [row] * count
    if "gang" not in row and not row.get("move_cost"):
        return [_times(row, count)]
    names = [row["id"]]
    number = 2
    while len(names) < count:
        name = f"{row['id']}~{number}"
        if name not in taken:
            taken.add(name)
            names.append(name)
        number += 1
    return [{**row, "id": name} for name in names]


def load_times(document: Document, site: str, factor: float) -> dict[str, Any]:
    """The divisible jobs of a site want, and may spend, `factor` times as much; gangs stay."""
    jobs = [
        _times(row, factor) if row["site"] == site and "gang" not in row else row
        for row in document["jobs"]
    ]
    floors = {row["id"]: row.get("demand", math.inf) for row in jobs}
    changed = _with_jobs(document, jobs)
    if "floors" in changed:
        changed["floors"] = [
            {**row, "demand": min(row["demand"], floors[row["job"]])} for row in changed["floors"]
        ]
    return changed


def _times(row: Row, factor: float) -> Row:
    """A width is in whole GPUs: rounded, and at least one where it was."""
    changed = dict(row)
    for key in ("demand", "budget"):
        if key in row:
            changed[key] = row[key] * factor
    if row.get("max_gpus"):
        changed["max_gpus"] = max(round(row["max_gpus"] * factor), 1)
    return changed


def reserve_times(document: Document, site: str, factor: float) -> dict[str, Any]:
    """The reserves of one site, which are its true costs, times a factor; without floors."""
    pools = [
        {**row, "reserve": row["reserve"] * factor} if row["site"] == site else row
        for row in document["pools"]
    ]
    return {**without_floors(_without_prices(document)), "pools": pools}


def farther(document: Document, cost: float) -> dict[str, Any]:
    """Every GPU-hour away from home costs `cost` credits more."""
    sites = sorted(
        {row["site"] for row in document["pools"]} | {row["site"] for row in document["jobs"]}
    )
    stated = {(row["from"], row["to"]): row["per_gpu_hour"] for row in document.get("transfer", ())}
    stated.update(
        {
            (home, site): stated.get((home, site), 0.0) + cost
            for home in sites
            for site in sites
            if home != site
        }
    )
    rows = [
        {"from": home, "to": site, "per_gpu_hour": amount}
        for (home, site), amount in sorted(stated.items())
    ]
    return {**_without_prices(document), "transfer": rows}


def without_floors(document: Document) -> Document:
    """At other speeds or costs their home may not be able to keep them."""
    if not document.get("floors"):
        return document
    return {key: value for key, value in document.items() if key != "floors"}


def mean_reserve(document: Document) -> float:
    """Credits per GPU-hour, over all GPUs; 0 without any."""
    gpus = sum(row["gpus"] for row in document["pools"])
    worth = math.fsum(row["reserve"] * row["gpus"] for row in document["pools"])
    return worth / gpus if gpus else 0.0


def spread_times(document: Document, factor: float) -> dict[str, Any]:
    """Log-speeds `factor` times as far from the mean over sites of their GPU type and class.

    The mean is the geometric one over the GPUs of a type that run the class (and, for gangs, over
    rows of the same size). With factor 0 all GPUs of a type are equally fast: sites differ in what
    they own, no longer in how fast it is. What cannot run at a pool still cannot. Without floors.
    """
    return _with_speeds(document, _types(document), factor)


def one_type(document: Document) -> dict[str, Any]:
    """As if all GPUs were of one type: every class equally fast on all, types equally dear.

    Speeds are the geometric mean over all GPUs that run the class; reserves keep their ratio to the
    mean of their type, which becomes the mean of all, both over GPUs. Without floors.
    """
    changed = _with_speeds(document, dict.fromkeys(_types(document), ""), 0.0)
    kinds: dict[str, list[Row]] = {}
    for row in document["pools"]:
        kinds.setdefault(row["gpu"], []).append(row)
    of_all = mean_reserve(document)
    of_kind = {kind: mean_reserve({"pools": rows}) for kind, rows in kinds.items()}
    changed["pools"] = [
        {**row, "reserve": row["reserve"] * of_all / of_kind[row["gpu"]]}
        if of_kind[row["gpu"]]
        else row
        for row in document["pools"]
    ]
    return changed


def _with_speeds(document: Document, types: Mapping[str, str], factor: float) -> dict[str, Any]:
    means = _mean_logs(document, types)

    def turned(row: Row) -> Row:
        if row["samples_per_s"] <= 0:
            return row
        mean = means[_kind(row, types)]
        log = mean + factor * (math.log(row["samples_per_s"]) - mean)
        return {**row, "samples_per_s": math.exp(log)}

    rows = [turned(row) for row in document["affinity"]]
    return {**without_floors(_without_prices(document)), "affinity": rows}


def log_spread(document: Document) -> float:
    """Standard deviation of log-speeds about the mean of their type and class, over GPUs."""
    types, gpus = _types(document), _gpus(document)
    means = _mean_logs(document, types)
    weighed = [
        (gpus[row["pool"]], math.log(row["samples_per_s"]) - means[_kind(row, types)])
        for row in document["affinity"]
        if row["samples_per_s"] > 0
    ]
    total = sum(weight for weight, _ in weighed)
    squares = math.fsum(weight * off**2 for weight, off in weighed)
    return math.sqrt(squares / total) if total else 0.0


Kind = tuple[str, str, int]  # GPU type, class, GPUs of the row


def _mean_logs(document: Document, types: Mapping[str, str]) -> dict[Kind, float]:
    """Mean log-speed of each type and class, weighed by GPUs; plain where no pool has any."""
    gpus = _gpus(document)
    found: dict[Kind, list[tuple[int, float]]] = {}
    for row in document["affinity"]:
        if row["samples_per_s"] > 0:
            found.setdefault(_kind(row, types), []).append(
                (gpus[row["pool"]], math.log(row["samples_per_s"]))
            )
    return {kind: _mean(rows) for kind, rows in found.items()}


def _mean(rows: Sequence[tuple[int, float]]) -> float:
    """Exact sums: the mean must not depend on the order of rows."""
    total = sum(weight for weight, _ in rows)
    if not total:
        return math.fsum(value for _, value in rows) / len(rows)
    return math.fsum(weight * value for weight, value in rows) / total


def _kind(row: Row, types: Mapping[str, str]) -> Kind:
    return types[row["pool"]], row["class"], row.get("gpus", 1)


def _types(document: Document) -> dict[str, str]:
    return {row["id"]: row["gpu"] for row in document["pools"]}


def _gpus(document: Document) -> dict[str, int]:
    return {row["id"]: row["gpus"] for row in document["pools"]}


def _without_prices(document: Document) -> dict[str, Any]:
    """Last round's prices and caps are those of another market."""
    changed = {key: value for key, value in document.items() if key != "previous_prices"}
    if "price_cap" in document.get("rules", {}):
        rules = document["rules"]
        changed["rules"] = {key: rules[key] for key in rules if key != "price_cap"}
    return changed


def _with_jobs(document: Document, jobs: Iterable[Row]) -> dict[str, Any]:
    """The document with these jobs, and without the floors of those that are gone."""
    changed = {**document, "jobs": list(jobs)}
    kept = {row["id"] for row in changed["jobs"]}
    if "floors" in document:
        changed["floors"] = [row for row in document["floors"] if row["job"] in kept]
    return changed
