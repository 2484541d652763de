"""Start points: an adversarial row for each example, from which a decision-based attack walks home."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from bbox.attacks.base import Answer, Ask, Problem
from bbox.domain import l2
from bbox.zo import FullSpace, Subspace, fold, gaussian

__all__ = ["Start", "find_starts"]

Start = Literal["auto", "noise", "image", "pool"]

# Streams of an example's key, so that start points and directions never share a number.
_NOISE_STREAM = -1
_LOUDEST = 1.5  # noise beyond this turns an image into noise alone
_POOL_PART = 64
_COARSE = 0.01  # candidates of a pool are compared after bisection to this part of their distance


@dataclass
class _Found:
    """Shapes: points (n, *shape), have (n,) bool."""

    points: Tensor
    have: Tensor

    def keep(self, owner: Tensor, rows: Tensor) -> None:
        self.points[owner.to(rows.device)] = rows
        self.have[owner] = True


def find_starts(
    problem: Problem,
    kind: Start = "auto",
    *,
    candidates: int = 3,
    noise: float = 0.05,
    subspace: Subspace | None = None,
) -> Generator[Ask, Answer, tuple[Tensor, Tensor]]:
    """Find a start point for each example; use with ``yield from``.

    Kinds:
        image: the user's start points (``problem.starts``), one query each.
        noise: x + noise k z, clipped, fresh z for k = 1, 2, ... while noise k < 1.5, with z normal noise of unit
            variance a value (times the width of the domain, 1 for images), drawn in the subspace (default: the full
            space, as in the public CGBA code).
        pool: the ``candidates`` images of the pool nearest to x, of the target class (targeted) or of another class,
            each asked once and bisected towards x to 1 %; the closest is kept.
        auto: noise and then the pool; where start points are given, these, then the pool and then noise (targeted: no
            noise).

    Where noise in the subspace and the pool found nothing, noise in the full space is tried last.

    Queries: at most 1, 3 / noise or about candidates x 8 an example; all of them in its budget.

    Shapes:
        returns: points (n, *shape), and which examples have one: (n,) bool.
    """
    found = _Found(problem.originals.clone(), torch.zeros(len(problem), dtype=torch.bool))
    everywhere = FullSpace(problem.originals.shape[1:])
    noisy = kind == "noise" or (kind == "auto" and not problem.goal.targeted)
    given = problem.starts is not None and kind in ("auto", "image")
    if problem.starts is not None and given:
        owner = torch.arange(len(problem))
        starts = problem.domain.clip(problem.starts.clone(), problem.originals)
        answer = yield Ask(starts, owner)
        hit = answer.adversarial
        if bool(hit.any()):
            found.keep(owner[hit], starts[hit.to(starts.device)])
    elif noisy:
        yield from _noise(problem, found, noise, subspace or everywhere)
    if kind in ("auto", "pool") and problem.pool is not None:
        yield from _pool(problem, found, candidates)
    if noisy and given:
        yield from _noise(problem, found, noise, subspace or everywhere)
    if noisy and subspace is not None:
        yield from _noise(problem, found, noise, everywhere)
    return found.points, found.have


def _noise(problem: Problem, found: _Found, noise: float, subspace: Subspace) -> Generator[Ask, Answer, None]:
    open_ = torch.ones(len(problem), dtype=torch.bool)
    scale = (prod(subspace.shape) / subspace.dim) ** 0.5  # unit variance a value, on average
    k = 0
    while True:
        k += 1
        owner = (open_ & ~found.have).nonzero()[:, 0]
        if len(owner) == 0 or noise * k >= _LOUDEST:
            return
        at = owner.to(problem.originals.device)
        key = fold(fold(problem.keys[at], _NOISE_STREAM), k)
        drawn = subspace.lift(gaussian(key, subspace.dim), exact=True).float()
        origin = problem.originals[at]
        rows = problem.domain.clip(origin + noise * k * problem.domain.width * scale * drawn, origin)
        answer = yield Ask(rows, owner)
        open_[owner[~answer.answered]] = False
        hit = answer.adversarial
        if bool(hit.any()):
            found.keep(owner[hit], rows[hit.to(rows.device)])


def _pool(problem: Problem, found: _Found, candidates: int) -> Generator[Ask, Answer, None]:
    """The paper's better initial point (its algorithm is not in the public code): several images, coarsely bisected."""
    owner, rows = _nearest(problem, ~found.have, candidates)
    if len(owner) == 0:
        return
    rows = problem.domain.clip(rows, problem.originals[owner.to(rows.device)])
    answer = yield Ask(rows, owner)
    hit = answer.adversarial
    owner, rows = owner[hit], rows[hit.to(rows.device)]
    if len(owner) == 0:
        return
    at = owner.to(rows.device)
    origin = problem.originals[at]
    span = l2(rows.double() - origin.double()).cpu()
    low, high = torch.zeros(len(owner), dtype=torch.float64), torch.ones(len(owner), dtype=torch.float64)
    while bool((open_ := (high - low) > _COARSE * high).any()):
        part = open_.nonzero()[:, 0]
        middle = (low[part] + high[part]) / 2
        here = part.to(rows.device)
        mixed = blend(origin[here], rows[here], middle)
        answer = yield Ask(problem.domain.clip(mixed, origin[here]), owner[part])
        if not bool(answer.answered.any()):
            break
        high[part] = torch.where(answer.adversarial, middle, high[part])
        low[part] = torch.where(answer.adversarial | ~answer.answered, low[part], middle)
        low[part[~answer.answered]] = high[part[~answer.answered]]
    reached = span * high
    for i in torch.unique(owner).tolist():
        mine = (owner == i).nonzero()[:, 0]
        best = mine[reached[mine].argmin()]
        at_best = best.to(rows.device)
        row = blend(origin[at_best][None], rows[at_best][None], high[best][None])
        found.keep(torch.tensor([i]), problem.domain.clip(row, origin[at_best][None]))


def _nearest(problem: Problem, wanted: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """The nearest images of the pool that may serve: owner (m,), rows (m, *shape)."""
    pool = problem.pool
    owners: list[Tensor] = []
    rows: list[Tensor] = []
    if pool is not None:
        for i in wanted.nonzero()[:, 0].tolist():
            label = problem.goal.labels[i]
            fits = (pool.labels == label) if problem.goal.targeted else (pool.labels != label)
            place = fits.nonzero()[:, 0]
            # A pool may be large: a few of its images at a time in float64, and only the chosen ones move.
            original = problem.originals[i].double().to(pool.inputs.device)
            distance = [l2(pool.inputs[part].double() - original) for part in torch.split(place, _POOL_PART)]
            nearest = torch.cat(distance).argsort(stable=True)[:candidates] if distance else place
            chosen = pool.inputs[place[nearest.cpu()]].to(problem.originals.device)
            owners.append(torch.full((len(chosen),), i, dtype=torch.int64))
            rows.append(chosen)
    if not owners:
        return torch.empty(0, dtype=torch.int64), problem.originals[:0]
    return torch.cat(owners), torch.cat(rows)


def blend(origin: Tensor, far: Tensor, part: Tensor) -> Tensor:
    """origin + part (far - origin). Shapes: origin, far (m, *shape); part (m,) float64 on the CPU."""
    weight = part.to(origin.device, torch.float32).view(-1, *[1] * (origin.ndim - 1))
    return origin + weight * (far - origin)
