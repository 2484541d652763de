"""A black box that leans towards one class, so that a prompt can set it right, and what it may answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bbox.defenses.blackvip import BlackVIP
from bbox.defenses.blackvip.prompt import Prompt
from bbox.targets.base import Target

SHAPE = (1, 8, 8)
CLASSES = 4

# Small and quick, and not the defaults, which are tuned on other black boxes.
QUICK: dict[str, Any] = {
    "encoder": "pca:6",
    "k": 4,
    "sides": 1,
    "a": 0.003,
    "c": 0.05,
    "trigger_scale": 10.0,
    "scale": 1.0,
    "law": "rademacher",
    "alpha": 0.4,
    "gamma": 0.1,
    "averaging": 0.9,
    "guard": 2.0,
    "batch": 8,
    "selection": 0.25,
    "baselines": "none",
}


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(count, 1, 8, 8) with one bright quadrant each, and which quadrant that is."""
    generator = torch.Generator().manual_seed(seed)
    rows = 0.5 * torch.rand(count, *SHAPE, generator=generator)
    labels = torch.arange(count) % CLASSES
    for place, label in enumerate(labels.tolist()):
        y, x = divmod(label, 2)
        rows[place, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] += 0.1 + 0.2 * torch.rand(1, generator=generator)
    return rows.clamp(0, 1), labels


def quadrants(rows: Tensor) -> Tensor:
    """Mean brightness of each quadrant: (n, 4)."""
    return rows.view(-1, 2, 4, 2, 4).mean((2, 4)).flatten(1)


def leaning(rows: Tensor) -> Tensor:
    """Logits: the brightness of the quadrants, and much is added to the first one's."""
    return 12 * (quadrants(rows) + torch.tensor([0.3, 0.0, 0.0, 0.0]))


class Meter(Target):
    """Counts and hashes every row by itself, answers what ``answer`` makes of it, and may be gone after some rows."""

    def __init__(
        self,
        answer: Callable[[Tensor], Tensor] = leaning,
        *,
        access: str = "scores",
        classes: int | None = CLASSES,
        fail_at: int | None = None,
    ) -> None:
        self.name, self.access, self.num_classes, self.input_shape = "meter", access, classes, SHAPE
        self.answer, self.fail_at = answer, fail_at
        self.batches: list[int] = []
        self.seen: list[Tensor] = []

    def __call__(self, rows: Tensor) -> Tensor:
        if self.fail_at is not None and len(self.batches) >= self.fail_at:
            raise ConnectionError("gone")
        assert bool(((rows >= 0) & (rows <= 1)).all()), "a row outside the valid box"
        self.batches.append(len(rows))
        self.seen.append(rows.clone())
        return self.answer(rows)

    @property
    def rows(self) -> int:
        return sum(self.batches)

    @property
    def calls(self) -> int:
        return len(self.batches)

    def fingerprint(self) -> str:
        probe = torch.linspace(0, 1, 128).view(2, *SHAPE)
        return hashlib.sha256(self.answer(probe).double().numpy().tobytes()).hexdigest()


def labels_of(scores: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same black box, answering labels alone."""
    return lambda rows: scores(rows).argmax(1)


def fitted(**options: Any) -> BlackVIP:
    """A defense with a prompt that nobody trained: random weights, 24 images for the encoder."""
    defense = BlackVIP(**{**QUICK, **options})
    from bbox.defenses.blackvip.encoders import make_encoder

    rows, _ = images(24, seed=5)
    encoder = make_encoder(defense.encoder, rows, device="cpu")
    features = encoder(rows)
    coordinator = defense.make_coordinator(encoder, SHAPE, center=features.mean(0), spread=features.std(0))
    weights = coordinator.start(0)
    weights = weights + 0.1 * torch.randn(len(weights), generator=torch.Generator().manual_seed(1))
    statistics = coordinator.statistics(weights, rows, coordinator.context(rows))
    defense.prompt = Prompt(coordinator, weights, statistics, None, False, SHAPE)
    return defense
