"""Sequence classes: encoder, encoder with decoder, blocks of a large language model, LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.catalogue.training import Training, adam

VOCABULARY = 8192


def tokens(batch: int, length: int, device: torch.device) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), device=device)


def guessed(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())


class Encoder(nn.Module):
    """Every token sees every other; each is guessed (Devlin and others, 2019)."""

    def __init__(self, width: int, layers: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.places = nn.Parameter(torch.zeros(length, width))
        layer = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, dropout=0.0, activation="gelu", batch_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.leave = nn.Linear(width, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.leave(self.body(self.words(x) + self.places))
        return out


def encoder(width: int, layers: int, length: int, batch: int, device: torch.device) -> Training:
    model = Encoder(width, layers, length).to(device)
    x, y = tokens(batch, length, device), tokens(batch, length, device)
    return Training(model, adam(model), lambda: guessed(model(x), y), batch)


class Translator(nn.Module):
    """Encoder and decoder, with attention between them (Vaswani and others, 2017)."""

    def __init__(self, width: int, layers: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.places = nn.Parameter(torch.zeros(length, width))
        self.body = nn.Transformer(
            width, width // 64, layers, layers, 4 * width, dropout=0.0, batch_first=True
        )
        self.body.encoder.enable_nested_tensor = False
        self.leave = nn.Linear(width, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        inner = self.body(
            self.words(source) + self.places,
            self.words(target) + self.places,
            tgt_mask=mask,
            tgt_is_causal=True,
        )
        out: Tensor = self.leave(inner)
        return out


def decoder(width: int, layers: int, length: int, batch: int, device: torch.device) -> Training:
    model = Translator(width, layers, length).to(device)
    source, target = tokens(batch, length, device), tokens(batch, length, device)
    return Training(
        model, adam(model), lambda: guessed(model(source, target), target.roll(-1, 1)), batch
    )


class Block(nn.Module):
    """Root-mean-square norms, rotary places, shared keys and a gated layer.

    (Touvron and others, LLaMA, 2023; Ainslie and others, Grouped-query attention, 2023.)
    """

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.side = heads, shared, width // heads
        self.first, self.second = nn.RMSNorm(width), nn.RMSNorm(width)
        self.asks = nn.Linear(width, width, bias=False)
        self.keys = nn.Linear(width, 2 * shared * self.side, bias=False)
        self.join = nn.Linear(width, width, bias=False)
        inner = 8 * width // 3 // 64 * 64
        self.gate = nn.Linear(width, 2 * inner, bias=False)
        self.shrink = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        batch, length, width = x.shape
        normed = self.first(x)
        asks = self.asks(normed).view(batch, length, self.heads, self.side).transpose(1, 2)
        both = self.keys(normed).view(batch, length, 2 * self.shared, self.side).transpose(1, 2)
        keys, values = both.chunk(2, dim=1)
        many = self.heads // self.shared
        attended = functional.scaled_dot_product_attention(
            turned(asks, turn),
            turned(keys, turn).repeat_interleave(many, 1),
            values.repeat_interleave(many, 1),
            is_causal=True,
        )
        x = x + self.join(attended.transpose(1, 2).reshape(batch, length, width))
        gate, inner = self.gate(self.second(x)).chunk(2, dim=-1)
        return x + self.shrink(functional.silu(gate) * inner)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Pairs of numbers turned by an angle that grows with the place, (batch, heads, places, n)."""
    one, other = x.chunk(2, dim=-1)
    cos, sin = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)


class Blocks(nn.Module):
    """Some blocks between embedding and logits."""

    def __init__(self, width: int, layers: int, length: int) -> None:
        super().__init__()
        heads = width // 64
        self.words = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, heads, max(heads // 4, 1)) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.leave = nn.Linear(width, VOCABULARY, bias=False)
        speeds = 1e4 ** -(torch.arange(32) / 32)
        self.register_buffer("turn", torch.arange(length)[:, None] * speeds)
        self.turn: Tensor

    def forward(self, x: Tensor) -> Tensor:
        inner = self.words(x)
        for block in self.blocks:
            inner = block(inner, self.turn)
        out: Tensor = self.leave(self.norm(inner))
        return out


def llm(width: int, layers: int, length: int, batch: int, device: torch.device) -> Training:
    model = Blocks(width, layers, length).to(device)
    x = tokens(batch, length, device)
    return Training(model, adam(model), lambda: guessed(model(x), x.roll(-1, 1)), batch)


class Recurrent(nn.Module):
    """A language model on long short-term memory (Hochreiter and Schmidhuber, 1997)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.body = nn.LSTM(width, width, layers, batch_first=True)
        self.leave = nn.Linear(width, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.leave(self.body(self.words(x))[0])
        return out


def recurrent(width: int, layers: int, length: int, batch: int, device: torch.device) -> Training:
    model = Recurrent(width, layers).to(device)
    x = tokens(batch, length, device)
    return Training(model, adam(model), lambda: guessed(model(x), x.roll(-1, 1)), batch)
