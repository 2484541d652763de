"""Training by zeroth-order gradients at the bottleneck (Zhang et al., ICLR 2022, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbox.defenses.zo_ae_ds.networks import Purifier
from bbox.defenses.zo_ae_ds.objective import BlackBox
from bbox.defenses.zo_ae_ds.pretrain import Report, one_cycle
from bbox.errors import InputError
from bbox.oracle import Purpose
from bbox.zo import RGE, Estimator, FullSpace, Subspace, root_keys

__all__ = ["Schedule", "estimate", "find_step", "train"]

_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Schedule:
    """How a budget becomes optimiser steps.

    Attributes:
        batch: images a step; screen: only images whose loss is above this get directions (their gradient is what
            there is to gain; a confident image has next to none), negative for all of them.
        rate: peak learning rate; anchor: weight of the denoiser's mean squared error, which costs no query.
        clip: length to which the gradient of a step is cut.
    """

    batch: int
    screen: float
    rate: float
    anchor: float
    clip: float = 5.0


def estimate(
    purifier: Purifier,
    box: BlackBox,
    estimator: Estimator,
    points: Tensor,
    clean: Tensor,
    base: Tensor | None,
    keys: Tensor,
    step: Tensor,
    space: Subspace,
    purpose: Purpose,
    guide: Tensor | None = None,
) -> Tensor:
    """The zeroth-order gradient of the loss at each point.

    All directions of all points are asked together, in forwards of the oracle's batch size. ``base`` are the losses at
    the points where they have been asked already. A ``guide`` (unit vectors, a surrogate's gradient) costs one more
    query: the estimate's component along it is replaced by a difference measured along it.

    Shapes:
        points: (n, dim) or (n, *shape); clean: (n,) or (n, k); base: (n,); keys: (n,) int64; step: (n,), in points'
        unit; guide: as points. Returns: as points.

    Queries: n * (estimator.queries(space.dim) - 1 where ``base`` spares the base row), + n with a guide.
    """
    if len(points) == 0:
        return torch.zeros_like(points)
    probes = estimator.plan(points, keys, step, space)
    if probes.base and base is not None:
        probes = replace(probes, base=False)
    elif len(probes.signs) == 2:
        base = None
    rows = len(points) * probes.per_point
    # Images are made a forward at a time: n x q of them need not fit in memory.
    values = []
    for index in torch.split(torch.arange(rows, device=points.device), box.books.oracle.max_batch):
        images = purifier.image(probes.rows(index))
        values.append(box.losses(images, clean[index // probes.per_point], purpose))
    losses = torch.cat(values)
    if base is not None and len(probes.signs) == 1:
        losses = losses - base.repeat_interleave(probes.per_point)
    gradient = space.lift(probes.gradient(losses))
    if guide is not None and base is not None:
        ones = [1] * (points.ndim - 1)
        ahead = box.losses(purifier.image(points + step.view(-1, *ones) * guide), clean, purpose)
        along = (ahead - base) / step
        known = (gradient * guide).flatten(1).sum(1)
        gradient = gradient + (along - known).view(-1, *ones) * guide
    return gradient


@torch.no_grad()
def find_step(
    purifier: Purifier, box: BlackBox, points: Tensor, clean: Tensor, space: Subspace, *, seed: int, rms: float
) -> float:
    """The step, relative to the points' deviation ``rms``: in the middle of the two whose slopes agree best.

    The published absolute step of 0.005 drowns in the rounding of an 8-bit, TF32 or bf16 black box; the right one
    depends on it, and on how curved the loss is: too small a step is lost in the rounding, too large a one in the
    curvature, and in between the slopes along the same directions agree (by their cosine).

    Queries: n * (1 + 4 * 7), on the ``probe`` ledger.

    Shapes: points (n, ...); clean (n,) or (n, k).

    Raises:
        InputError: no step changes any answer.
    """
    keys = root_keys(seed, torch.arange(len(points))).to(points.device)
    base = box.losses(purifier.image(points), clean, "probe")
    estimator = RGE(min(4, space.dim), law="orthogonal" if space.dim <= 4096 else "sphere")
    slopes = []
    for relative in _STEPS:
        step = torch.full((len(points),), relative * rms, device=points.device)
        probes = replace(estimator.plan(points, keys, step, space), base=False)
        index = torch.arange(len(points) * probes.per_point, device=points.device)
        losses = box.losses(purifier.image(probes.rows(index)), clean[index // probes.per_point], "probe")
        slopes.append((losses - base.repeat_interleave(probes.per_point)) / (relative * rms))
    if all(float(slope.abs().max()) == 0 for slope in slopes):
        raise InputError(
            "no step at the bottleneck changes the black box's answers: its scores are too coarse for zeroth-order "
            "training; use --gradient surrogate"
        )
    agreement = [float(F.cosine_similarity(a, b, dim=0)) for a, b in pairwise(slopes)]
    best = max(range(len(agreement)), key=agreement.__getitem__)
    return math.sqrt(_STEPS[best] * _STEPS[best + 1])


def train(
    purifier: Purifier,
    box: BlackBox,
    images: Tensor,
    clean: Tensor,
    *,
    sigma: float,
    estimator: Estimator,
    space: Subspace,
    step: float,
    schedule: Schedule,
    seed: int,
    guide: Callable[[Tensor, Tensor], Tensor] | None = None,
    report: Report,
) -> int:
    """Spend what the ``fit`` ledger has left; returns the number of optimiser steps.

    One step, with B images (Zhang et al., algorithm in section 4):

        z_i = Enc(D(x_i + noise))                        with autograd
        g_i = zeroth-order gradient of the loss at z_i   without
        L   = 1/B sum_i <z_i, g_i> + anchor * mean || D(x_i + noise) - x_i ||^2

    so that the vector-Jacobian product of z with g reaches denoiser and encoder, and nothing of the black box.

    Queries: B + (images above the screen) * (q or 2 q) a step; the last step takes what is left, to the row.

    Shapes: images (n, *shape) in [0, 1]; clean (n,) or (n, k).
    """
    parameters = purifier.trainable()
    optimizer = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=1e-4)
    total = max(1, box.books.left("fit"))
    per_image = _rows_without_base(estimator, space.dim) + (guide is not None)
    steps = 0
    while box.books.left("fit") > per_image:
        left = box.books.left("fit")
        screened = schedule.screen >= 0
        count = min(schedule.batch, left if screened else left // (per_image + 1), len(images))
        chosen = torch.randint(len(images), (count,), device=images.device)
        target = images[chosen]
        noisy = target + sigma * torch.randn_like(target)
        teacher = clean[chosen]
        with torch.no_grad():
            base = box.losses(purifier.image(purifier.point(purifier.denoise(noisy))), teacher, "fit")
        keep = (base > schedule.screen).nonzero()[:, 0] if screened else torch.arange(count, device=images.device)
        keep = keep[: box.books.left("fit") // per_image]
        if len(keep) == 0:
            continue
        denoised = purifier.denoise(noisy[keep])
        points = purifier.point(denoised)
        with torch.no_grad():
            found = estimate(
                purifier,
                box,
                estimator,
                points.detach(),
                teacher[keep],
                base[keep],
                root_keys(seed + 1 + steps, keep),
                torch.full((len(keep),), step, device=images.device),
                space,
                "fit",
                None if guide is None else guide(points.detach(), teacher[keep]),
            )
        loss = (points * found).sum() / count + schedule.anchor * F.mse_loss(denoised, target[keep])
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * one_cycle(1 - left / total)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, schedule.clip)
        optimizer.step()
        steps += 1
        report("zeroth order", total - box.books.left("fit"), total)
    return steps


def _rows_without_base(estimator: Estimator, dim: int) -> int:
    """Rows of an estimate where the base row has been asked."""
    probes = estimator.plan(torch.zeros(1, dim), torch.zeros(1, dtype=torch.int64), torch.ones(1), FullSpace((dim,)))
    return probes.per_point - probes.base
