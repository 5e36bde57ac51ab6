"""Image classes: a residual network and the U-Net of a diffusion model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.catalogue.training import Training, adam


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation, beside a shortcut (He and others, 2016)."""

    def __init__(self, width: int, wider: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, wider, 3, stride, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU(),
            nn.Conv2d(wider, wider, 3, 1, 1, bias=False),
            nn.BatchNorm2d(wider),
        )
        straight = width == wider and stride == 1
        self.short = nn.Identity() if straight else nn.Conv2d(width, wider, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def residual_network(width: int, blocks: int, classes: int) -> nn.Sequential:
    """Four stages, each of half the side and twice the channels of the one before."""
    stages: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.ReLU()]
    inner = width
    for stage in range(4):
        wider = width * 2**stage
        for block in range(blocks):
            stages.append(Residual(inner, wider, 2 if stage and not block else 1))
            inner = wider
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, classes))


def cnn(width: int, blocks: int, side: int, batch: int, device: torch.device) -> Training:
    model = residual_network(width, blocks, 100).to(device)
    x = torch.randn(batch, 3, side, side, device=device)
    y = torch.randint(0, 100, (batch,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return Training(model, optimizer, lambda: functional.cross_entropy(model(x), y), batch)


class Denoise(nn.Module):
    """A residual block that is told the time step (Ho and others, 2020)."""

    def __init__(self, width: int, wider: int, time: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, wider, 3, 1, 1)
        )
        self.time = nn.Linear(time, wider)
        self.second = nn.Sequential(
            nn.GroupNorm(8, wider), nn.SiLU(), nn.Conv2d(wider, wider, 3, 1, 1)
        )
        self.short = nn.Conv2d(width, wider, 1) if width != wider else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        inner = self.first(x) + self.time(time)[:, :, None, None]
        return self.second(inner) + self.short(x)


class UNet(nn.Module):
    """Down, attention over all places of the smallest image, and up again."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        time = width * 4
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(3, width, 3, 1, 1)
        before = [width, *widths[:-1]]
        self.down = nn.ModuleList(Denoise(a, b, time) for a, b in zip(before, widths, strict=True))
        self.attention = nn.MultiheadAttention(widths[-1], 4, batch_first=True)
        self.middle = Denoise(widths[-1], widths[-1], time)
        self.up = nn.ModuleList(
            Denoise(2 * b, a, time) for a, b in zip(before[::-1], widths[::-1], strict=True)
        )
        self.leave = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3, 3, 1, 1))

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        half = self.width // 2
        waves = torch.exp(-math.log(1e4) * torch.arange(half, device=x.device) / half)
        angles = when[:, None] * waves
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        x, kept = self.enter(x), []
        for block in self.down:
            x = block(x, time)
            kept.append(x)
            x = functional.avg_pool2d(x, 2)
        places = x.flatten(2).transpose(1, 2)
        attended = self.attention(places, places, places, need_weights=False)[0]
        x = self.middle(x + attended.transpose(1, 2).reshape(x.shape), time)
        for block in self.up:
            x = functional.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, kept.pop()], dim=1), time)
        return self.leave(x)


def diffusion(width: int, levels: int, side: int, batch: int, device: torch.device) -> Training:
    model = UNet(width, levels).to(device)
    noise = torch.randn(batch, 3, side, side, device=device)
    noisy = 0.7 * torch.randn_like(noise) + 0.7 * noise
    when = torch.randint(0, 1000, (batch,), device=device).float()
    return Training(
        model, adam(model), lambda: functional.mse_loss(model(noisy, when), noise), batch
    )
