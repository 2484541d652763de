"""A small transformer over frames."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bbox.motion.networks.base import MotionNetwork, mean_pool
from bbox.motion.skeleton import Skeleton

__all__ = ["MotionTransformer"]


class MotionTransformer(MotionNetwork):
    """Self-attention over frames (Vaswani et al., NeurIPS 2017; layers normalised first), and the mean over time.

    A frame is one token: all its joints through one linear layer, and the sines of its time.

    Args:
        width: size of a token, even and a multiple of ``heads``.
        heads: attention heads of each layer.
        layers: how many.
        dropout: probability of dropping a value inside a layer.
    """

    FULL: ClassVar[dict[str, Any]] = {"width": 256, "heads": 8, "layers": 6, "dropout": 0.1}

    def __init__(
        self,
        skeleton: Skeleton,
        classes: int,
        *,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.0,
        bodies: int = 1,
        as_published: bool = False,
    ) -> None:
        super().__init__(skeleton, classes, width, bodies=bodies, as_published=as_published)
        self.embed = nn.Linear(3 * len(skeleton), width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def body_features(self, motions: Tensor, mask: Tensor | None) -> Tensor:
        tokens = self.embed(motions.transpose(1, 2).flatten(2))
        tokens = tokens + _sines(tokens.shape[1], tokens)
        hidden = self.encoder(tokens, src_key_padding_mask=None if mask is None else mask[:, 0, :, 0] == 0)
        return mean_pool(hidden.transpose(1, 2).unsqueeze(3), mask)


def _sines(frames: int, like: Tensor) -> Tensor:
    """Sines and cosines of the time, with wavelengths from 2 pi to 10000 times that: (frames, width)."""
    half = like.shape[2] // 2
    rates = torch.exp(torch.arange(half, device=like.device) * (-math.log(10000.0) / half))
    angles = torch.arange(frames, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1).to(like.dtype)
