"""Deal what runs were given out to their jobs, each within its own units and to its own need.

A run's jobs need, per unit, rates between two outputs of their kind that are next to each other.
Its units are of two sorts: *high* ones deliver the upper output or more, *low* ones the lower one
or less, rest included. Every job takes high units in the mix of all high ones and low units in the
mix of all low ones, as many of each as make its rate: all units are dealt then, because rates add
up. Jobs without a limit take what they need from the ways in order, one job after the other, so
that few are split.

Axes: A ways · E entries · X variables (a run and one of its ways) · Q pairs (an entry and one of
its kind's ways, in order) · S slices.
"""

from __future__ import annotations

import numpy as np

from economics.market import Array, Index
from economics.policies.pressure import Pressed, Pressure


def deal(pressure: Pressure, pressed: Pressed, need: Array, taste: Array) -> Array:
    """Units of each way one job of each entry takes, (Q,); `taste` (A,) orders the ways."""
    fleet, crowd = pressure.fleet, pressure.crowd
    entry, way = fleet.ways_of(crowd.kind)
    units = np.zeros(entry.size)
    limited = np.isfinite(crowd.units)
    at = np.flatnonzero(limited[entry])
    units[at] = _mixed(pressure, pressed, need, entry[at], way[at])
    first = np.searchsorted(entry, np.arange(crowd.kind.size))
    for run in np.unique(pressed.run[~limited & (need > 0)]):
        member = np.flatnonzero((pressed.run == run) & (need > 0))
        variable = np.flatnonzero((pressed.of == run) & (pressed.taken > 0))
        variable = variable[np.argsort(taste[pressed.way[variable]], kind="stable")]
        output = fleet.output[pressed.way[variable]]
        slices = _slices(crowd.count[member] * need[member], pressed.taken[variable] * output)
        job, place = member[slices[0]], pressed.way[variable[slices[1]]]
        pair = first[job] + place - fleet.first[crowd.kind[job]]
        np.add.at(units, pair, slices[2] / fleet.output[place] / crowd.count[job])
    return units


def _mixed(pressure: Pressure, pressed: Pressed, need: Array, entry: Index, way: Index) -> Array:
    """Units of each of these pairs, whose jobs have a limit."""
    fleet, crowd = pressure.fleet, pressure.crowd
    run, kind = pressed.run[entry], crowd.kind[entry]
    variable = np.searchsorted(pressed.of, run) + way - fleet.first[kind]
    taken, output = pressed.taken[variable], fleet.output[way]
    below = pressure.bin_of(need)[entry]  # outputs below the rate
    high = (below == 0) | (output > fleet.edges[kind, below - 1])

    def total(amount: Array) -> Array:
        """Sum over the ways of the pair's job, for each pair."""
        summed = np.bincount(entry, weights=amount, minlength=crowd.kind.size)
        return summed[entry].astype(np.float64)

    all_units = np.bincount(
        pressed.run, np.where(np.isfinite(crowd.units), crowd.count * crowd.units, 0.0)
    )
    units_high = total(np.where(high, taken, 0.0))
    units_low = np.maximum(all_units[run] - units_high, 0.0)
    mean_high = _ratio(total(np.where(high, taken * output, 0.0)), units_high)
    mean_low = _ratio(total(np.where(high, 0.0, taken * output)), units_low)
    rate = (need / crowd.units)[entry]
    share_high = np.clip(_ratio(rate - mean_low, mean_high - mean_low), 0.0, 1.0)
    mix = np.where(high, share_high * _ratio(taken, units_high), 0.0)
    mix += np.where(high, 0.0, (1.0 - share_high) * _ratio(taken, units_low))
    units: Array = crowd.units[entry] * mix
    return units


def _slices(wanted: Array, offered: Array) -> tuple[Index, Index, Array]:
    """Lay two rows of lengths side by side: which of each every slice lies in, and its length."""
    ends, stops = np.cumsum(wanted), np.cumsum(offered)
    cuts = np.union1d(ends, stops[stops < ends[-1]])
    lengths = np.diff(cuts, prepend=0.0)
    middle = cuts - lengths / 2
    first = np.minimum(np.searchsorted(ends, middle), ends.size - 1)
    second = np.minimum(np.searchsorted(stops, middle), stops.size - 1)
    return first, second, lengths


def _ratio(part: Array, whole: Array) -> Array:
    ratio: Array = np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)
    return ratio
