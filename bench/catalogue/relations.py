"""Classes that are neither images nor text: recommendation, graphs, reinforcement learning."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.catalogue.training import Training, adam


def layers(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    made: list[nn.Module] = []
    for narrow, wide in itertools.pairwise(widths):
        made += [nn.Linear(narrow, wide), nn.ReLU()]
    return nn.Sequential(*made[:-1])


class Recommender(nn.Module):
    """Embeddings of categories and a network of numbers, multiplied pairwise.

    (Naumov and others, Deep Learning Recommendation Model, 2019.) Gradients of tables are sparse.
    """

    def __init__(self, tables: int, rows: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(rows, width, mode="sum", sparse=True) for _ in range(tables)
        )
        self.numbers = layers(13, 4 * width, width)
        pairs = (tables + 1) * tables // 2
        self.top = layers(pairs + width, 256, 128, 1)
        corner = torch.triu_indices(tables + 1, tables + 1, 1)
        self.register_buffer("corner", corner)
        self.corner: Tensor

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        dense = self.numbers(numbers)
        looked_up = [table(categories[:, place]) for place, table in enumerate(self.tables)]
        rows = torch.stack([dense, *(row.to(dense.dtype) for row in looked_up)], dim=1)
        products = rows @ rows.transpose(1, 2)
        pairs = products[:, self.corner[0], self.corner[1]]
        out: Tensor = self.top(torch.cat([dense, pairs], dim=1)).squeeze(1)
        return out


def recommendation(
    tables: int, rows: int, width: int, batch: int, device: torch.device
) -> Training:
    model = Recommender(tables, rows, width).to(device)
    numbers = torch.randn(batch, 13, device=device)
    categories = torch.randint(0, rows, (batch, tables, 4), device=device)
    clicked = torch.rand(batch, device=device).round()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def loss() -> Tensor:
        return functional.binary_cross_entropy_with_logits(model(numbers, categories), clicked)

    return Training(model, optimizer, loss, batch)


class Graphs(nn.Module):
    """Nodes take the mean of their neighbours (Hamilton and others, GraphSAGE, 2017)."""

    def __init__(self, features: int, width: int, depth: int) -> None:
        super().__init__()
        inner = [features, *[width] * depth]
        pairs = list(itertools.pairwise(inner))
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.near = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)
        self.leave = nn.Linear(width, 16)

    def forward(self, x: Tensor, source: Tensor, target: Tensor, graphs: int) -> Tensor:
        ones = torch.ones_like(target, dtype=x.dtype)
        neighbours = x.new_zeros(len(x)).index_add(0, target, ones).clamp(min=1.0)[:, None]
        for own, near in zip(self.own, self.near, strict=True):
            heard = torch.zeros_like(x).index_add(0, target, x[source]) / neighbours
            x = torch.relu(own(x) + near(heard)).float()
        out: Tensor = self.leave(x.view(graphs, -1, x.shape[1]).mean(1))
        return out


def graph(nodes: int, edges: int, width: int, batch: int, device: torch.device) -> Training:
    model = Graphs(32, width, 3).to(device)
    x = torch.randn(batch * nodes, 32, device=device)
    first = torch.arange(batch, device=device).repeat_interleave(edges) * nodes
    source = first + torch.randint(0, nodes, (batch * edges,), device=device)
    target = first + torch.randint(0, nodes, (batch * edges,), device=device)
    y = torch.randint(0, 16, (batch,), device=device)

    def loss() -> Tensor:
        return functional.cross_entropy(model(x, source, target, batch), y)

    return Training(model, adam(model), loss, batch)


HORIZON = 16  #: moves in all environments between two updates
PULL = 0.05  #: of a made-up environment on its state
DISCOUNT = 0.99


class Player(nn.Module):
    """Chances of each move and the value of a state, from one body."""

    def __init__(self, state: int, width: int, moves: int) -> None:
        super().__init__()
        self.body = nn.Sequential(layers(state, width, width), nn.ReLU())
        self.moves = nn.Linear(width, moves)
        self.value = nn.Linear(width, 1)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.body(state)
        return self.moves(inner).log_softmax(-1), self.value(inner).squeeze(-1)


def reinforcement(state: int, width: int, moves: int, batch: int, device: torch.device) -> Training:
    """Advantage actor-critic (Mnih and others, 2016) on `batch` environments at once.

    In each, a state drifts and a move pushes it one way; what counts is to stay near zero.
    """
    model = Player(state, width, moves).to(device)
    pushes = torch.randn(moves, state, device=device) * PULL
    start = torch.randn(batch, state, device=device)

    def loss() -> Tensor:
        now, chances, values, rewards = start, [], [], []
        for _ in range(HORIZON):
            policy, value = model(now)
            move = torch.multinomial(policy.detach().float().exp(), 1)
            chances.append(policy.gather(1, move).squeeze(1).float())
            values.append(value.float())
            now = (1.0 + PULL) * now + pushes[move.squeeze(1)]
            rewards.append(-now.square().mean(1))
        with torch.no_grad():
            ahead = model(now)[1].float()
        returns = []
        for reward in reversed(rewards):
            ahead = reward + DISCOUNT * ahead
            returns.append(ahead)
        gained = torch.stack(returns[::-1]) - torch.stack(values)
        return gained.square().mean() - (torch.stack(chances) * gained.detach()).mean()

    return Training(model, adam(model), loss, batch * HORIZON)
