"""ZO-AE-DS: a denoiser and an encoder in front of a black box, trained by its answers alone.

Zhang, Yao, Jia, Yi, Hong, Chang, Liu: "How to Robustify Black-Box ML Models? A Zeroth-Order Optimization Perspective",
ICLR 2022. The defended model is f(Dec(Enc(D(x)))): D denoises, Dec is frozen and glued to the black box f. Its answers
under Gaussian noise are what ``bbox.defenses.certify`` certifies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bbox.defenses.base import TrainedDefense, Wrapped
from bbox.defenses.books import Books, Journal
from bbox.defenses.zo_ae_ds.fit import FitReport, fit_purifier
from bbox.defenses.zo_ae_ds.networks import DENOISERS, Autoencoder, Purifier
from bbox.errors import InputError, UsageError
from bbox.oracle import Oracle, Purpose
from bbox.targets.base import Target
from bbox.zo import CGE, RGE, Estimator

__all__ = ["ZOAEDS", "FitReport", "Journal"]

_PROBE = 512  # queries that the probe of the step size may cost, at most


@dataclass
class ZOAEDS(TrainedDefense):
    """Denoised smoothing around a black box, trained by queries.

    Queries: exactly at most the budget of ``fit``: one for each training image's clean answer, ``selection`` of the
    budget to choose among checkpoints on validation images, at most 512 to probe the step size, the rest to train.

    Args:
        sigma: deviation of the Gaussian noise, pixels in [0, 1].
        gradient: surrogate (first order through a student of the answers), zo, hybrid (a surrogate, then
            zeroth-order steps), first-order (white box, for comparison), none (query-free).
        space: where the gradient is taken: ae (the bottleneck), dct (low frequencies), image (ZO-DS); auto takes ae for
            zeroth-order gradients and image for the others.
        dim: features of the bottleneck, or low-frequency coefficients.
        denoiser: unet or dncnn.
        init: mse (start from the query-free denoiser) or scratch.
        task: classification, or reconstruction (the black box answers an image; squared errors).
        estimator: orthogonal, sphere or rademacher directions, or cge (all coordinates).
        side: forward or central differences.
        q: directions an image; cge takes all.
        step: step size relative to the points' deviation, 0 to probe it.
        batch: images a zeroth-order step, 0 to choose it so that the budget makes at least 300 steps.
        screen: images with a smaller loss get no directions; negative asks them for all.
        rate: peak learning rate.
        anchor: weight of the denoiser's squared error beside the black box's loss.
        warmup: query-free steps of the denoiser and of the autoencoder.
        first: first-order steps through the student (or the white box).
        rounds: how often the student is taught, each time on what the purifier makes then.
        student: steps of the student a round.
        lesson: queries that teach the student, at most.
        share: part of the training queries that teaches the student in hybrid mode, at most.
        selection: part of the budget that chooses among checkpoints.
    """

    summary: ClassVar[str] = "denoised smoothing, trained by the black box's answers alone"
    needs: ClassVar[tuple[str, ...]] = ("input",)
    cost: ClassVar[str] = "a forward of denoiser and autoencoder a query; clean accuracy falls by the noise trained for"
    weakness: ClassVar[str] = "unsmoothed it is a preprocessor like any other: attack it end to end"
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {
            "gradient": "zo",
            "space": "ae",
            "dim": 192,
            "denoiser": "dncnn",
            "init": "scratch",
            "estimator": "cge",
            "side": "central",
            "batch": 64,
            "screen": -1.0,
            "step": 0.005,
            "anchor": 0.0,
        },
        "zo": {"gradient": "zo"},
        "query-free": {"gradient": "none"},
    }

    sigma: float = 0.5
    gradient: Literal["surrogate", "zo", "hybrid", "first-order", "none"] = "surrogate"
    space: Literal["auto", "ae", "dct", "image"] = "auto"
    dim: int = 32
    denoiser: Literal["unet", "dncnn"] = "unet"
    init: Literal["mse", "scratch"] = "mse"
    task: Literal["classification", "reconstruction"] = "classification"
    estimator: Literal["orthogonal", "sphere", "rademacher", "cge"] = "orthogonal"
    side: Literal["forward", "central"] = "forward"
    q: int = 4
    step: float = 0.0
    batch: int = 0
    screen: float = 0.1
    rate: float = 1e-3
    anchor: float = 10.0
    warmup: int = 900
    first: int = 600
    rounds: int = 2
    student: int = 800
    lesson: int = 100_000
    share: float = 0.3
    selection: float = 0.05
    purifier: Purifier | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 2:
            raise UsageError(f"sigma is {self.sigma:g}, expected more than 0 and at most 2 (pixels are in [0, 1])")
        for name in ("dim", "q", "warmup", "first", "rounds", "student", "lesson"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("step", "batch", "anchor"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if not self.rate > 0:
            raise UsageError(f"rate is {self.rate:g}, expected more than 0")
        for name in ("share", "selection"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name):g}, expected between 0 and 1")

    @property
    def certified_noise(self) -> float | None:
        return self.sigma

    @property
    def takes_autoencoder(self) -> bool:
        """Whether the black box sees what an autoencoder decodes."""
        return self.space == "ae" or (self.space == "auto" and self.gradient in ("zo", "hybrid"))

    def stages(self) -> tuple[str, ...]:
        """What follows the query-free start, by the name of a method of the fit."""
        return {
            "hybrid": ("surrogate", "hybrid"),
            "surrogate": ("surrogate",),
            "zo": ("zeroth_order",),
            "first-order": ("first_order",),
            "none": (),
        }[self.gradient]

    def make_estimator(self, dim: int) -> Estimator:
        """The estimator that the options name, in ``dim`` dimensions."""
        if self.estimator == "cge":
            return CGE(self.side)
        return RGE(min(self.q, dim) if self.estimator == "orthogonal" else self.q, self.side, self.estimator)

    def fit(
        self,
        oracle: Oracle,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        budget: int,
        seed: int = 0,
        journal: Journal | None = None,
        report: Callable[[str, int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Train on these images; their only labels are the black box's own answers. See ``TrainedDefense.fit``.

        Raises:
            UsageError: the budget is too small, or the target answers labels only.
            InputError: the autoencoder collapsed, or an answer cannot be used.
        """
        if budget < 1:
            raise UsageError(f"budget is {budget}, expected at least 1")
        probe = _PROBE if self.step == 0 and self.gradient in ("zo", "hybrid") else 0
        select = int(self.selection * budget)
        limits: dict[Purpose, int] = {"fit": budget - select - probe, "select": select, "probe": probe}
        books = Books(oracle, limits, journal)
        self.purifier, found = fit_purifier(self, books, images, seed=seed, report=report or (lambda *_: None))
        return found.to_json()

    def wrap(self, target: Target) -> Target:
        if self.purifier is None:
            raise UsageError("zo-ae-ds must be fitted first: bbox defend zo-ae-ds, then defended:RUN")
        return _Purified(target, self, self.purifier.to(target.device))

    def state(self) -> tuple[Mapping[str, object], Mapping[str, Tensor]]:
        if self.purifier is None:
            return {}, {}
        shape = [] if self.purifier.autoencoder is None else list(self.purifier.autoencoder.shape)
        channels = self.purifier.channels
        return {"channels": channels, "shape": shape}, dict(self.purifier.state_dict())

    def restore(self, structure: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        try:
            shape = tuple(int(size) for size in structure["shape"])
            autoencoder = Autoencoder(shape, self.dim) if shape else None
            purifier = Purifier(DENOISERS[self.denoiser](int(structure["channels"])), autoencoder)
            purifier.load_state_dict(dict(tensors))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the weights are not those of this zo-ae-ds: {reason[:200]}") from error
        self.purifier = purifier.eval().requires_grad_(False)


class _Purified(Wrapped):
    """The black box behind a purifier."""

    def __init__(self, inner: Target, defense: ZOAEDS, purifier: Purifier) -> None:
        super().__init__(inner, defense, name="zo-ae-ds")
        self._purifier = purifier

    def __call__(self, rows: Tensor) -> Tensor:
        with torch.inference_mode():
            images = self._purifier(rows.to(self.device, torch.float32))
        return self.inner(images.clone())
