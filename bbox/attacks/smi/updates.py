"""How a gradient becomes a step: I-FGSM, MI-FGSM, NI-FGSM and PGD, within an linf or an l2 budget.

One class serves all of them; the temporal filter that turns a gradient into an SMI gradient
(``bbox.motion.filters``) is applied before the step, so any of them can be augmented.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from bbox.domain import l2
from bbox.motion.domain import Tube, between, joints_there
from bbox.motion.presence import movable

__all__ = ["ANYWHERE", "UPDATES", "Ascent", "Update"]

Update = Literal["ifgsm", "mifgsm", "nifgsm", "pgd"]
UPDATES: tuple[Update, ...] = get_args(Update)

ANYWHERE = 1e3  # metres: an l2 budget bounds no single coordinate


class Ascent:
    """Where a batch of motions stands on its way up the objective, within ``epsilon`` of the originals.

    I-FGSM (Kurakin et al. 2017): x <- clip(x + a sign G). MI-FGSM (Dong et al. 2018): M <- decay M + G(g / mean|g|),
    x <- clip(x + a sign M). NI-FGSM (Lin et al. 2020): the same, with g taken at x + a decay M. PGD (Madry et al.
    2018): I-FGSM from a random point of the ball. With norm l2 the step is a G / rms(G) and the ball is that of
    ``Tube``'s l2 distance. No number of one motion enters the arithmetic of another.

    Shapes: originals, point, momentum: (n, 3, frames, joints, bodies).

    Args:
        axes: channels that are coordinates.
    """

    def __init__(
        self,
        originals: Tensor,
        *,
        epsilon: float,
        norm: Literal["linf", "l2"],
        update: Update,
        step: float,
        decay: float,
        axes: int = 3,
    ) -> None:
        self.originals, self.epsilon, self.update, self.step, self.decay = originals, epsilon, update, step, decay
        self.there = movable(originals, axes)
        self.domain = Tube(norm=norm, radius=epsilon if norm == "linf" else ANYWHERE, axes=axes)
        self.low, self.high = self.domain.linf_ball(originals, self.domain.radius)
        self.momentum = torch.zeros_like(originals)
        self.point = originals.clone()

    def probe(self) -> Tensor:
        """Where the gradient is taken: (n, *shape)."""
        if self.update != "nifgsm":
            return self.point
        return self.point + self.step * self.decay * self.momentum * self.there

    def climb(self, gradient: Tensor) -> None:
        """One step along a (filtered) gradient, already scaled by ``normalised`` where momentum gathers it."""
        if self.update in ("mifgsm", "nifgsm"):
            self.momentum = self.decay * self.momentum + gradient
            gradient = self.momentum
        self.move(self._step(gradient))

    def normalised(self, gradient: Tensor) -> Tensor:
        """The gradient of the motion that is there, over its mean absolute value (the paper's g / ||g||_1)."""
        gradient = gradient * self.there
        size = _row_mean(gradient.abs(), self.there)
        return gradient / size.clamp(min=torch.finfo(gradient.dtype).tiny)

    def move(self, change: Tensor) -> None:
        """Move the point, and bring it back into the ball."""
        self.keep(self.point + change * self.there)

    def keep(self, point: Tensor) -> None:
        """Put the points of the ball nearest to these rows in place of the point."""
        point = between(point, self.low, self.high)
        self.point = self.domain.pull(self.originals, point, self.epsilon) if self.domain.norm == "l2" else point

    def _step(self, direction: Tensor) -> Tensor:
        direction = direction * self.there
        if self.domain.norm == "linf":
            return self.step * direction.sign()
        size = (l2(direction.double()) / joints_there(self.originals).sqrt()).clamp(min=1e-30)
        return self.step * direction / size.to(direction.dtype).view(-1, 1, 1, 1, 1)


def _row_mean(values: Tensor, there: Tensor) -> Tensor:
    """Mean of each motion over what is there: (n, 1, 1, 1, 1)."""
    count = there.expand(-1, values.shape[1], -1, -1, -1).flatten(1).sum(1) * values.shape[3]
    total = values.flatten(1, -2).sum(-1).sum(-1)
    return (total / count.clamp(min=1)).view(-1, 1, 1, 1, 1)
