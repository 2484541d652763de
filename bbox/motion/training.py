"""Supervised training of motion classifiers, with the noise of a sensor: the victims of attacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.errors import InputError
from bbox.motion.presence import present
from bbox.motion.skeleton import Skeleton

__all__ = ["LabelledMotion", "accuracy", "train", "vary"]


class LabelledMotion(Protocol):
    """What training reads of a ``bbox.data.MotionSet``."""

    @property
    def inputs(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def skeleton(self) -> Skeleton: ...


def train(
    network: nn.Module,
    data: LabelledMotion,
    *,
    test: LabelledMotion | None = None,
    epochs: int = 40,
    noise: float = 0.02,
    seed: int = 0,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    on_epoch: Callable[[int, float], None] | None = None,
    time_limit: float | None = None,
) -> float:
    """Train a network in place by AdamW, on motions varied anew each time (``vary``); it ends in evaluation mode.

    The rate rises over the first tenth of the steps and falls to zero with a cosine. On one thread of a CPU, a network
    made after ``torch.manual_seed`` comes out the same again, unless the time limit cuts it.

    Args:
        network: from (n, 3, frames, joints, bodies) to logits.
        data: motions and labels.
        test: what to measure on at the end; ``None`` for ``data``.
        noise: largest standard deviation of the sensor's noise, metres.
        seed: of the order, the variations and dropout; the caller's random state stays as it was.
        on_epoch: told the epoch, from 1, and its mean loss.
        time_limit: seconds after which to have ended; the rate falls so as to be zero by then.

    Returns:
        Accuracy on ``test``, without noise.

    Raises:
        InputError: the data has no labels.
    """
    motions, labels = data.inputs, _labels(data)
    device = next(network.parameters()).device
    decayed = [p for p in network.parameters() if p.dim() > 1]
    plain = [p for p in network.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    batches = max(len(motions) // batch_size, 1)
    began, step = time.monotonic(), 0

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        for epoch in range(1, epochs + 1):
            network.train()
            losses = []
            for rows in torch.randperm(len(motions), generator=generator).tensor_split(batches):
                spent = 0.0 if time_limit is None else (time.monotonic() - began) / time_limit
                done = max(step / (epochs * batches), spent)
                if done >= 1:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * min(1.0, (step + 1) / (0.1 * epochs * batches)) * _cosine(done)
                varied = vary(motions[rows], data.skeleton, noise=noise, generator=generator).to(device)
                loss = functional.cross_entropy(network(varied), labels[rows].to(device), label_smoothing=0.05)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimizer.step()
                losses.append(loss.detach())
                step += 1
            if not losses:
                break
            if on_epoch is not None:
                on_epoch(epoch, float(torch.stack(losses).mean()))
    return accuracy(network, data if test is None else test)


@torch.no_grad()
def accuracy(network: nn.Module, data: LabelledMotion, *, batch_size: int = 128) -> float:
    """The share of motions that the network, put into evaluation mode, classifies as labelled.

    Raises:
        InputError: the data has no labels.
    """
    network.eval()
    device = next(network.parameters()).device
    answers = torch.cat([network(rows.to(device)).argmax(1).cpu() for rows in torch.split(data.inputs, batch_size)])
    return float((answers == _labels(data)).double().mean())


def vary(motions: Tensor, skeleton: Skeleton, *, noise: float, generator: torch.Generator) -> Tensor:
    """Each motion as another subject before another camera might give it.

    Turned about the vertical axis (y) by any angle, 10% larger or smaller, mirrored at random (where the skeleton knows
    its sides), up to a quarter faster or slower, cut short by up to a third (one in four), and with white noise whose
    standard deviation is drawn for each motion.

    Args:
        noise: largest standard deviation, metres.

    Shapes:
        motions: (n, 3, frames, joints, bodies); absent bodies stay zero, and a slower motion lasts into its padding.
    """
    count, _, frames, joints, _ = motions.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    motions = _paced(motions, uniform(0.8, 1.25))
    if skeleton.sides:
        swap = list(range(joints))
        for left, right in skeleton.sides:
            swap[left], swap[right] = right, left
        mirrored = motions[:, :, :, swap] * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1, 1)
        motions = torch.where((uniform(0, 1) < 0.5).view(-1, 1, 1, 1, 1), mirrored, motions)
    angle, size = uniform(0, 2 * math.pi), uniform(0.9, 1.1)
    cos, sin, zero = angle.cos() * size, angle.sin() * size, torch.zeros(count)
    turn = torch.stack([cos, zero, sin, zero, size, zero, -sin, zero, cos], 1).view(count, 3, 3)
    turned = torch.einsum("nij,njtvm->nitvm", turn, motions)

    kept = torch.where(uniform(0, 1) < 0.25, uniform(2 / 3, 1), 1.0) * frames
    there = present(motions) & (torch.arange(frames) < kept[:, None]).view(count, 1, frames, 1, 1)
    white = torch.randn(motions.shape, generator=generator) * uniform(0, noise).view(-1, 1, 1, 1, 1)
    return (turned + white) * there


def _paced(motions: Tensor, speed: Tensor) -> Tensor:
    """Frames at ``speed`` times their pace from the first one on, linearly between two; what is over is padding."""
    frames = motions.shape[2]
    at = torch.arange(frames) * speed[:, None]
    low = at.floor().long()
    inside = (low + 1 < frames).view(len(motions), 1, frames, 1, 1)
    first = low.clamp(max=frames - 2).view(-1, 1, frames, 1, 1).expand_as(motions)
    before, after = motions.gather(2, first), motions.gather(2, first + 1)
    both = present(before) & present(after) & inside
    return (before + (after - before) * (at - low).view(-1, 1, frames, 1, 1)) * both


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _labels(data: LabelledMotion) -> Tensor:
    if data.labels is None:
        raise InputError("the motions have no labels, and a classifier is trained and measured on them")
    return data.labels
