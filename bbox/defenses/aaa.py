"""AAA: scores that lead score-based attacks the wrong way and keep every label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bbox.defenses.base import Defense, Wrapped, need_scores
from bbox.defenses.ranges import between
from bbox.defenses.scores import are_probabilities, logits
from bbox.targets.base import Target

__all__ = ["AAA"]

_LEAST = 1e-3  # least margin of an answer, in intervals: what keeps the label where the reversed margin reaches 0
_STEPS = 40  # halvings of the bracket below
_BRACKET = math.log(1e3)  # the spread of the other classes is scaled by 1e-3 to 1e3


@dataclass(frozen=True)
class AAA(Defense):
    """Adversarial Attack on Attackers (Chen, Huang, Tao, Wu, Xie, Huang, NeurIPS 2022): deterministic post-processing
    of logits. The margin m between the best and the second logit is cut into intervals of length tau with an attractor
    a in the middle of each, and the answer's margin runs against m within each interval:

        linear: a - strength (m - a)            sine: m - strength tau sin(2 pi (m - a) / tau)

    so an attack that makes m smaller sees it grow. The confidence stays that of softmax(logits / temperature), which
    calibrates the answer where the temperature was tuned.

    The published defense finds such logits by 100 steps of Adam. Here they are found directly: the best logit is 0, the
    second -margin, and the gaps of the others to the second are scaled by one positive number a row, found by bisection
    so that the confidence is right. Where no number can do both, the margin is kept and the confidence comes as near as
    it can. No class overtakes another, and every label stays: ties go to the class that had the label.

    Rows with an infinite margin or NaN (a refusal), and single-class targets, pass as they are. A target that answers
    probabilities answers probabilities again.

    Args:
        kind: how the margin is reversed.
        interval: tau, in units of logits; the public code has 4 with ``linear`` and 6 with ``sine``.
        strength: of the reversal, more than 0 and at most 1; the public code has 1 with ``linear`` and 0.7 with
            ``sine``.
        temperature: of the confidence to keep, 1 for the target's own.

    Queries: one forward row each.
    """

    kind: Literal["linear", "sine"] = "linear"
    interval: float = 4.0
    strength: float = 1.0
    temperature: float = 1.0

    summary: ClassVar[str] = "scores whose trend is reversed in intervals, labels kept (NeurIPS 2022)"
    needs: ClassVar[tuple[str, ...]] = ("scores",)
    cost: ClassVar[str] = "no forward and no label; margins of scores no longer mean anything"
    weakness: ClassVar[str] = "attacks on labels are untouched; score attacks that expect the reversal break it"
    adaptations: ClassVar[tuple[str, ...]] = ("scale-free", "reverse")

    def __post_init__(self) -> None:
        between("interval", self.interval, 0.01, 1e6)
        between("strength", self.strength, 0, 1, above=True)
        between("temperature", self.temperature, 1e-3, 1e3)

    def wrap(self, target: Target) -> Target:
        need_scores(target, "aaa")
        return _Misleading(target, self)

    def reversed_margin(self, margin: Tensor) -> Tensor:
        """The margin to answer, positive. Shapes: (n,) -> (n,)."""
        attractor = (torch.floor(margin / self.interval) + 0.5) * self.interval
        if self.kind == "linear":
            target = attractor - self.strength * (margin - attractor)
        else:
            phase = 2 * math.pi / self.interval * (margin - attractor)
            target = margin - self.strength * self.interval * torch.sin(phase)
        return target.clamp(min=_LEAST * self.interval)


class _Misleading(Wrapped):
    defense: AAA

    def __init__(self, inner: Target, defense: AAA) -> None:
        super().__init__(inner, defense, name="aaa")

    def __call__(self, rows: Tensor) -> Tensor:
        scores = self.inner(rows)
        if scores.shape[1] < 2:
            return scores
        z = logits(scores)
        label = scores.argmax(1, keepdim=True)
        best = z.gather(1, label)
        others = z.scatter(1, label, -torch.inf)
        second = others.amax(1, keepdim=True)
        margin = best - second
        usable = torch.isfinite(margin) & ~z.isnan().any(1, keepdim=True)
        answer = self.defense.reversed_margin(margin)
        # The odds against the label, as a logarithm: exact where the confidence rounds to 1.
        odds = torch.logsumexp(others / self.defense.temperature, 1, keepdim=True) - best / self.defense.temperature
        gaps = (second - others).clamp(min=0)  # of the label itself: infinite, so it adds nothing to a sum
        low, high = torch.full_like(best, -_BRACKET), torch.full_like(best, _BRACKET)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            wide = torch.logsumexp(-middle.exp() * gaps, 1, keepdim=True) > odds + answer
            low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
        changed = (-answer - high.exp() * gaps).scatter(1, label, 0.0)
        changed = torch.where(are_probabilities(scores)[:, None], changed.softmax(1), changed)
        return torch.where(usable, changed.float(), scores.float())
