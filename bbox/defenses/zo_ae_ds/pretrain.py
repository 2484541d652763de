"""What can be trained without a query: the autoencoder, and a denoiser on the mean squared error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbox.defenses.zo_ae_ds.networks import Autoencoder, Purifier

__all__ = ["augment", "one_cycle", "train_autoencoder", "train_denoiser"]

_BATCH = 128
Report = Callable[[str, int, int], None]


def one_cycle(progress: float) -> float:
    """The learning rate's factor at this share of the work: a linear rise over the first tenth, then half a cosine."""
    if progress < 0.1:
        return max(progress / 0.1, 0.02)
    return max(0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.1) / 0.9))), 1e-3)


def augment(images: Tensor) -> Tensor:
    """Each image turned (10 degrees), sized (10 %) and shifted (10 %) a little, at random. Shapes: (n, c, h, w)."""
    count = len(images)
    reach = torch.tensor([math.radians(10), 0.1, 0.1, 0.1], device=images.device)
    turn, size, right, down = ((torch.rand(count, 4, device=images.device) * 2 - 1) * reach).unbind(1)
    cos, sin, scale = turn.cos(), turn.sin(), 1 + size
    maps = torch.stack([cos * scale, -sin * scale, right, sin * scale, cos * scale, down], 1).view(count, 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def train_denoiser(purifier: Purifier, images: Tensor, sigma: float, *, steps: int, report: Report) -> None:
    """Train the denoiser on E || D(x + noise) - x ||^2, the query-free Denoised Smoothing (Salman et al., 2020).

    Shapes: images (n, *shape) in [0, 1].
    """

    def loss(clean: Tensor) -> Tensor:
        return F.mse_loss(purifier.denoise(clean + sigma * torch.randn_like(clean)), clean)

    _descend("denoiser", list(purifier.denoiser.parameters()), images, loss, steps, report)


def train_autoencoder(autoencoder: Autoencoder, images: Tensor, *, steps: int, report: Report) -> None:
    """Train the autoencoder on the cross-entropy of pixels, and standardise its features.

    With a sigmoid and the squared error, as published, the same networks gave a constant image in two tries of two
    (shared/reference, 3.6); with the cross-entropy in none. ``fit`` checks it all the same.

    Shapes: images (n, *shape) in [0, 1].
    """

    def loss(clean: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(autoencoder.logits(autoencoder.encoder(clean)), clean)

    # Untrained, mean and deviation are 0 and 1, so that the raw features pass through.
    _descend("autoencoder", list(autoencoder.parameters()), images, loss, steps, report)
    autoencoder.standardise(images)


def _descend(
    stage: str,
    parameters: Sequence[nn.Parameter],
    images: Tensor,
    loss: Callable[[Tensor], Tensor],
    steps: int,
    report: Report,
    rate: float = 4e-3,
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * one_cycle(step / steps)
        rows = torch.randint(len(images), (min(_BATCH, len(images)),), device=images.device)
        optimizer.zero_grad()
        torch.autograd.backward(loss(augment(images[rows]).contiguous(memory_format=torch.channels_last)))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        report(stage, step + 1, steps)
