"""Surrogate mode: a student of the black box's answers lends its gradient (as in DUCD, arXiv 2408.10647)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbox.defenses.zo_ae_ds.networks import Purifier
from bbox.defenses.zo_ae_ds.objective import BlackBox
from bbox.defenses.zo_ae_ds.pretrain import Report, augment, one_cycle

__all__ = ["Lesson", "descend_through", "distil", "gather"]

_BATCH = 128
Lesson = tuple[Tensor, Tensor]  # rows (n, *shape) and the black box's answers to them (n, k)


@torch.no_grad()
def gather(purifier: Purifier, box: BlackBox, images: Tensor, sigma: float, queries: int) -> Lesson:
    """Ask the black box about the images that it will see in service: two thirds purified, the rest clean and moved.

    Queries: ``queries``, on the ``fit`` ledger.

    Shapes: images (n, *shape); returns rows (queries, *shape) and answers (queries, k), on the images' device.
    """
    rows, answers = [], []
    left = queries
    kind = 0
    while left > 0:
        count = min(left, 256)
        chosen = images[torch.randint(len(images), (count,), device=images.device)]
        asked = purifier(chosen + sigma * torch.randn_like(chosen)) if kind % 3 < 2 else augment(chosen)
        rows.append(asked.contiguous())
        answers.append(box.answers(rows[-1], "fit"))
        left -= count
        kind += 1
    return torch.cat(rows), torch.cat(answers)


def distil(student: nn.Module, lesson: Lesson, box: BlackBox, *, steps: int, report: Report) -> None:
    """Teach the student the black box's answers: cross-entropy to its probabilities, or the squared error."""
    rows, answers = lesson
    parameters = list(student.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-4)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * one_cycle(step / steps)
        chosen = torch.randint(len(rows), (_BATCH,), device=rows.device)
        told = student(rows[chosen])
        if box.task == "classification":
            loss = F.cross_entropy(told, answers[chosen].exp())
        else:
            loss = F.mse_loss(told, answers[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        report("student", step + 1, steps)


def descend_through(
    model: Callable[[Tensor], Tensor],
    purifier: Purifier,
    box: BlackBox,
    images: Tensor,
    clean: Tensor,
    *,
    sigma: float,
    steps: int,
    rate: float,
    anchor: float,
    report: Report,
) -> None:
    """First-order training of denoiser and encoder through ``model``: a student, or in a white-box comparison the model
    itself. Asks nothing.

    Shapes: images (n, *shape); clean (n,) or (n, k).
    """
    parameters = purifier.trainable()
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * one_cycle(step / steps)
        chosen = torch.randint(len(images), (min(_BATCH, len(images)),), device=images.device)
        target = images[chosen]
        denoised = purifier.denoise(target + sigma * torch.randn_like(target))
        told = model(purifier.image(purifier.point(denoised)))
        loss = box.loss(told, clean[chosen]).mean() + anchor * F.mse_loss(denoised, target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        report("first order", step + 1, steps)
