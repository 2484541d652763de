"""Momentum contrast between encoders: the loss, the queues and the slow twins of contrastive pre-training.

He et al., CVPR 2020 (MoCo); Thoker et al., ACM MM 2021 (inter-skeleton contrast: a graph and a sequence encoder, each
the other's key).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Contrast", "info_nce"]


def info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float, same: Tensor | None = None) -> Tensor:
    """-log of the softmax weight that each query gives its own key among the negatives (van den Oord et al., 2018).

    Shapes:
        query, key: (n, d), l2-normalised; negatives: (k, d), l2-normalised.
        same: (n, k) bool, negatives that are views of the query's own clip and so are left out.
        returns: (n,).
    """
    own = (query * key).sum(1, keepdim=True)
    others = query @ negatives.T
    if same is not None:
        others = others.masked_fill(same, -torch.inf)
    scores = torch.cat([own, others], 1) / temperature
    return scores.logsumexp(1) - scores[:, 0]


class Contrast(nn.Module):
    """Encoders with their projections, their slow twins (the keys), and a queue of past keys each.

    With two encoders, each one's query is compared with the other's key; a single one is its own partner (MoCo).

    Args:
        encoders: modules from (n, 3, frames, joints, bodies) to features (n, d).
        widths: d of each.
        dimensions: width of the projected space; the projection is dropped after training.
        queue: how many past keys are negatives.
        momentum: share of its old weights that a twin keeps at each step.
        temperature: tau.
    """

    needs = 2  # views a step

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        widths: Sequence[int],
        *,
        dimensions: int = 128,
        queue: int,
        momentum: float,
        temperature: float,
    ) -> None:
        super().__init__()
        self.queries = nn.ModuleList(
            nn.Sequential(encoder, nn.Linear(width, dimensions))
            for encoder, width in zip(encoders, widths, strict=True)
        )
        self.keys = copy.deepcopy(self.queries).requires_grad_(False)
        self.momentum, self.temperature = momentum, temperature
        past = functional.normalize(torch.randn(len(encoders), queue, dimensions), dim=2)
        self.queue: Tensor
        self.owners: Tensor
        self.place: Tensor
        self.register_buffer("queue", past)
        self.register_buffer("owners", torch.full((queue,), -1))  # the clip that each past key is a view of
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Sequence[Tensor], clips: Tensor) -> Tensor:
        """The mean loss of a batch, summed over the encoders; its keys then replace the oldest in the queues.

        Shapes:
            views: two of the clips, (n, 3, frames, joints, bodies) each; clips: (n,) their numbers.
        """
        first, second = views
        with torch.no_grad():
            keys = [functional.normalize(twin(second), dim=1) for twin in self.keys]
        same = clips[:, None] == self.owners
        loss = first.new_zeros(())
        for i, network in enumerate(self.queries):
            partner = (i + 1) % len(keys)
            query = functional.normalize(network(first), dim=1)
            # A copy: the queue changes below, before the gradient is taken.
            past = self.queue[partner].clone()
            loss = loss + info_nce(query, keys[partner], past, self.temperature, same).mean()
        with torch.no_grad():
            rows = (self.place + torch.arange(len(clips), device=clips.device)) % len(self.owners)
            self.queue[:, rows] = torch.stack(keys)
            self.owners[rows] = clips
            self.place.copy_((self.place + len(clips)) % len(self.owners))
        return loss

    @torch.no_grad()
    def follow(self) -> None:
        """Move each twin towards its encoder: key <- momentum key + (1 - momentum) query (He et al., eq. 2)."""
        for slow, fast in zip(self.keys.parameters(), self.queries.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)

    def encoder(self, i: int) -> nn.Module:
        """The i-th encoder, without its projection."""
        return cast(nn.Sequential, self.queries[i])[0]
