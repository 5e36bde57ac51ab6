"""Figures as pure functions of documents and rows: one function for each form of chart.

Every chart carries one finding in words and a table of the same data, so that nobody needs eyes, a
mouse or a script to read it. Units stand in the axis titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from broker.console.words import number

SECONDS_PER_HOUR = 3600.0
MOST_BIDS = 200  #: bars in one merit order; what lies below the price matters least

#: mid tones: readable on white and on dark
AWARDED, LEFT_OUT, PRICE, RESERVE = "#2f7fc1", "#9aa3af", "#d9572b", "#7b8494"


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure, what it shows in one sentence, and its table."""

    figure: dict[str, Any]
    finding: str
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Bid:
    """What one job would pay at one pool."""

    job: str
    value: float  #: credits per GPU-hour, the most it would pay here
    gpu_hours: float
    awarded: bool  #: it got GPUs of this pool


def merit_order(
    book: Mapping[str, Any],
    clearing: Mapping[str, Any] | None,
    pool: str,
    names: Mapping[str, str] | None = None,
) -> Chart | None:
    """Bids at a pool, dearest first, against its capacity, reserve and price."""
    here = next((p for p in book["pools"] if p["id"] == pool), None)
    if here is None:
        return None
    lines = clearing["allocation"] if clearing else []
    elsewhere = {line["job"] for line in lines if line["pool"] != pool}
    awarded = {line["job"]: float(line["gpu_hours"]) for line in lines if line["pool"] == pool}
    bids = bids_at(book, pool, awarded, skip=elsewhere - awarded.keys())
    capacity = here["gpus"] * book["round_hours"]
    price = clearing["prices"].get(pool) if clearing else None
    names = names or {}
    figure = _merit_figure(bids[:MOST_BIDS], capacity, here["reserve"], price, names)
    sold = sum(awarded.values())
    return Chart(
        figure=figure,
        finding=_merit_finding(pool, bids, capacity, here["reserve"], price, sold, len(elsewhere)),
        head=("Job", "Value (credits/GPU-h)", "Wants (GPU-h)", "Awarded here"),
        rows=tuple(
            (names.get(b.job, b.job), number(b.value), number(b.gpu_hours), _yes(b.awarded))
            for b in bids[:MOST_BIDS]
        ),
    )


def bids_at(
    book: Mapping[str, Any], pool: str, awarded: Mapping[str, float], skip: set[str]
) -> list[Bid]:
    """Every bid that could run at a pool and was not served elsewhere, dearest first."""
    speed = {
        (a["class"], a.get("gpus", 1)): a["samples_per_s"]
        for a in book["affinity"]
        if a["pool"] == pool
    }
    found = []
    for job in book["jobs"]:
        if job["id"] in skip or pool not in job.get("pools", [pool]):
            continue
        bid = _bid(job, speed, book["round_hours"], awarded.get(job["id"]))
        if bid is not None:
            found.append(bid)
    return sorted(found, key=lambda b: (-b.value, b.job))


def _bid(
    job: Mapping[str, Any],
    speed: Mapping[tuple[str, int], float],
    hours: float,
    awarded: float | None,
) -> Bid | None:
    """A job's value of one GPU-hour here: what it got, else its dearest size."""
    best: tuple[float, float] | None = None
    for size in _sizes(job, hours, awarded):
        rate = speed.get((job["class"], size)) or size * speed.get((job["class"], 1), 0.0)
        output = rate * SECONDS_PER_HOUR * hours / 1e6  # million samples in the round
        useful = min(job.get("demand", output), output)
        if useful <= 0:
            continue
        value = job["value"] * useful / (size * hours)
        if best is None or value > best[0]:
            best = (value, size * hours)
    return None if best is None else Bid(job["id"], *best, awarded=awarded is not None)


def _sizes(job: Mapping[str, Any], hours: float, awarded: float | None) -> list[int]:
    if awarded is not None:
        return [max(1, round(awarded / hours))]
    gang = job.get("gang", job.get("max_gpus", 1))
    return [int(size) for size in gang] if isinstance(gang, list) else [max(1, int(gang))]


def _merit_figure(
    bids: Sequence[Bid],
    capacity: float,
    reserve: float,
    price: float | None,
    names: Mapping[str, str],
) -> dict[str, Any]:
    figure = go.Figure()
    for is_awarded, words, colour, pattern in (
        (True, "awarded here", AWARDED, ""),
        (False, "not awarded", LEFT_OUT, "/"),
    ):
        left, shown = 0.0, []
        for bid in bids:
            if bid.awarded is is_awarded:
                shown.append((left + bid.gpu_hours / 2, bid))
            left += bid.gpu_hours
        figure.add_bar(
            name=words,
            x=[middle for middle, _ in shown],
            width=[bid.gpu_hours for _, bid in shown],
            y=[bid.value for _, bid in shown],
            customdata=[[names.get(bid.job, bid.job), bid.gpu_hours] for _, bid in shown],
            hovertemplate="%{customdata[0]}: %{y:.4g} credits/GPU-h, %{customdata[1]:.4g} GPU-h",
            marker={
                "color": colour,
                "pattern": {"shape": pattern, "solidity": 0.25},
                "line": {"width": 1, "color": "rgba(127,127,127,.6)"},
            },
        )
    total = max(sum(bid.gpu_hours for bid in bids), capacity) * 1.05
    _level(figure, "reserve", reserve, total, RESERVE, "dot")
    if price is not None:
        _level(figure, "price", price, total, PRICE, "solid")
    figure.add_scatter(
        name="capacity",
        x=[capacity, capacity],
        y=[0, max([b.value for b in bids] + [price or 0, reserve]) * 1.05],
        mode="lines",
        line={"color": RESERVE, "dash": "dash", "width": 1.5},
        hovertemplate="capacity %{x:.4g} GPU-h<extra></extra>",
    )
    drawn = _dressed(figure, "GPU-hours in the round", "credits per GPU-hour")
    drawn["layout"]["xaxis"]["range"] = [0, total]  # a short round is a sliver otherwise
    return drawn


def _level(
    figure: go.Figure, name: str, height: float, width: float, colour: str, dash: str
) -> None:
    figure.add_scatter(
        name=name,
        x=[0, width],
        y=[height, height],
        mode="lines",
        line={"color": colour, "dash": dash, "width": 2},
        hovertemplate=f"{name} %{{y:.6g}} credits/GPU-h<extra></extra>",
    )


def _dressed(figure: go.Figure, x_title: str, y_title: str) -> dict[str, Any]:
    """One look for all: no template (the page's own colours), no frame, legend on top."""
    figure.update_layout(
        template=None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 56, "r": 12, "t": 12, "b": 44},
        height=320,
        bargap=0,
        barmode="overlay",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": x_title}, "rangemode": "tozero", "zeroline": False},
        yaxis={"title": {"text": y_title}, "rangemode": "tozero", "zeroline": False},
    )
    drawn: dict[str, Any] = figure.to_dict()
    return drawn


def _merit_finding(
    pool: str,
    bids: Sequence[Bid],
    capacity: float,
    reserve: float,
    price: float | None,
    sold: float,
    elsewhere: int,
) -> str:
    if not bids:
        words = f"Nobody who was not served elsewhere bid for {pool}."
    elif price is None:
        words = f"{len(bids)} bids want {pool}; no price is on record."
    else:
        served = sum(bid.awarded for bid in bids)
        rent = price - reserve
        above = f"{number(rent)} above its reserve" if rent > 0 else "its reserve"
        words = (
            f"{pool} sells {number(sold)} of {number(capacity)} GPU-h to {served} of {len(bids)} "
            f"bids at {number(price, 6)} credits per GPU-hour, {above}."
        )
    return f"{words} {elsewhere} bids were served elsewhere." if elsewhere else words


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def spark(values: Sequence[float | None], *, width: int = 120, height: int = 28) -> list[str]:
    """Points of small polylines, one for each unbroken run of values; a gap stays a gap."""
    known = [v for v in values if v is not None]
    if len(values) < 2 or not known:
        return []
    low, high = min(known), max(known)
    reach = (high - low) or 1.0
    lines: list[list[str]] = [[]]
    for at, value in enumerate(values):
        if value is None:
            lines.append([])
            continue
        x = 2 + (width - 4) * at / (len(values) - 1)
        y = height - 3 - (height - 6) * (value - low) / reach
        lines[-1].append(f"{x:.1f},{y:.1f}")
    return [" ".join(line if len(line) > 1 else line * 2) for line in lines if line]
