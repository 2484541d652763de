"""Prompters: how a vector of parameters changes images. BlackVIP's coordinator looks at the image, VP does not."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bbox.defenses.blackvip.decoder import Backend, Decoder, Norm, Statistics
from bbox.defenses.blackvip.encoders import Encoder

__all__ = ["Coordinator", "Prompter", "Reprogram", "UniversalPrompt"]


class Prompter(ABC):
    """A family of image changes with ``dim`` parameters.

    Attributes:
        dim: number of parameters.
        starts_clean: whether the first weights change nothing, so that step 0 is the model as it is.
    """

    dim: int
    starts_clean: bool = True

    @abstractmethod
    def start(self, seed: int) -> Tensor:
        """The first weights, (dim,) float32 on the CPU."""

    def context(self, images: Tensor) -> Tensor:
        """What the prompt needs to know of each image, computed once: (n, features)."""
        return images.new_empty(len(images), 0)

    @abstractmethod
    def rows(self, weights: Tensor, images: Tensor, context: Tensor, statistics: Statistics | None = None) -> Tensor:
        """The images under each weight vector, clipped to the valid box.

        Shapes:
            weights: (m, dim); images: (n, channels, height, width) in [0, 1]; context: (n, features).
            returns: (m, n, channels, height, width) in [0, 1].
        """

    def statistics(self, weights: Tensor, images: Tensor, context: Tensor) -> Statistics | None:
        """What has to be fixed before one image alone can be served; ``None`` for nothing. Shapes: weights (dim,)."""
        del weights, images, context
        return None


class Coordinator(Prompter):
    """BlackVIP's coordinator: x + scale * decoder([encoder(x), trigger]) (Oh et al. 2023, section 3.2, equation 2).

    Args:
        encoder: frozen features; asked once an image.
        shape: (channels, height, width) of an image.
        scale: the prompt's scale, in pixels of [0, 1].
        trigger_scale: what the trigger's parameters are multiplied with. The trigger carries the position in the
            image; at 1 (as published) steps that suit the decoder's weights hardly move it within 50,000 queries.
        zero: start with the last layer at zero.
        center, spread: (encoder.dim,) that features are standardised with; ``None`` leaves them as they are.
    """

    def __init__(
        self,
        encoder: Encoder,
        shape: tuple[int, int, int],
        *,
        scale: float = 1.0,
        trigger_scale: float = 1.0,
        norm: Norm = "group",
        zero: bool = True,
        backend: Backend = "bmm",
        center: Tensor | None = None,
        spread: Tensor | None = None,
    ) -> None:
        # The source holds the features and leaves room for the trigger: 1568 for 768 features at 224 pixels.
        self.decoder = Decoder(shape, least=math.ceil(1.5 * encoder.dim), norm=norm)
        self.encoder = encoder
        self.scale, self.trigger_scale = scale, trigger_scale
        self.zero = self.starts_clean = zero
        self.backend = backend
        self.center, self.spread = center, spread
        self.trigger = self.decoder.source - encoder.dim
        self.dim = self.trigger + self.decoder.dim

    def start(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        trigger = torch.rand(self.trigger, generator=generator) * 0.1 / self.trigger_scale
        return torch.cat([trigger, self.decoder.start(generator, zero=self.zero)])

    def context(self, images: Tensor) -> Tensor:
        return self.standardised(self.encoder(images))

    def standardised(self, features: Tensor) -> Tensor:
        """The context from an encoder's features. Shapes: (n, encoder.dim), both."""
        if self.center is None or self.spread is None:
            return features
        return (features - self.center.to(features)) / self.spread.to(features)

    def rows(self, weights: Tensor, images: Tensor, context: Tensor, statistics: Statistics | None = None) -> Tensor:
        sources = self._sources(weights, context)
        weights = weights[:, self.trigger :]
        prompts = self.decoder(weights, sources, statistics=statistics, backend=self.backend)
        return torch.add(images, prompts, alpha=self.scale).clamp_(0.0, 1.0)

    def statistics(self, weights: Tensor, images: Tensor, context: Tensor) -> Statistics | None:
        return self.decoder.statistics(weights[self.trigger :], self._sources(weights[None], context)[0])

    def _sources(self, weights: Tensor, context: Tensor) -> Tensor:
        """[features, trigger] for each pair of a weight vector and an image: (m, n, source)."""
        m, n = len(weights), len(context)
        trigger = self.trigger_scale * weights[:, None, : self.trigger]
        return torch.cat([context.expand(m, n, -1), trigger.expand(m, n, -1)], dim=2)


class UniversalPrompt(Prompter):
    """VP: one prompt for every image, over all of it or on a frame (Bahng et al. 2022), clipped to the valid box.

    Args:
        frame: width of the frame in pixels (30 at 224 as published); 0 covers the image.
    """

    def __init__(self, shape: tuple[int, int, int], frame: int = 0) -> None:
        self.shape = shape
        self._free = _frame(shape, frame) if frame else torch.ones(shape, dtype=torch.bool)
        self.dim = int(self._free.sum())

    def start(self, seed: int) -> Tensor:
        del seed
        return torch.zeros(self.dim)

    def rows(self, weights: Tensor, images: Tensor, context: Tensor, statistics: Statistics | None = None) -> Tensor:
        return (images + _scatter(weights, self._free)[:, None]).clamp_(0.0, 1.0)


class Reprogram(Prompter):
    """BAR: the image shrunk into the middle of a program sigmoid(W) (Tsai, Chen, Ho 2020, equation 1).

    Only the frame has parameters: the public code also draws directions for the pixels that the image covers.

    Args:
        inner: side of the shrunk image as a part of the whole, 194 / 224 as published.
    """

    starts_clean = False

    def __init__(self, shape: tuple[int, int, int], inner: float = 194 / 224) -> None:
        self.shape = shape
        self.inner = tuple(max(1, round(side * inner / 2) * 2) if side > 2 else 1 for side in shape[1:])
        self._free = torch.ones(shape, dtype=torch.bool)
        top, left = ((side - small) // 2 for side, small in zip(shape[1:], self.inner, strict=True))
        self._place = (..., slice(top, top + self.inner[0]), slice(left, left + self.inner[1]))
        self._free[self._place] = False
        self.dim = int(self._free.sum())

    def start(self, seed: int) -> Tensor:
        # Dark, as the frame of most images: sigmoid(-4) = 0.018.
        del seed
        return torch.full((self.dim,), -4.0)

    def rows(self, weights: Tensor, images: Tensor, context: Tensor, statistics: Statistics | None = None) -> Tensor:
        small = F.interpolate(images, self.inner, mode="bilinear", antialias=True, align_corners=False)
        rows = _scatter(torch.sigmoid(weights), self._free)[:, None].repeat(1, len(images), 1, 1, 1)
        rows[self._place] = small
        return rows


def _frame(shape: tuple[int, int, int], width: int) -> Tensor:
    free = torch.ones(shape, dtype=torch.bool)
    free[:, width : shape[1] - width, width : shape[2] - width] = False
    return free


def _scatter(weights: Tensor, free: Tensor) -> Tensor:
    """Weights at their places, zero elsewhere. Shapes: weights (m, dim), free (*shape); returns (m, *shape)."""
    rows = weights.new_zeros(len(weights), free.numel())
    rows[:, free.flatten().to(weights.device)] = weights
    return rows.reshape(len(weights), *free.shape)


def standardise(features: Tensor) -> dict[str, Any]:
    """Statistics for ``Coordinator``: keyword arguments ``center`` and ``spread``."""
    return {"center": features.mean(0), "spread": features.std(0).clamp_min(1e-6)}
