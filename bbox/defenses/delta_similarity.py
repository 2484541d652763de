"""Delta similarity: refuse a query that continues a stream of similar steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from bbox.defenses.base import Defense
from bbox.defenses.detector import Detector
from bbox.defenses.ranges import at_least, between
from bbox.targets.base import Target
from bbox.zo import fold, rademacher, root_keys

__all__ = ["DeltaSimilarity"]

_DIM = 64  # of a sketch: distances are kept within about 9% (one standard deviation)
_REPEAT = 1e-4  # of a row's contrast: shorter steps are exact repeats up to rounding


@dataclass(frozen=True)
class DeltaSimilarity(Defense):
    """Watches the steps from query to query, as GWAD does (Park, McLaughlin, Alouani, "Mind the Gap", arXiv
    2503.02986), with a threshold in place of its trained network.

    GWAD takes the cosines of successive updates of one user's stream and gives their histogram to a small network. Here
    attacks on many images may be interleaved, so a query's step is its difference to the *nearest* earlier query, not
    to the previous one. An earlier query supports the suspicion where it is near (closer than ``reach`` of the row's
    contrast, the l2 norm of the row less its mean) and its own step was similar: as long within a factor ``alike``
    (noise around a point, as in gradient estimates; exact repeats, as in averaging), or along the same line (cosine at
    least ``cosine``; searches along a line). A query with ``steps`` such supporters is refused.

    A few near-duplicates from honest users pass; ``steps`` repeats of one image, or noisy copies of it with noise of
    one size, do not, since nothing in them differs from an attack.

    What is kept of a query are random projections of it and of its step, to 64 numbers: 516 bytes. All queries are
    remembered, refused ones too, the last ``memory`` of them. State is shared by all users: many accounts do not help
    an attacker unless the service keeps a state for each.

    Args:
        reach: how near an earlier query must be, as part of the row's contrast; ``calibrated`` sets it from clean data.
        steps: supporters that have a query refused.
        alike: largest ratio of two steps' lengths that are alike, more than 1.
        cosine: least size of the cosine of two steps along a line, more than 0 and at most 1.
        memory: queries that are remembered.
        seed: of the projection; secret in service.

    Queries: one forward row each, none for refused ones. Judging costs time in proportion to the memory.
    """

    reach: float = 0.2
    steps: int = 8
    alike: float = 1.5
    cosine: float = 0.9
    memory: int = 16384
    seed: int = 0

    summary: ClassVar[str] = "refuses queries that continue a stream of similar steps (after arXiv 2503.02986)"
    needs: ClassVar[tuple[str, ...]] = ("input", "state")
    cost: ClassVar[str] = "a search in memory; 516 bytes a remembered query; refuses many repeats of one image"
    weakness: ClassVar[str] = (
        "OARS-like steps longer than reach; few steps of each length; floods that flush the memory"
    )
    adaptations: ClassVar[tuple[str, ...]] = ("resample", "large-steps")

    def __post_init__(self) -> None:
        between("reach", self.reach, 0, 1, above=True)
        at_least("steps", self.steps, 1)
        between("alike", self.alike, 1, 100, above=True)
        between("cosine", self.cosine, 0, 1, above=True)
        at_least("memory", self.memory, 1)

    def wrap(self, target: Target) -> Target:
        return _Watched(target, self)

    def calibrated(self, rows: Tensor, rate: float = 0.01) -> DeltaSimilarity:
        """The same with a ``reach`` in which at most ``rate`` of these clean rows have an earlier one of them.

        An honest row must have that and ``steps`` supporters to be refused, so false alarms on traffic like it are
        rarer than ``rate``. It asks nothing. Shapes: rows (n, *shape) in [0, 1], n at least 2.
        """
        between("rate", rate, 0, 1, above=True)
        at_least("rows", len(rows), 2)
        sketch, contrast = self.sketch(rows)
        gaps = torch.cdist(sketch.double(), sketch.double(), compute_mode="donot_use_mm_for_euclid_dist")
        earlier = torch.ones_like(gaps, dtype=torch.bool).tril(-1)
        nearest = gaps.masked_fill(~earlier, torch.inf).amin(1) / contrast.double().clamp(min=1e-12)
        allowed = math.floor(rate * len(rows))
        reach = float(nearest.sort().values[allowed]) * (1 - 1e-6)
        return replace(self, reach=min(max(reach, 1e-6), 1.0))

    def sketch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Random projections and contrasts. Shapes: rows (n, *shape); returns (n, 64) and (n,) float32."""
        flat = rows.flatten(1)
        key = root_keys(self.seed, torch.arange(_DIM, device=rows.device))
        signs = rademacher(fold(key, 0), flat.shape[1])
        contrast = torch.linalg.vector_norm(flat - flat.mean(1, keepdim=True), dim=1)
        return flat @ signs.T / math.sqrt(_DIM), contrast


class _Trace(NamedTuple):
    """What is kept of queries. Shapes: sketch, unit (m, 64), length (m,), float32."""

    sketch: Tensor
    unit: Tensor
    length: Tensor


class _Watched(Detector):
    defense: DeltaSimilarity

    def __init__(self, inner: Target, defense: DeltaSimilarity) -> None:
        super().__init__(inner, defense, name="delta-similarity")
        self._kept = self._before = _Trace(torch.empty(0, _DIM), torch.empty(0, _DIM), torch.empty(0))

    def judge(self, rows: Tensor) -> Tensor:
        options = self.defense
        old = _Trace(*(part.to(rows.device) for part in self._kept))
        sketch, contrast = options.sketch(rows)
        every = torch.cat([old.sketch, sketch])
        # Float64 because near queries differ in the last digits of float32's squares.
        gaps = torch.cdist(sketch.double(), every.double(), compute_mode="use_mm_for_euclid_dist").float()
        number = torch.arange(len(every), device=rows.device)
        age = number[len(old.length) :, None] - number
        gaps = gaps.masked_fill((age <= 0) | (age > options.memory), torch.inf)
        nearest = gaps.argmin(1)
        step = sketch - every[nearest]
        length = torch.linalg.vector_norm(step, dim=1)
        length = length.clamp(min=_REPEAT * contrast + 1e-12)
        unit = step / length[:, None]
        # The very first query has no step: its length is NaN, which is like nothing.
        length = torch.where(gaps.isinf().all(1), torch.nan, length)
        units, lengths = torch.cat([old.unit, unit]), torch.cat([old.length, length])
        ratio = length[:, None] / lengths
        alike = (ratio <= options.alike) & (ratio >= 1 / options.alike)
        in_line = (unit @ units.T).abs() >= options.cosine
        near = gaps <= options.reach * contrast[:, None]
        supporters = (near & (alike | in_line)).sum(1)
        self._before = old
        self._kept = _Trace(*(part[-options.memory :] for part in (every, units, lengths)))
        suspicious: Tensor = supporters >= options.steps
        return suspicious

    def undo(self) -> None:
        self._kept = self._before

    @property
    def remembered(self) -> int:
        return len(self._kept.length)

    @property
    def state_bytes(self) -> int:
        return sum(part.element_size() * part.numel() for part in self._kept)
