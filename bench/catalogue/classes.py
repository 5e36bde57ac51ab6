"""The classes of the catalogue: each family at a size that a CPU can train, and at a GPU's."""

from __future__ import annotations

from functools import partial

from bench.catalogue.language import decoder, encoder, llm, recurrent
from bench.catalogue.relations import graph, recommendation, reinforcement
from bench.catalogue.training import ModelClass
from bench.catalogue.vision import cnn, diffusion

SEQUENCES = {"small": "sequence of 64 tokens", "base": "sequence of 512 tokens"}

SMALL = (
    ModelClass("cnn", "small", "image of 32x32", (4, 16, 64), partial(cnn, 16, 1, 32)),
    ModelClass("encoder", "small", SEQUENCES["small"], (1, 4, 16), partial(encoder, 128, 2, 64)),
    ModelClass("decoder", "small", SEQUENCES["small"], (1, 4, 16), partial(decoder, 128, 2, 64)),
    ModelClass("llm", "small", SEQUENCES["small"], (1, 4, 16), partial(llm, 256, 2, 64)),
    ModelClass("lstm", "small", SEQUENCES["small"], (1, 4, 16), partial(recurrent, 128, 2, 64)),
    ModelClass(
        "recommendation", "small", "click", (64, 256, 1024), partial(recommendation, 8, 10_000, 16)
    ),
    ModelClass("gnn", "small", "graph of 64 nodes", (4, 16, 64), partial(graph, 64, 256, 64)),
    ModelClass(
        "diffusion", "small", "image of 32x32", (1, 4, 16), partial(diffusion, 16, 3, 32)
    ),
    ModelClass("rl", "small", "move", (16, 64, 256), partial(reinforcement, 32, 64, 8)),
)  # fmt: skip

BASE = (
    ModelClass("cnn", "base", "image of 128x128", (16, 64, 256), partial(cnn, 64, 3, 128)),
    ModelClass("encoder", "base", SEQUENCES["base"], (4, 16, 64), partial(encoder, 768, 12, 512)),
    ModelClass("decoder", "base", SEQUENCES["base"], (4, 16, 64), partial(decoder, 512, 6, 512)),
    ModelClass("llm", "base", SEQUENCES["base"], (1, 4, 16), partial(llm, 2048, 4, 512)),
    ModelClass("lstm", "base", SEQUENCES["base"], (16, 64, 256), partial(recurrent, 1024, 2, 512)),
    ModelClass(
        "recommendation", "base", "click", (1024, 4096, 16384),
        partial(recommendation, 26, 1_000_000, 64),
    ),
    ModelClass("gnn", "base", "graph of 512 nodes", (16, 64, 256), partial(graph, 512, 4096, 256)),
    ModelClass("diffusion", "base", "image of 64x64", (8, 32, 128), partial(diffusion, 128, 4, 64)),
    ModelClass("rl", "base", "move", (256, 1024, 4096), partial(reinforcement, 256, 512, 32)),
)  # fmt: skip

CLASSES = SMALL + BASE
