"""CGBA and CGBA-H: boundary search on a semicircle (Reza, Rahmati, Wu, Dai; ICCV 2023; arXiv 2308.03163).

Geometry. Let x be the original, b the boundary point at hand, d = ||b - x||, v = (b - x)/d, and u the unit vector in
the direction of the estimated boundary normal's part orthogonal to v. The semicircle with diameter [x, b] in the plane
of v and u is

    x(phi) = x + d cos(phi) (cos(phi) v + sin(phi) u),   0 <= phi <= pi/2,   ||x(phi) - x|| = d cos(phi).

x(0) = b is adversarial and x(phi) tends to x, so a change of sides always exists, and the distance can never grow.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bbox.attacks.base import Answer, Ask, Attack, Problem, Run
from bbox.attacks.starts import Start, blend, find_starts
from bbox.domain import l2, row_sum
from bbox.errors import UsageError
from bbox.zo import DCTSubspace, DecisionMonteCarlo, Directions, FullSpace, Subspace, TemporalSubspace, fold

__all__ = ["CGBA", "CGBAH"]

_FIRST_SIDE = 6  # coefficients a side of the first subspace, at any resolution (docs/cgba.md)

_Steps = Generator[Ask, Answer, None]


@dataclass(frozen=True)
class CGBA(Attack):
    """Curvature-aware geometric boundary attack: bisect the semicircle. For boundaries of low curvature (untargeted).

    The default departs from the published constants where measurements said so (docs/cgba.md): queries stay in the
    box, directions are drawn orthogonal to v, step and tolerance are relative to d and steered by the balance of the
    signs. ``CGBA.presets["paper"]`` holds the published constants (in pixels; the box is still kept).

    Args:
        initial_queries: N0; iteration t estimates the normal from int(N0 sqrt(t)) signs.
        subspace_factor: directions lie in the lowest 1/factor DCT frequencies each way; 0 starts with 6 a side.
        subspace_growth: iteration t draws from t**growth as many frequencies each way: coarse first, then finer.
        subspace_fine: every second iteration draws from at least the lowest 1/subspace_fine, so that an image whose
            boundary asks for fine detail does not stall; 0 = never.
        step: length of a noise step over d at the start, sigma sqrt(dim) / d.
        absolute_step, absolute_tolerance: the published absolute sigma and bisection gap in pixel units; 0 = relative.
        tangent: draw directions orthogonal to v.
        center: subtract the mean sign.
        steer: halve or double the step where the signs are out of balance.
        start: where the first adversarial row comes from (``bbox.attacks.starts``).
        start_candidates: images of the pool that are tried.
        start_noise: standard deviation of the first try's noise; that of try k is k times as much.
        start_subspace: draw it in the first subspace, else in the full space as published.

    Queries: iteration t costs int(N0 sqrt(t)) for the normal and about 10 for the search.
    """

    initial_queries: int = 30
    subspace_factor: float = 0.0
    subspace_growth: float = 0.25
    subspace_fine: float = 4.0
    step: float = 0.05
    absolute_step: float = 0.0
    absolute_tolerance: float = 0.0
    tangent: bool = True
    center: bool = True
    steer: bool = True
    start: Start = "auto"
    start_candidates: int = 3
    start_noise: float = 0.05
    start_subspace: bool = True

    motions: ClassVar = ("l2",)
    summary: ClassVar[str] = "decision-based, semicircular boundary search (ICCV 2023)"
    # sigma 2e-4, tol 1e-4 and start noise 0.02 are in ImageNet-normalised units; times the mean std of .226 for pixels.
    presets: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {
            "subspace_factor": 4.0,
            "subspace_growth": 0.0,
            "subspace_fine": 0.0,
            "absolute_step": 2e-4 * 0.226,
            "absolute_tolerance": 1e-4 * 0.226,
            "tangent": False,
            "center": False,
            "steer": False,
            "start_noise": 0.02 * 0.226,
            "start_subspace": False,
        }
    }

    def __post_init__(self) -> None:
        for option, least in (("initial_queries", 1), ("start_candidates", 1)):
            if getattr(self, option) < least:
                raise UsageError(f"{option} is {getattr(self, option):g}, expected at least {least}")
        for option in ("step", "start_noise"):
            if getattr(self, option) <= 0:
                raise UsageError(f"{option} is {getattr(self, option):g}, expected more than 0")
        for option in ("absolute_step", "absolute_tolerance"):
            if getattr(self, option) < 0:
                raise UsageError(f"{option} is {getattr(self, option):g}, expected 0 (relative) or more")
        for option in ("subspace_factor", "subspace_fine"):
            if getattr(self, option) != 0 and getattr(self, option) < 1:
                raise UsageError(f"{option} is {getattr(self, option):g}, expected 0 or at least 1")
        if not 0 <= self.subspace_growth <= 2:
            raise UsageError(f"subspace_growth is {self.subspace_growth:g}, expected 0 to 2")

    def run(self, problem: Problem) -> Run:
        subspace = self._subspace(problem, 1)
        points, have = yield from find_starts(
            problem,
            self.start,
            candidates=self.start_candidates,
            noise=self.start_noise,
            subspace=subspace if self.start_subspace else None,
        )
        walk = _Walk(problem, subspace, points, have.nonzero()[:, 0], self.step)
        yield from self._segment(walk, torch.arange(len(walk)), first=0.5)
        walk.drop_spent()
        t = 0
        while len(walk):
            t += 1
            walk.use(self._subspace(problem, t))
            moving = yield from self._estimate(walk, t)
            yield from self._search(walk, moving)
            walk.drop_spent()

    # --- one iteration -------------------------------------------------------------------------------------------

    def _estimate(self, walk: _Walk, t: int) -> Generator[Ask, Answer, Tensor]:
        """Estimate the normal at each boundary point from signs; set ``walk.u``. Returns which examples may move."""
        count, q = walk.plan(int(self.initial_queries * math.sqrt(t)), self._search_cost(walk))
        directions = Directions(fold(walk.keys, t), q, walk.subspace.dim)
        index = (torch.arange(q) < count[:, None]).reshape(-1).nonzero()[:, 0]
        signs = torch.zeros(len(walk) * q)
        sigma = self._sigma(walk)
        answer = yield Ask(lambda part: self._noisy(walk, directions, sigma, index[part]), walk.owner[index // q])
        # A row without an answer (out of budget, refused) says nothing of the boundary.
        signs[index] = torch.where(answer.adversarial, 1.0, -1.0).masked_fill(answer.labels < 0, 0.0)
        balance = walk.steer(signs.view(-1, q)) if self.steer else torch.zeros(len(walk))
        normal = DecisionMonteCarlo(self.center).normal(directions, signs.view(-1, q))
        length = walk.set_normal(normal)
        return (balance.abs() <= 0.95) & (length > 0)

    def _noisy(self, walk: _Walk, directions: Directions, sigma: Tensor, index: Tensor) -> Tensor:
        """b + sigma z, clipped, with z orthogonal to v where ``tangent``."""
        index = index.to(walk.device)
        point = index // directions.q
        z = directions.at(index)
        if self.tangent:
            radial = walk.radial[point]
            z -= row_sum(z * radial)[:, None] * radial
        rows = walk.subspace.lift(z, exact=True).float()
        rows *= sigma.to(walk.device, torch.float32)[point].view(-1, *[1] * (rows.ndim - 1))
        return walk.problem.domain.clip(rows.add_(walk.point[point]), walk.origin[point])

    def _search(self, walk: _Walk, moving: Tensor) -> _Steps:
        """Bisect the semicircle between its last adversarial and its first clean point."""
        part = moving.nonzero()[:, 0]
        low = torch.zeros(len(walk), dtype=torch.float64)
        high = torch.full((len(walk),), math.pi / 2, dtype=torch.float64)
        # Outwards: 45, 67.5, 78.75 ... degrees; first twice the angle of the last iteration, where that is less.
        angle = (2 * walk.angle).clamp(max=math.pi / 4)
        for _ in range(16):
            if len(part) == 0:
                break
            answer = yield Ask(walk.on_circle(part, angle[part]), walk.owner[part])
            hit = answer.adversarial
            low[part[hit]] = angle[part[hit]]
            high[part[~hit]] = angle[part[~hit]]
            part = part[hit]
            wider = torch.where(angle < math.pi / 4, 2 * angle, math.pi / 4 + angle / 2)
            angle = torch.where(angle < math.pi / 4, wider.clamp(max=math.pi / 4), wider)
        tolerance = self._tolerance(walk)
        part = (moving & ((high - low) > tolerance)).nonzero()[:, 0]
        while len(part):
            middle = (low[part] + high[part]) / 2
            answer = yield Ask(walk.on_circle(part, middle), walk.owner[part])
            low[part] = torch.where(answer.adversarial, middle, low[part])
            high[part] = torch.where(answer.adversarial, high[part], middle)
            part = part[answer.answered & ((high - low)[part] > tolerance[part])]
        moved = (moving & (low > 0)).nonzero()[:, 0]
        walk.angle[moving] = torch.where(low > 0, low, walk.angle / 2)[moving].clamp(min=1e-6)
        walk.move(moved, walk.on_circle(moved, low[moved]))

    def _segment(self, walk: _Walk, part: Tensor, first: float) -> _Steps:
        """Bisect the straight lines from the originals (clean) to these boundary points (adversarial).

        ``first``: the part of the line that is probed first.
        """
        domain, whole = walk.problem.domain, part
        low, high = torch.zeros(len(walk), dtype=torch.float64), torch.ones(len(walk), dtype=torch.float64)
        tolerance = self._tolerance(walk)
        probe = torch.full_like(low, first)
        while len(part):
            here = part.to(walk.device)
            origin = walk.origin[here]
            rows = domain.clip(blend(origin, walk.point[here], probe[part]), origin)
            answer = yield Ask(rows, walk.owner[part])
            high[part] = torch.where(answer.adversarial, probe[part], high[part])
            low[part] = torch.where(answer.adversarial, low[part], probe[part])
            wide = (high - low)[part] > tolerance[part] * high[part]
            part = part[answer.answered & wide & (high[part] > 1e-9)]
            probe = (low + high) / 2
        here = whole.to(walk.device)
        origin = walk.origin[here]
        walk.move(whole, domain.clip(blend(origin, walk.point[here], high[whole]), origin))

    # --- scales --------------------------------------------------------------------------------------------------

    def _subspace(self, problem: Problem, t: int) -> Subspace:
        shape = problem.originals.shape[1:]
        if len(shape) == 4:
            return self._temporal(problem, t)
        if len(shape) != 3:
            return FullSpace(shape)
        factor = (self.subspace_factor or min(shape[1:]) / _FIRST_SIDE) * t**-self.subspace_growth
        if self.subspace_fine and t % 2 == 0:
            factor = min(factor, self.subspace_fine)
        return DCTSubspace(shape, min(max(1.0, factor), min(shape[1:])), problem.originals.device)

    def _temporal(self, problem: Problem, t: int) -> Subspace:
        """For motions: the lowest frequencies over time of every coordinate, from the constant offset on."""
        frames = problem.originals.shape[2]
        factor = (self.subspace_factor or float(frames)) * t**-self.subspace_growth
        if self.subspace_fine and t % 2 == 0:
            factor = min(factor, self.subspace_fine)
        return TemporalSubspace(problem.originals.shape[1:], min(max(1.0, factor), frames), problem.originals.device)

    def _sigma(self, walk: _Walk) -> Tensor:
        """Standard deviation of a coefficient of noise: (n,) float64."""
        if self.absolute_step:
            return torch.full_like(walk.distance, self.absolute_step)
        return walk.step * walk.distance / math.sqrt(walk.subspace.dim)

    def _tolerance(self, walk: _Walk) -> Tensor:
        """Bisection gap over d: half the normal displacement of one noise step, so that signs stay informative."""
        if self.absolute_tolerance:
            return self.absolute_tolerance / walk.distance
        return 0.5 * walk.step / math.sqrt(walk.subspace.dim)

    def _search_cost(self, walk: _Walk) -> Tensor:
        """Probes that a search is expected to need: (n,) int64."""
        return (
            (torch.log2(2 * walk.angle.clamp(max=math.pi / 8) / self._tolerance(walk)).ceil() + 1).long().clamp(min=3)
        )


@dataclass(frozen=True)
class CGBAH(CGBA):
    """CGBA-H, for curved boundaries (targeted): walk the semicircle back until it is adversarial, bisect the ray.

    Options and presets are those of ``CGBA``.
    """

    summary: ClassVar[str] = "CGBA for curved boundaries: targeted attacks (ICCV 2023)"

    def _search(self, walk: _Walk, moving: Tensor) -> _Steps:
        part = moving.nonzero()[:, 0]
        found = torch.zeros(len(walk), dtype=torch.float64)
        angle = (2 * walk.angle).clamp(max=math.pi / 4)
        for _ in range(16):
            if len(part) == 0:
                break
            answer = yield Ask(walk.on_circle(part, angle[part]), walk.owner[part])
            found[part[answer.adversarial]] = angle[part[answer.adversarial]]
            part = part[~answer.adversarial & answer.answered]
            angle = angle / 2
        walk.angle[moving] = torch.where(found > 0, found, walk.angle / 4)[moving].clamp(min=1e-5)
        moved = (found > 0).nonzero()[:, 0]
        walk.move(moved, walk.on_circle(moved, found[moved]))
        yield from self._segment(walk, moved, first=0.95)


class _Walk:
    """Where the examples of a group stand. Finished ones are compacted away.

    Shapes (n examples left):
        owner, distance, step, angle: (n,) on the CPU; origin, point, v, u: (n, *shape); radial: (n, dim), the unit
        coefficients of v in the subspace.
    """

    def __init__(self, problem: Problem, subspace: Subspace, points: Tensor, owner: Tensor, step: float) -> None:
        self.problem, self.subspace = problem, subspace
        self.device = problem.originals.device
        at = owner.to(self.device)
        self.owner = owner
        self.keys = problem.keys[at]
        self.origin = problem.originals[at]
        self.step = torch.full((len(owner),), step, dtype=torch.float64)
        self.angle = torch.full((len(owner),), math.pi / 8, dtype=torch.float64)
        self.point, self.v, self.u = points[at], torch.empty(0), torch.empty(0)
        self.radial = torch.zeros(len(owner), subspace.dim, device=self.device)
        self.distance = torch.zeros(len(owner), dtype=torch.float64)
        self._measure()

    def __len__(self) -> int:
        return len(self.owner)

    def use(self, subspace: Subspace) -> None:
        """Draw directions in this subspace from now on."""
        if subspace.dim != self.subspace.dim:
            self.subspace = subspace
            self._measure()

    def _measure(self) -> None:
        difference = self.point.double() - self.origin.double()
        length = l2(difference).clamp(min=1e-12)
        self.distance = length.cpu()
        v = difference / length.view(-1, *[1] * (difference.ndim - 1))
        self.v = v.float()
        radial = self.subspace.project(v, exact=True)
        self.radial = (radial / l2(radial)[:, None].clamp(min=1e-12)).float()

    def move(self, part: Tensor, rows: Tensor) -> None:
        """Set the boundary points of these examples."""
        if len(part):
            self.point[part.to(self.device)] = rows
        self._measure()

    def on_circle(self, part: Tensor, angle: Tensor) -> Tensor:
        """x(phi) of these examples, clipped."""
        here = part.to(self.device)
        ones = [1] * (self.point.ndim - 1)
        reach = self.distance[part] * angle.cos()
        along = (reach * angle.cos()).to(self.device, torch.float32).view(-1, *ones)
        across = (reach * angle.sin()).to(self.device, torch.float32).view(-1, *ones)
        origin = self.origin[here]
        return self.problem.domain.clip(origin + along * self.v[here] + across * self.u[here], origin)

    def set_normal(self, coefficients: Tensor) -> Tensor:
        """Lift the estimated normals, keep their part orthogonal to v as ``u``; returns its length before scaling."""
        radial = self.subspace.project(self.v, exact=True)
        squared = row_sum(radial.square()).clamp(min=1e-24)
        coefficients = coefficients - (row_sum(coefficients * radial) / squared)[:, None] * radial
        length = l2(coefficients)
        unit = coefficients / length[:, None].clamp(min=1e-24)
        self.u = self.subspace.lift(unit, exact=True).float()
        return length.cpu()

    def steer(self, signs: Tensor) -> Tensor:
        """Halve the step where nearly all signs are negative (it left the region), double it where nearly all are
        positive (it stayed inside). Returns the mean sign."""
        mean = signs.double().sum(1) / signs.abs().double().sum(1).clamp(min=1)
        factor = torch.where(mean < -0.6, 0.5, torch.where(mean > 0.6, 2.0, 1.0))
        self.step = (self.step * factor).clamp(1e-4, 0.5)
        return mean

    def plan(self, wanted: int, search: Tensor) -> tuple[Tensor, int]:
        """How many signs each example asks: ``wanted``, or what is left before a last search."""
        left = self.problem.remaining()[self.owner]
        last = left - search < wanted + search + 8  # too little left for another iteration after this one
        count = torch.where(last, left - torch.minimum(search, left // 3), wanted)
        return count, int(count.max())

    def drop_spent(self) -> None:
        """Compact the examples whose budget is spent away."""
        keep = self.problem.remaining()[self.owner] > 0
        if bool(keep.all()):
            return
        at = keep.to(self.device)
        self.owner, self.step, self.angle = self.owner[keep], self.step[keep], self.angle[keep]
        self.distance = self.distance[keep]
        for name in ("keys", "origin", "point", "v", "radial"):
            setattr(self, name, getattr(self, name)[at])
