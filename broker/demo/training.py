"""A real training job for demonstrations: five small models, written out in numpy.

Run by path, at a site's machine: `python training.py --class conv-small`. Each class trains with
hand-written back-propagation on made-up data that can be learnt, reports through `hanse.report`,
saves on SIGTERM (exit 143) and resumes from what it finds in HANSE_CHECKPOINT_DIR. Its loss must
fall: a job that only burns time ends with exit code 3.

The classes differ in character, so that sites can differ in what they are good at:
  mlp-wide   few large matrix products          mlp-deep   many small ones in a row
  conv-small im2col convolutions, memory moves  embed-rec  gathers and scatters over a big table
  attn-tiny  batched small products and softmax

Axes in shape comments: B samples of a batch · F features · K labels · H hidden · T tokens.
HANSE_THROTTLE, JSON such as {"conv-small": 0.5, "*": 1.0}, is a site's *declared* slowness: the
share of wall time that the program computes; the rest it idles, and its first line says so.
"""

# ruff: noqa: T201 - the log of a job is its standard output

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read once, when numpy is loaded
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]
Params = dict[str, Array]
#: Of one batch: the mean loss, and a gradient for each parameter; a (rows, gradient) pair
#: touches only these rows of its parameter.
Step = Callable[[Params, Array, Array], tuple[float, dict[str, Any]]]

REPORT_EVERY_S = 0.2
LABELS = 10
DATA = 4096  # samples in the made-up data set
TERMINATED = 128 + signal.SIGTERM
WRONG_CALL, LOSS_DID_NOT_FALL = 2, 3
MIN_STEPS = 50  # with fewer a falling loss means nothing


def imported_report() -> Callable[..., bool] | None:
    """`hanse.report`; by path from a checkout the package lies two folders above this file."""
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    try:
        from hanse import report
    except ImportError:
        return None
    finally:
        sys.path.pop()
    return report


REPORT = imported_report()


@dataclass(frozen=True)
class JobClass:
    batch: int
    rate: float  # learning rate
    build: Callable[[np.random.Generator], tuple[Params, Array, Array]]  # params, inputs, labels
    step: Step


def he(rng: np.random.Generator, *shape: int, fan_in: int | None = None) -> Array:
    scale = np.sqrt(2.0 / (fan_in or shape[0]))
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def linear_labels(rng: np.random.Generator, inputs: Array) -> Array:
    """Labels that a random linear view of the inputs decides: learnable, and not by heart only."""
    flat = inputs.reshape(len(inputs), -1)
    view = rng.standard_normal((flat.shape[1], LABELS), dtype=np.float32)
    labels: Array = np.argmax(flat @ view, axis=1)
    return labels


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Mean loss in nats, and its gradient by the logits, both (B, K)."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    total = odds.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - shifted[rows, labels]))
    grad = odds / total
    grad[rows, labels] -= 1.0
    return loss, grad / np.float32(len(labels))


# mlp-wide: 128 -> 512 -> 512 -> 10


def build_wide(rng: np.random.Generator) -> tuple[Params, Array, Array]:
    inputs = rng.standard_normal((DATA, 128), dtype=np.float32)
    params = {"w1": he(rng, 128, 512), "w2": he(rng, 512, 512), "w3": he(rng, 512, LABELS) * 0.1}
    return params, inputs, linear_labels(rng, inputs)


def step_wide(p: Params, x: Array, y: Array) -> tuple[float, dict[str, Any]]:
    a1 = np.maximum(x @ p["w1"], 0.0)  # (B, H)
    a2 = np.maximum(a1 @ p["w2"], 0.0)  # (B, H)
    loss, d3 = cross_entropy(a2 @ p["w3"], y)
    d2 = (d3 @ p["w3"].T) * (a2 > 0.0)
    d1 = (d2 @ p["w2"].T) * (a1 > 0.0)
    return loss, {"w1": x.T @ d1, "w2": a1.T @ d2, "w3": a2.T @ d3}


# mlp-deep: 16 residual layers of width 32

DEPTH, WIDTH = 16, 32


def build_deep(rng: np.random.Generator) -> tuple[Params, Array, Array]:
    inputs = rng.standard_normal((DATA, WIDTH), dtype=np.float32)
    params = {f"w{n}": he(rng, WIDTH, WIDTH) * 0.3 for n in range(DEPTH)}
    return params | {"out": he(rng, WIDTH, LABELS) * 0.1}, inputs, linear_labels(rng, inputs)


def step_deep(p: Params, x: Array, y: Array) -> tuple[float, dict[str, Any]]:
    inner, active = [x], []  # what enters each layer; what each layer lets through
    for n in range(DEPTH):
        a = np.maximum(inner[-1] @ p[f"w{n}"], 0.0)
        active.append(a > 0.0)
        inner.append(inner[-1] + a)
    loss, d_out = cross_entropy(inner[-1] @ p["out"], y)
    grads: dict[str, Any] = {"out": inner[-1].T @ d_out}
    d = d_out @ p["out"].T  # (B, H)
    for n in reversed(range(DEPTH)):
        d_layer = d * active[n]
        grads[f"w{n}"] = inner[n].T @ d_layer
        d = d + d_layer @ p[f"w{n}"].T
    return loss, grads


# conv-small: 16x16 pictures, two 3x3 convolutions, the mean of each quarter, a linear layer

SIDE = 16


def build_conv(rng: np.random.Generator) -> tuple[Params, Array, Array]:
    labels = rng.integers(0, LABELS, DATA)
    motifs = rng.standard_normal((LABELS, 4, 4), dtype=np.float32)
    tiles = np.tile(motifs, (1, SIDE // 4, SIDE // 4))  # each label has its own texture
    noise = rng.standard_normal((DATA, SIDE, SIDE), dtype=np.float32)
    inputs = (0.5 * tiles[labels] + noise)[..., None]
    params = {
        "c1": he(rng, 9, 8),
        "c2": he(rng, 72, 16),
        "out": he(rng, 4 * 16, LABELS) * 0.1,
    }
    return params, inputs, labels


def patches(x: Array) -> Array:
    """(B, h, w, c) -> (B, h-2, w-2, 9c): what each 3x3 window sees."""
    windows = sliding_window_view(x, (3, 3), axis=(1, 2))  # (B, h-2, w-2, c, 3, 3)
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)


def unpatch(d: Array, shape: tuple[int, ...]) -> Array:
    """Adds each window's gradient back to the pixels it saw: the transpose of `patches`."""
    out = np.zeros(shape, dtype=d.dtype)
    height, width = d.shape[1:3]
    parts = d.reshape(*d.shape[:3], 3, 3, shape[3])
    for row in range(3):
        for column in range(3):
            out[:, row : row + height, column : column + width] += parts[:, :, :, row, column]
    return out


def step_conv(p: Params, x: Array, y: Array) -> tuple[float, dict[str, Any]]:
    p1 = patches(x)
    a1 = np.maximum(p1 @ p["c1"], 0.0)  # (B, 14, 14, 8)
    p2 = patches(a1)
    a2 = np.maximum(p2 @ p["c2"], 0.0)  # (B, 12, 12, 16)
    quarters = a2.reshape(len(x), 2, 6, 2, 6, 16)
    pooled = quarters.mean(axis=(2, 4)).reshape(len(x), -1)  # (B, 64)
    loss, d_out = cross_entropy(pooled @ p["out"], y)
    d_pool = (d_out @ p["out"].T / np.float32(36.0)).reshape(len(x), 2, 1, 2, 1, 16)
    d2 = np.broadcast_to(d_pool, quarters.shape).reshape(a2.shape) * (a2 > 0.0)
    d1 = unpatch(d2 @ p["c2"].T, a1.shape) * (a1 > 0.0)
    return loss, {
        "c1": p1.reshape(-1, 9).T @ d1.reshape(-1, 8),
        "c2": p2.reshape(-1, 72).T @ d2.reshape(-1, 16),
        "out": pooled.T @ d_out,
    }


# embed-rec: 16 ids out of 50,000 looked up and added, then a linear layer

IDS, FIELDS, DIM = 50_000, 16, 64


def build_embed(rng: np.random.Generator) -> tuple[Params, Array, Array]:
    labels = rng.integers(0, LABELS, DATA)
    taste = rng.integers(0, IDS, (LABELS, 60))  # ids that each label likes
    liked = taste[labels[:, None], rng.integers(0, 60, (DATA, FIELDS))]
    noise = rng.integers(0, IDS, (DATA, FIELDS))
    inputs = np.where(rng.random((DATA, FIELDS)) < 0.5, liked, noise)
    table = rng.standard_normal((IDS, DIM), dtype=np.float32) * np.float32(0.1)
    return {"table": table, "out": he(rng, DIM, LABELS)}, inputs, labels


def step_embed(p: Params, x: Array, y: Array) -> tuple[float, dict[str, Any]]:
    pooled = p["table"][x].sum(axis=1)  # (B, DIM)
    loss, d_out = cross_entropy(pooled @ p["out"], y)
    d_rows = np.repeat(d_out @ p["out"].T, FIELDS, axis=0)  # (B * FIELDS, DIM)
    return loss, {"out": pooled.T @ d_out, "table": (x.reshape(-1), d_rows)}


# attn-tiny: 16 tokens of width 32, one attention head, the mean over tokens, a linear layer

TOKENS, MODEL = 16, 32


def build_attn(rng: np.random.Generator) -> tuple[Params, Array, Array]:
    labels = rng.integers(0, LABELS, DATA)
    inputs = rng.standard_normal((DATA, TOKENS, MODEL), dtype=np.float32)
    signs = rng.standard_normal((LABELS, MODEL), dtype=np.float32) * np.float32(1.5)
    rows, places = np.arange(DATA), rng.integers(0, TOKENS, DATA)
    inputs[rows, places] += signs[labels]  # one token tells; attention has to find it
    params = {name: he(rng, MODEL, MODEL) * 0.7 for name in ("q", "k", "v")}
    return params | {"out": he(rng, MODEL, LABELS) * 0.3}, inputs, labels


def step_attn(p: Params, x: Array, y: Array) -> tuple[float, dict[str, Any]]:
    scale = np.float32(MODEL**-0.5)
    q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]  # (B, T, MODEL)
    scores = q @ k.transpose(0, 2, 1) * scale  # (B, T, T)
    weight = np.exp(scores - scores.max(axis=2, keepdims=True))
    weight /= weight.sum(axis=2, keepdims=True)
    pooled = (weight @ v).mean(axis=1)  # (B, MODEL)
    loss, d_out = cross_entropy(pooled @ p["out"], y)
    d_pool = (d_out @ p["out"].T / np.float32(TOKENS))[:, None, :]  # the same for every token
    d_mixed = np.broadcast_to(d_pool, v.shape)
    d_weight = d_mixed @ v.transpose(0, 2, 1)
    d_scores = weight * (d_weight - (d_weight * weight).sum(axis=2, keepdims=True)) * scale
    d_q, d_k, d_v = (
        d_scores @ k,
        d_scores.transpose(0, 2, 1) @ q,
        weight.transpose(0, 2, 1) @ d_mixed,
    )
    flat = x.reshape(-1, MODEL).T
    return loss, {
        "q": flat @ d_q.reshape(-1, MODEL),
        "k": flat @ d_k.reshape(-1, MODEL),
        "v": flat @ d_v.reshape(-1, MODEL),
        "out": pooled.T @ d_out,
    }


CLASSES = {
    "mlp-wide": JobClass(128, 0.02, build_wide, step_wide),
    "mlp-deep": JobClass(32, 0.005, build_deep, step_deep),
    "conv-small": JobClass(32, 0.2, build_conv, step_conv),
    "embed-rec": JobClass(256, 0.2, build_embed, step_embed),
    "attn-tiny": JobClass(64, 0.1, build_attn, step_attn),
}


def update(params: Params, grads: dict[str, Any], rate: float) -> None:
    """One step of stochastic gradient descent, in place."""
    for name, grad in grads.items():
        if isinstance(grad, tuple):
            rows, values = grad
            np.subtract.at(params[name], rows, np.float32(rate) * values)
        else:
            params[name] -= np.float32(rate) * grad


# the loop


@dataclass
class Run:
    """One attempt: what is trained, how far, and what its losses were."""

    name: str
    params: Params
    wanted: int  # samples of this attempt
    trained: int = 0  # samples of this attempt so far
    before: int = 0  # samples that the parameters saw in earlier attempts
    first_loss: float | None = None  # smoothed, of the job's very beginning
    losses: list[float] = field(default_factory=list)


class Throttle:
    """Idles after each step, so that computing takes `share` of wall time over the run.

    Sleeps run long, by a different time each; what one oversleeps the next ones leave out.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.owed_s = 0.0

    def idle(self, computed_s: float) -> None:
        self.owed_s += computed_s * (1.0 / self.share - 1.0)
        if self.owed_s < 0.001:
            return
        start = time.perf_counter()
        time.sleep(self.owed_s)
        self.owed_s -= time.perf_counter() - start


def train(run: Run, data: tuple[Array, Array], throttle: Throttle, stop: list[int]) -> None:
    """Until the samples are trained or a signal asked to stop; each report is also logged."""
    kind = CLASSES[run.name]
    inputs, labels = data
    told_at, told_steps = time.perf_counter(), 0
    while run.trained < run.wanted and not stop:
        start = time.perf_counter()
        size = min(kind.batch, run.wanted - run.trained)
        rows = np.arange(run.before + run.trained, run.before + run.trained + size) % DATA
        loss, grads = kind.step(run.params, inputs[rows], labels[rows])
        update(run.params, grads, kind.rate)
        run.trained += size
        run.losses.append(loss)
        throttle.idle(time.perf_counter() - start)
        now = time.perf_counter()
        if now - told_at >= REPORT_EVERY_S:
            tell(run, (now - told_at) / (len(run.losses) - told_steps))
            told_at, told_steps = now, len(run.losses)
    if len(run.losses) > told_steps:  # the last steps count too, also when told to stop
        tell(run, (time.perf_counter() - told_at) / (len(run.losses) - told_steps))
    if stop:
        say(f"told to stop by signal {stop[0]} after {run.trained} samples")


def tell(run: Run, step_time_s: float) -> None:
    """`step_time_s` is wall time, idling included: what the tenant gets, not what we compute."""
    loss = run.losses[-1]
    speed = CLASSES[run.name].batch / step_time_s
    say(f"samples {run.trained}/{run.wanted}  loss {loss:.4f}  {speed:.0f} samples/s")
    if REPORT is not None:
        known = loss if np.isfinite(loss) else None  # a diverged loss is no number to report
        REPORT(run.trained, step_time_s=step_time_s, loss=known)


def say(sentence: str) -> None:
    print(sentence, flush=True)


def first_loss(run: Run) -> float | None:
    """Mean over the job's first steps, also when an earlier attempt made them; None before any."""
    if run.first_loss is not None or not run.losses:
        return run.first_loss
    return float(np.mean(run.losses[: min(10, max(1, len(run.losses) // 10))]))


def loss_verdict(run: Run) -> str:
    """Empty when the loss fell; else the sentence to fail with."""
    start = first_loss(run)
    if start is None:
        return ""
    end = float(np.mean(run.losses[-max(1, len(run.losses) // 10) :]))
    if not np.isfinite(end):
        return f"the loss is {end}: training diverged"
    if len(run.losses) < MIN_STEPS:
        say(f"only {len(run.losses)} steps: too few to say whether the loss fell")
        return ""
    if end >= start:
        return f"the loss did not fall: {start:.4f} at first, {end:.4f} now"
    say(f"the loss fell from {start:.4f} to {end:.4f}")
    return ""


# checkpoints


def save(run: Run, file: Path) -> None:
    """Whole or not at all: a stop in the middle leaves the checkpoint before it."""
    trained = run.before + run.trained
    facts = {"class": run.name, "trained": trained, "first_loss": first_loss(run)}
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".tmp")
    with draft.open("wb") as out:
        np.savez(out, facts=np.array(json.dumps(facts)), **run.params)  # type: ignore[arg-type]
    draft.replace(file)
    say(f"checkpoint saved after {trained} samples in all: {file}")


def resume(run: Run, file: Path) -> None:
    """Take up what an earlier attempt left; a damaged file is said and not used."""
    if not file.exists():
        done = os.environ.get("HANSE_SAMPLES_DONE", "0")
        if done not in {"", "0"}:
            say(f"earlier attempts trained {done} samples, but their checkpoint is not here")
        return
    try:
        with np.load(file, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            arrays = {name: stored[name] for name in run.params}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        say(f"checkpoint {file} is damaged ({error}); starting afresh")
        return
    fits = all(arrays[name].shape == run.params[name].shape for name in arrays)
    if facts["class"] != run.name or not fits:
        say(f"checkpoint {file} is of class {facts['class']}; starting afresh")
        return
    run.params, run.before, run.first_loss = arrays, facts["trained"], facts["first_loss"]
    say(f"resumed after {run.before} samples: {file}")


# the command


def share_of_time(name: str, text: str) -> float:
    """The throttle declared for a class, above 0 and at most 1. Raises ValueError."""
    table = json.loads(text) if text else {}
    if not isinstance(table, dict):
        raise ValueError("it is not an object of class and share")
    share = table.get(name, table.get("*", 1.0))
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share <= 1.0:
        raise ValueError(f"the share of {name} is {share!r}, not above 0 and at most 1")
    return float(share)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real, small training job.")
    parser.add_argument("--class", dest="name", required=True, choices=sorted(CLASSES))
    parser.add_argument("--samples", type=int, help="to train now; else HANSE_SAMPLES, else 50000")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def prepared() -> tuple[Run, tuple[Array, Array], Throttle]:
    """Raises ValueError with a sentence when the call or the environment is wrong."""
    asked = options()
    try:
        throttle = Throttle(share_of_time(asked.name, os.environ.get("HANSE_THROTTLE", "")))
    except ValueError as error:
        raise ValueError(f"HANSE_THROTTLE cannot be used: {error}") from None
    told = os.environ.get("HANSE_SAMPLES") or "50000"
    if not (told.isascii() and told.isdigit()):
        raise ValueError(f"HANSE_SAMPLES must be a whole number, not {told!r}")
    wanted = asked.samples if asked.samples is not None else int(told)
    if wanted < 0 or asked.seed < 0:
        raise ValueError("samples and seed must not be negative")
    params, inputs, labels = CLASSES[asked.name].build(np.random.default_rng(asked.seed))
    slow = "none" if throttle.share == 1.0 else f"computes {throttle.share:.0%} of wall time"
    say(f"class {asked.name}, {wanted} samples, seed {asked.seed}, declared throttle: {slow}")
    return Run(asked.name, params, wanted), (inputs, labels), throttle


def main() -> int:
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    try:
        run, data, throttle = prepared()
    except ValueError as error:
        sys.stderr.write(f"training: {error}\n")
        return WRONG_CALL
    if REPORT is None:
        sys.stderr.write("training: `hanse` cannot be imported, so no progress is reported\n")
        if os.environ.get("HANSE_PROGRESS"):
            return WRONG_CALL  # a site waits for reports that would never come
    folder = os.environ.get("HANSE_CHECKPOINT_DIR")
    file = Path(folder) / "training.npz" if folder else None
    if file is not None:
        resume(run, file)
    train(run, data, throttle, stop)
    if file is not None:
        save(run, file)
    if stop:
        return TERMINATED
    fault = loss_verdict(run)
    if fault:
        sys.stderr.write(f"training: {fault}\n")
        return LOSS_DID_NOT_FALL
    return 0


if __name__ == "__main__":
    sys.exit(main())
