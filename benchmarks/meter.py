"""The one meter that every attack of the efficiency benchmark is read by.

It knows nothing of bbox and nothing of the attack, so that it can judge both: an attack's own idea of its
queries, its validity and its best image is never used.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

__all__ = ["Meter", "Spent", "distance_at"]

# Attacks that work in a normalised space come back with pixels off by a rounding error, not by more.
PIXEL_TOLERANCE = 1e-6

# Rows are forwarded in chunks of about this many pixels: past a CPU's cache a larger batch is slower.
CHUNK_PIXELS = 200_000


class Spent(BaseException):
    """The budget is used up.

    Derived from BaseException: an attack that catches Exception around a query must not go on for free.
    """


class Meter(nn.Module):
    """A classifier that counts, for one image: exact budget, best valid adversarial so far, and its trace.

    Call it with rows (n, channels, height, width) in [0, 1]; it answers (n, classes) logits. A batch that
    would pass the budget is cut: the rows that fit are asked, counted and recorded, then ``Spent`` is raised.

    Args:
        model: a module in evaluation mode that takes pixels in [0, 1].
        image: (channels, height, width), the image under attack.
        label: its class.
        target: the class to reach, or ``None`` where any other class will do.
        start: the adversarial image that every attack is given: not charged, and where the trace begins.
        budget: number of rows that may be asked.
        quantize: round every row to 8 bits a channel before the model sees it, as a PNG upload does.
            Distances are those of the rounded image, which is always inside the box.

    Attributes:
        used, remaining: rows asked so far, rows left.
        trace: (queries, l2) at each improvement of the best valid adversarial; l2 in float64.
        best: the best valid adversarial so far, as the model saw it.
        calls, outside: forwards asked for; rows that left [0, 1].
        model_seconds: wall time inside the model.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        label: int,
        *,
        budget: int,
        start: Tensor,
        target: int | None = None,
        num_classes: int = 10,
        quantize: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.image, self.label, self.target = image, label, target
        self.budget, self.num_classes, self.quantize = budget, num_classes, quantize
        self.used = self.calls = self.outside = 0
        self.model_seconds = 0.0
        self._chunk = min(64, max(8, CHUNK_PIXELS // image.numel()))
        self.best = start
        self.trace: list[tuple[int, float]] = [(0, float((start.double() - image.double()).norm()))]
        self.eval()

    @property
    def remaining(self) -> int:
        return self.budget - self.used

    def forward(self, rows: Tensor) -> Tensor:
        if rows.ndim != 4 or rows.shape[1:] != self.image.shape:
            raise ValueError(
                f"rows have shape {tuple(rows.shape)}, expected (n, {', '.join(map(str, self.image.shape))})"
            )
        asked = len(rows)
        # float32 is decided here: some attacks drift to float64, and the model must see what was measured.
        rows = rows.detach().to(self.image)[: self.remaining]
        if len(rows) == 0 < asked:
            raise Spent
        self.calls += 1
        inside = ((rows >= -PIXEL_TOLERANCE) & (rows <= 1 + PIXEL_TOLERANCE)).flatten(1).all(1)
        self.outside += int((~inside).sum())
        if self.quantize:
            inside = rows.isfinite().flatten(1).all(1)
            rows = (rows.clamp(0, 1) * 255).round() / 255
        began = time.perf_counter()
        with torch.no_grad():
            logits = torch.cat([self.model(chunk) for chunk in rows.split(self._chunk)])
        self.model_seconds += time.perf_counter() - began
        self._record(rows, logits.argmax(1), inside)
        self.used += len(rows)
        if len(rows) < asked:
            raise Spent
        return logits

    def _record(self, rows: Tensor, labels: Tensor, inside: Tensor) -> None:
        adversarial = labels != self.label if self.target is None else labels == self.target
        for j in (adversarial & inside).nonzero().flatten().tolist():
            distance = float((rows[j].double() - self.image.double()).norm())
            if distance < self.trace[-1][1]:
                self.trace.append((self.used + j + 1, distance))
                self.best = rows[j].clone()


def distance_at(trace: list[tuple[int, float]], queries: int) -> float:
    """The best l2 that was reached within this many queries."""
    return min(distance for at, distance in trace if at <= queries)
