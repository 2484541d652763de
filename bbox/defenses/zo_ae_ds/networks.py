"""The networks in front of the black box: denoisers, and the autoencoder whose decoder is glued to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DENOISERS", "Autoencoder", "DnCNN", "Purifier", "Student", "UNet"]


class DnCNN(nn.Module):
    """A stack of 3x3 convolutions that predicts the noise (Zhang et al., TIP 2017), as in Denoised Smoothing.

    The last convolution starts at zero, so an untrained denoiser is the identity. Group normalisation takes the place
    of the paper's batch normalisation: a row is denoised alone as in any batch, and small batches train.

    Args:
        channels: of the image; width: channels inside; depth: convolutions.

    Shapes: (n, channels, height, width) to the same.
    """

    def __init__(self, channels: int, *, width: int = 16, depth: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), _norm(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, _zero(nn.Conv2d(width, channels, 3, padding=1)))

    def forward(self, rows: Tensor) -> Tensor:
        noise: Tensor = self.body(rows)
        return rows - noise


class UNet(nn.Module):
    """A three-level U-Net (Ronneberger et al., MICCAI 2015); like ``DnCNN`` it starts as the identity.

    Args:
        channels: of the image; widths: channels at each level, fine to coarse.

    Shapes: (n, channels, height, width) to the same, any size of at least 4.
    """

    def __init__(self, channels: int, *, widths: tuple[int, int, int] = (8, 32, 64)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.fine = _block(channels, fine)
        self.middle = _block(fine, middle)
        self.coarse = _block(middle, coarse)
        self.up_middle = _block(middle + coarse, middle)
        self.up_fine = _block(fine + middle, fine)
        self.out = _zero(nn.Conv2d(fine, channels, 1))

    def forward(self, rows: Tensor) -> Tensor:
        fine = self.fine(rows)
        middle = self.middle(F.avg_pool2d(fine, 2, ceil_mode=True))
        coarse = self.coarse(F.avg_pool2d(middle, 2, ceil_mode=True))
        middle = self.up_middle(torch.cat([F.interpolate(coarse, size=middle.shape[-2:]), middle], 1))
        fine = self.up_fine(torch.cat([F.interpolate(middle, size=fine.shape[-2:]), fine], 1))
        change: Tensor = self.out(fine)
        return rows + change


DENOISERS: dict[str, Callable[[int], nn.Module]] = {"dncnn": DnCNN, "unet": UNet}


class Autoencoder(nn.Module):
    """A convolutional autoencoder with a linear bottleneck of standardised features.

    The public networks put a ReLU on the bottleneck, where a third of the features is zero and gets no gradient; here
    it is linear, and ``standardise`` rescales it so that each feature has mean 0 and deviation 1 over the training
    images: one step size fits all of them.

    Args:
        shape: (channels, height, width); dim: features of the bottleneck; width: channels of the inner layers.

    Shapes: encode: (n, *shape) to (n, dim); decode: (n, dim) to (n, *shape) in (0, 1).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Sequence[int], dim: int, *, width: int = 16) -> None:
        super().__init__()
        self.shape = tuple(shape)
        channels, height, across = self.shape
        halvings = max(1, round(math.log2(min(height, across) / 7))) if min(height, across) >= 14 else 1
        widths = [width * 2**i for i in range(halvings)]
        sizes = [(height, across)]
        down: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        flat = widths[-1] * sizes[-1][0] * sizes[-1][1]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, dim))
        up: list[nn.Module] = [nn.Linear(dim, flat), nn.GELU(), nn.Unflatten(1, (widths[-1], *sizes[-1]))]
        for place in reversed(range(halvings)):
            up += [nn.Upsample(size=sizes[place], mode="nearest")]
            last = place == 0
            up += [nn.Conv2d(widths[place], channels if last else widths[place - 1], 3, padding=1)]
            up += [] if last else [nn.GELU()]
        self.decoder = nn.Sequential(*up)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def encode(self, rows: Tensor) -> Tensor:
        features: Tensor = self.encoder(rows)
        return (features - self.mean) / self.deviation

    def logits(self, features: Tensor) -> Tensor:
        """The image before the sigmoid, for the loss."""
        pixels: Tensor = self.decoder(features * self.deviation + self.mean)
        return pixels

    def decode(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(features))

    def forward(self, rows: Tensor) -> Tensor:
        return self.decode(self.encode(rows))

    @torch.no_grad()
    def standardise(self, rows: Tensor) -> None:
        """Set mean and deviation of the features from these images: (n, *shape)."""
        features = torch.cat([self.encoder(part) for part in torch.split(rows, 256)])
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0).clamp_min(1e-6))


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(max(1, min(8, width // 4)), width)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _block(before: int, after: int) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), _norm(after), nn.GELU()]
    return nn.Sequential(*layers)


class Student(nn.Module):
    """A small classifier that learns to answer as the black box does, to lend it a gradient.

    Shapes: (n, channels, height, width) to (n, classes) logits; any size of at least 8.
    """

    def __init__(self, channels: int, classes: int, *, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.GELU(),
            nn.AvgPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * width, classes),
        )

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.body(rows)
        return logits


class Purifier(nn.Module):
    """What stands in front of the black box: a denoiser, and an autoencoder behind it where there is one.

    A *point* is where the zeroth-order gradient is taken: the features of the bottleneck, or without an autoencoder
    the denoised image itself. ``image`` makes of a point what the black box is asked.

    Shapes: rows, images (n, channels, height, width); points (n, dim) or (n, channels, height, width).
    """

    def __init__(self, denoiser: nn.Module, autoencoder: Autoencoder | None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.autoencoder = autoencoder
        self.channels = next(m.in_channels for m in denoiser.modules() if isinstance(m, nn.Conv2d))

    def denoise(self, rows: Tensor) -> Tensor:
        denoised: Tensor = self.denoiser(rows.contiguous(memory_format=torch.channels_last))
        return denoised

    def point(self, denoised: Tensor) -> Tensor:
        return denoised if self.autoencoder is None else self.autoencoder.encode(denoised)

    def image(self, points: Tensor) -> Tensor:
        if self.autoencoder is not None:
            return self.autoencoder.decode(points)
        # What lies outside [0, 1] is no image. The gradient passes as if nothing were cut.
        return points + (points.clamp(0, 1) - points).detach()

    def forward(self, rows: Tensor) -> Tensor:
        return self.image(self.point(self.denoise(rows)))

    def trainable(self) -> list[nn.Parameter]:
        """Denoiser and encoder; the decoder stays glued to the black box as it is."""
        encoder = [] if self.autoencoder is None else list(self.autoencoder.encoder.parameters())
        return [*self.denoiser.parameters(), *encoder]
