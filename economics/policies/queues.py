"""The queues of discretised two-dimensional least attained service, as arrays.

The service a job attained is its GPUs times the seconds it ran: GPU-seconds. A job enters queue 1
and drops a queue at each threshold it reaches; the lowest queue goes first. Nothing has to be known
about how long a job will run.

Source: Gu and others, "Tiresias: a GPU cluster manager for distributed deep learning" (NSDI 2019).
Shapes: J jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from economics.market import Array, Index, Mask

REACHED = 1e-9  # relative; attained service this close to a threshold has reached it


def queue_of(attained: Array, thresholds: Sequence[float]) -> Index:
    """Queue of each job, (J,): 1 + the number of thresholds its attained GPU-seconds reached."""
    limits = np.sort(np.asarray(thresholds, dtype=float)) * (1 - REACHED)
    queues: Index = 1 + np.searchsorted(limits, attained, side="right").astype(np.int64)
    return queues


def until_drop(attained: Array, gpus: Array, thresholds: Sequence[float]) -> Array:
    """Seconds each job may run before it drops a queue, (J,); inf in the last one.

    GPU-seconds that are left divided by GPUs: both in the unit of the thresholds.
    """
    limits = np.append(np.sort(np.asarray(thresholds, dtype=float)), np.inf)
    seconds: Array = (limits[queue_of(attained, thresholds) - 1] - attained) / gpus
    return seconds


def until_promotion(queue: Index, waited: Array, ran: Array, knob: float) -> Array:
    """Seconds each pending job must still wait before it is promoted to queue 1, (J,).

    Both clocks start when the job last entered queue 1: it is promoted when the seconds it
    `waited` reach `knob` times the seconds it `ran`. Jobs in queue 1, and jobs that never ran,
    are not promoted: inf. A job that is promoted starts both clocks, and the service that decides
    its queue, from zero. An infinite knob promotes nobody.
    """
    left = np.full(waited.shape, np.inf)
    may = promotable(queue, ran) & np.isfinite(knob)
    left[may] = np.maximum(knob * ran[may] - waited[may], 0.0)
    return left


def promotable(queue: Index, ran: Array) -> Mask:
    """Jobs below queue 1 that have run since they last entered it, (J,)."""
    may: Mask = (queue > 1) & (ran > 0)
    return may
