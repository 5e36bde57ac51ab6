"""Every plan of a job by plain loops, one number at a time: the planner's referee.

Written from the formulas, not from the planner; it shares only the records that describe a job.
"""

from __future__ import annotations

import random

from federation.affinity.planner.model import ModelDescription, transformer_parameters
from federation.affinity.planner.pool import Device, Pool


def every_plan(model, pool, gpus):
    """(seconds, tensor, pipeline, data, zero, recompute, micro-batch, bytes) of all that fit."""
    found = []
    for t in (1, 2, 4, 8):
        if gpus % t or model.heads % t or t > pool.gpus_per_node:
            continue
        if gpus > pool.gpus_per_node and pool.gpus_per_node % t:
            continue
        for p in range(1, min(model.layers, gpus) + 1):
            if model.layers % p or gpus % (t * p):
                continue
            d = gpus // (t * p)
            for b in range(1, model.global_batch // d + 1):
                if model.global_batch % (d * b) == 0:
                    found += ways(model, pool, gpus, t, p, d, b)
    return [row for row in found if row[-1] <= 0.92 * pool.device.memory_gb * 1e9]


def ways(model, pool, gpus, t, p, d, b):
    stages = [0] if d == 1 else [0, 1] if p > 1 else [0, 1, 2, 3]
    for z in stages:
        for way in ("none", "selective", "full"):
            bytes_ = states(model, t, p, d, z) + activations(model, t, p, d, b, way)
            yield seconds(model, pool, gpus, t, p, d, b, z, way), t, p, d, z, way, b, bytes_


def states(model, t, p, d, z):
    embedding = model.vocab * model.hidden
    layer = (model.params - embedding) / model.layers
    held = (layer * model.layers / p + embedding) / t
    if z == 3:
        return 18 * held / d + 4 * max(layer, embedding) / t
    return held * (18 if z == 0 else 6 + 12 / d if z == 1 else 4 + 16 / d)


def one_layer(model, t, b, way):
    s, h, a = model.seq, model.hidden, model.heads
    if way == "full":
        return 2 * s * b * h
    shared = t > 1 and s % t == 0
    base = s * b * h * (34 / t if shared else 10 + 24 / t)
    return base + (5 * a * s * s * b / t if way == "none" else 0)


def activations(model, t, p, d, b, way):
    s, h = model.seq, model.hidden
    m = model.global_batch // (d * b)
    divide = t if t > 1 and s % t == 0 else 1
    layers = model.layers // p * one_layer(model, t, b, way)
    extra = one_layer(model, t, b, "selective") if way == "full" else 0
    logits = 4 * s * b * h * (1 + model.vocab / h) / divide
    first = min(m, p) * (layers + (8 * s * b + s * b * h) / divide) + extra
    if p == 1:
        return first + logits
    return max(first, layers + extra + logits)


def seconds(model, pool, gpus, t, p, d, b, z, way):
    s, h, layers = model.seq, model.hidden, model.layers
    m = model.global_batch // (d * b)
    rate = pool.efficiency * pool.device.peak_tflops * 1e12 * t
    intra, inter = pool.device.intra_gbit_s * 1.25e8, pool.device.inter_gbit_s * 1.25e8
    embedding = model.vocab * h
    forward = 2 * s * (model.params - embedding) / layers + 4 * s * s * h
    times = {"none": 3 * forward, "selective": 3 * forward + 4 * s * s * h, "full": 4 * forward}
    boundary = 2 * s * b * h
    reduces = (6 if way == "full" else 4) * boundary * 2 * (t - 1) / t / intra
    stage = layers // p * (b * times[way] / rate + reduces)
    if p > 1:
        link = inter if gpus > pool.gpus_per_node else intra
        stage += 2 * boundary / (t if t > 1 and s % t == 0 else 1) / link
    last = stage + 6 * s * b * embedding / rate
    inside = gpus <= pool.gpus_per_node or pool.gpus_per_node % (t * d) == 0
    held = ((model.params - embedding) / p + embedding) / t
    moved = held * (d - 1) / d / (intra if inside else inter)
    computing = b * (layers // p * times[way] + 6 * s * embedding) / rate
    once = {0: 8, 1: 6, 2: 2, 3: 0}[z] * moved
    every = {0: 0, 1: 0, 2: 2, 3: 6}[z] * moved
    exposed = m * max(0, every - computing) + max(0, once - computing * 2 / 3)
    return m * last + (p - 1) * stage + exposed


def a_job(seed):
    """A transformer, a pool and a GPU count drawn at random."""
    draw = random.Random(seed)
    heads = draw.choice([4, 6, 8, 12, 16, 32])
    hidden = heads * draw.choice([32, 64, 96, 128])
    layers, seq = draw.choice([4, 6, 12, 18, 24, 30]), draw.choice([65, 512, 1024, 2048])
    vocab = draw.choice([1000, 32000, 50257, 128256])
    model = ModelDescription(
        params=transformer_parameters(layers, hidden, vocab, seq) * draw.choice([1.0, 1.3]),
        layers=layers,
        hidden=hidden,
        heads=heads,
        seq=seq,
        vocab=vocab,
        global_batch=draw.choice([1, 7, 32, 60, 96, 256]),
        samples=draw.choice([1e3, 1e6]),
    )
    device = Device(
        memory_gb=draw.choice([8, 16, 24, 80]),
        peak_tflops=draw.choice([65, 125, 312, 989]),
        intra_gbit_s=draw.choice([100, 2400, 7200]),
        inter_gbit_s=draw.choice([10, 100, 400]),
    )
    node = draw.choice([1, 2, 4, 6, 8])
    price = draw.choice([0.0, 0.5, 2.0])
    pool = Pool(f"pool-{seed}", device, 64, node, price, draw.choice([0.3, 0.5]))
    return model, pool, draw.choice([1, 2, 3, 4, 8, 12, 16, 24, 32, 64])
