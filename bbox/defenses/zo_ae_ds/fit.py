"""One fit from start to end: query-free start, clean answers, training, selection; every query on a ledger."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bbox.defenses.books import Books
from bbox.defenses.zo_ae_ds.networks import DENOISERS, Autoencoder, Purifier, Student
from bbox.defenses.zo_ae_ds.objective import BlackBox
from bbox.defenses.zo_ae_ds.pretrain import Report, train_autoencoder, train_denoiser
from bbox.defenses.zo_ae_ds.surrogate import descend_through, distil, gather
from bbox.defenses.zo_ae_ds.zeroth_order import Schedule, find_step, train
from bbox.errors import InputError, UsageError
from bbox.targets.torch_module import TorchTarget
from bbox.zo import DCTSubspace, FullSpace, Subspace

if TYPE_CHECKING:
    from bbox.defenses.zo_ae_ds import ZOAEDS

__all__ = ["FitReport", "fit_purifier"]

_ROWS = 8  # a fit asks its validation images at most so often: clean, through the autoencoder, and a row each
_LESSON_BYTES = 2 << 30  # what the rows of a student's lesson may take in memory
_TOLERANCE = 0.2  # an autoencoder that loses more of the clean answers than this has collapsed, or is far too narrow


@dataclass
class FitReport:
    """What a fit has measured, on validation images that trained nothing (cut from the training data).

    Attributes:
        rows: name to quality under noise: share of rows answered as their clean image is (or minus the squared error);
            the query-free ones first.
        images: validation images of the rows.
        steps: optimiser steps by stage; step_size: the probed relative step.
        notes: warnings in plain words.
    """

    rows: dict[str, float] = field(default_factory=dict)
    images: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    step_size: float | None = None
    bottleneck_quality: float | None = None
    chosen: str = ""
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if v is not None}


def fit_purifier(
    options: ZOAEDS, books: Books, images: Tensor, *, seed: int, report: Report
) -> tuple[Purifier, FitReport]:
    """Train a purifier for the black box behind the books.

    Args:
        images: (n, channels, height, width) in [0, 1], n >= 20; a tenth of them, at most 500, only select.

    Raises:
        UsageError: options and budget that do not go together.
        InputError: the autoencoder collapsed, or the black box's answers cannot be used.
    """
    device = books.oracle.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _Fit(options, books, images.to(device), seed, report).run()


class _Fit:
    """The state that the stages of a fit share."""

    def __init__(self, options: ZOAEDS, books: Books, images: Tensor, seed: int, report: Report) -> None:
        if len(images) < 20:
            raise UsageError(f"{len(images)} images are too few to train on; give at least 20")
        self.options, self.books, self.seed, self.report = options, books, seed, report
        self.box = BlackBox(books, options.task)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.device)
        held = min(500, max(2, len(images) // 10))
        self.validation, self.images = images[order[:held]], images[order[held:]]
        self.found = FitReport()
        # One noise for all rows of the table, so that they are compared on the same noisy images.
        generator = torch.Generator().manual_seed(seed)
        self.noise = options.sigma * torch.randn(self.validation.shape, generator=generator).to(images.device)

    def run(self) -> tuple[Purifier, FitReport]:
        options, shape = self.options, tuple(self.images.shape[1:])
        purifier = Purifier(DENOISERS[options.denoiser](shape[0]), None).to(self.images.device)
        purifier = purifier.to(memory_format=torch.channels_last)
        self._clean()
        self._row("undefended", None)
        if options.takes_autoencoder:
            autoencoder = Autoencoder(shape, options.dim).to(self.images.device)
            autoencoder = autoencoder.to(memory_format=torch.channels_last)
            train_autoencoder(autoencoder, self.images, steps=options.warmup, report=self.report)
            purifier.autoencoder = autoencoder
            self._row("autoencoder alone", purifier)
            self._check_autoencoder(autoencoder)
        if options.init == "mse":
            train_denoiser(purifier, self.images, options.sigma, steps=options.warmup, report=self.report)
            if purifier.autoencoder is not None:
                self._row("MSE denoiser", Purifier(purifier.denoiser, None))
        start = "MSE denoiser" + (" + autoencoder" if purifier.autoencoder is not None else "")
        start = start if options.init == "mse" else "untrained"
        kept = self._keep(start, purifier, None)
        for stage in options.stages():
            getattr(self, f"_{stage}")(purifier)
            kept = self._keep(stage.replace("_", " "), purifier, kept)
        name, weights, _ = kept
        quality = self.found.rows[name]
        purifier.load_state_dict(weights)
        self.found.chosen = name
        if options.stages() and quality < self.found.rows[start] + 0.02 and options.task == "classification":
            self.found.notes.append(
                f"the queries bought little: {100 * quality:.1f}% of noisy validation images are answered as clean, "
                f"the query-free start has {100 * self.found.rows[start]:.1f}%"
            )
        return purifier.eval().requires_grad_(False), self.found

    def _clean(self) -> None:
        """Ask the clean answers, once a distinct image."""
        books = self.books
        fit, select = books.left("fit"), books.left("select")
        learns = bool(self.options.stages())
        if select < _ROWS * len(self.validation):
            most = max(2, select // _ROWS)
            self.validation, self.noise = self.validation[:most], self.noise[:most]
        if learns and fit < 2 * len(self.images):
            self.images = self.images[: max(0, fit // 2)]  # half for the labels, half to learn from them
        if len(self.images) < 10 or select < _ROWS * len(self.validation):
            raise UsageError(
                f"the budget leaves {max(0, fit)} queries for training and {select} for selection: too little to train "
                "on; give more"
            )
        if learns:
            self.teacher = self._in_parts(self.images, "fit")
        self.found.images = len(self.validation)
        self.validation_teacher = self._in_parts(self.validation, "select")

    def _in_parts(self, images: Tensor, purpose: Any) -> Tensor:
        return torch.cat([self.box.clean(part, purpose) for part in torch.split(images, 1024)])

    @torch.no_grad()
    def _row(self, name: str, purifier: Purifier | None) -> float:
        """A row of the table, from noisy validation images; returns their mean loss."""
        noisy = self.validation + self.noise
        parts = [noisy] if purifier is None else [purifier(part) for part in torch.split(noisy, 256)]
        self.found.rows[name], loss = self.box.judge(torch.cat(parts), self.validation_teacher)
        return loss

    def _keep(self, name: str, purifier: Purifier, best: tuple[str, Any, float] | None) -> tuple[str, Any, float]:
        """Measure on the validation images, and keep the weights of the smaller loss.

        Not of the higher accuracy: on a few hundred images that is mostly a tie.
        """
        loss = self._row(name, purifier)
        if best is not None and not loss < best[2]:
            return best
        return name, copy.deepcopy(purifier.state_dict()), loss

    @torch.no_grad()
    def _check_autoencoder(self, autoencoder: Autoencoder) -> None:
        through = torch.cat([autoencoder(part) for part in torch.split(self.validation, 256)])
        quality, _ = self.box.judge(through, self.validation_teacher)
        self.found.bottleneck_quality = quality
        spread = float((through - through.mean(0)).square().mean())
        error = float((through - self.validation).square().mean())
        flat = float((self.validation - self.validation.mean(0)).square().mean())
        if spread < 1e-6 or error > 0.95 * flat:
            raise InputError(
                f"the autoencoder collapsed: its squared error is {error:.4f}, that of the mean image {flat:.4f}; "
                "try another seed, more images or a larger --warmup"
            )
        if self.options.task == "classification" and quality < 1 - _TOLERANCE:
            raise InputError(
                f"the black box answers only {100 * quality:.1f}% of the images that went through the autoencoder as "
                f"it does the originals; raise --dim (now {self.options.dim}) or --warmup, or use --space dct"
            )

    def _space(self, purifier: Purifier) -> tuple[Subspace, float]:
        """The space of the directions, and the deviation of the points in it."""
        shape = tuple(self.images.shape[1:])
        if self.options.takes_autoencoder:
            return FullSpace((self.options.dim,)), 1.0
        deviation = float(self.images.std())
        if self.options.space == "dct":
            block = max(1, round(math.sqrt(self.options.dim / shape[0])))
            factor = max(1.0, min(shape[1:]) / block)
            return DCTSubspace(shape, factor, self.images.device), deviation * factor
        return FullSpace(shape), deviation * math.sqrt(math.prod(shape) / 64)

    def _zeroth_order(self, purifier: Purifier, guide: Any = None) -> None:
        options = self.options
        space, deviation = self._space(purifier)
        estimator = options.make_estimator(space.dim)
        step = options.step
        if step == 0:
            probed = self.images[:16]
            with torch.no_grad():
                points = purifier.point(purifier.denoise(probed + options.sigma * torch.randn_like(probed)))
            step = find_step(purifier, self.box, points, self.teacher[:16], space, seed=self.seed, rms=deviation)
        self.found.step_size = step
        per_image = estimator.queries(space.dim)
        batch = options.batch or max(8, min(256, self.books.left("fit") // (300 * per_image)))
        schedule = Schedule(batch, options.screen, options.rate, options.anchor)
        self.found.steps["zeroth order"] = train(
            purifier,
            self.box,
            self.images,
            self.teacher,
            sigma=options.sigma,
            estimator=estimator,
            space=space,
            step=step * deviation,
            schedule=schedule,
            seed=self.seed,
            guide=guide,
            report=self.report,
        )

    def _surrogate(self, purifier: Purifier) -> None:
        """Distil, train through the student, and again with rows from the purifier as it is then."""
        options = self.options
        rounds = options.rounds
        total = self.books.left("fit")
        total = min(options.lesson, total if options.gradient == "surrogate" else int(options.share * total))
        fits = _LESSON_BYTES // (4 * math.prod(self.images.shape[1:]))
        if total > fits:
            self.found.notes.append(f"the lesson is cut from {total:,} rows to {fits:,}, which take 2 GiB")
            total = fits
        classes = self.box.classes
        student = Student(self.images.shape[1], classes).to(self.images.device)
        student = student.to(memory_format=torch.channels_last)
        lessons = []
        for number in range(rounds):
            share = total // rounds if number < rounds - 1 else total - (rounds - 1) * (total // rounds)
            lessons.append(gather(purifier, self.box, self.images, options.sigma, share))
            lesson = (torch.cat([rows for rows, _ in lessons]), torch.cat([told for _, told in lessons]))
            distil(student.train().requires_grad_(True), lesson, self.box, steps=options.student, report=self.report)
            student.eval().requires_grad_(False)
            self._first_order_through(student, purifier, options.first // rounds)
        self.student: nn.Module = student
        self.found.steps["surrogate"] = options.first

    def _hybrid(self, purifier: Purifier) -> None:
        """Spend what the surrogate left on zeroth-order steps, one of whose directions is the student's gradient."""

        def guide(points: Tensor, teacher: Tensor) -> Tensor:
            with torch.enable_grad():
                at = points.detach().requires_grad_(True)
                loss = self.box.loss(self.student(purifier.image(at)), teacher).sum()
                gradient: Tensor = torch.autograd.grad(loss, at)[0]
            ones = [1] * (points.ndim - 1)
            length: Tensor = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
            return gradient.detach() / length.view(-1, *ones)

        self._zeroth_order(purifier, guide if self.options.takes_autoencoder else None)

    def _first_order(self, purifier: Purifier) -> None:
        """White box, for comparison: by the gradient of the model itself. Its forwards are no queries."""
        target = self.books.oracle.target
        if not isinstance(target, TorchTarget):
            raise UsageError(f"first-order training needs the model itself; {target.name} is no torch module")
        self._first_order_through(target.with_gradient, purifier, self.options.first)
        self.found.steps["first order"] = self.options.first
        self.found.notes.append(
            "trained white-box, by the model's own gradient: a comparison, not a defense by queries"
        )

    def _first_order_through(self, model: Any, purifier: Purifier, steps: int) -> None:
        options = self.options
        descend_through(
            model,
            purifier,
            self.box,
            self.images,
            self.teacher,
            sigma=options.sigma,
            steps=steps,
            rate=options.rate,
            anchor=options.anchor,
            report=self.report,
        )
