"""Certification by randomized smoothing, for many images at once.

Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing" (ICML 2019): the smoothed
classifier answers the class that the base classifier most often answers under Gaussian noise. Algorithm CERTIFY picks
that class with n0 samples, bounds its probability with n fresh ones, and turns the bound into an l2 radius (theorem 1;
with a bound on one class alone, p_B = 1 - p_A).

The noise is added to the outermost input and never clipped: rows leave [0, 1], by design, since the theorem is about
the Gaussian. Whatever comes after (denoiser, preprocessing, clipping) is part of the base classifier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbox.defenses import bounds
from bbox.defenses.certificate import Certificate, Settings
from bbox.defenses.normal import normal
from bbox.errors import InputError, TargetError, UsageError
from bbox.oracle import Oracle
from bbox.registry import did_you_mean
from bbox.zo import fold, root_keys

__all__ = ["Certificate", "Denoise", "NoiseAccuracy", "certify", "check_request", "noise_accuracy"]

Denoise: TypeAlias = Callable[[Tensor, float], Tensor]

# Streams of an example's key: selection and estimate share no noise, images share none either.
_SELECTION, _ESTIMATE, _NOISE_ACCURACY = -21, -22, -23
_SLICE = 16  # forwards between two calls of on_progress: what a kill can lose


@dataclass(frozen=True)
class NoiseAccuracy:
    """Accuracy of single noisy answers, without a vote.

    Attributes:
        value: share of right answers; standard_error: over images.
        draws: noisy answers an image.
    """

    value: float
    standard_error: float
    draws: int
    images: int


def certify(
    oracle: Oracle,
    inputs: Tensor,
    labels: Tensor | None = None,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    radii: Sequence[float] | Literal["auto"] | None = "auto",
    method: bounds.Method = "eprocess",
    denoise: Denoise | None = None,
    seed: int = 0,
    indices: Tensor | Sequence[int] | None = None,
    budget: int | None = None,
    on_progress: Callable[[Certificate], None] | None = None,
    resume: Certificate | None = None,
) -> Certificate:
    """Certify images: the class of the smoothed classifier and the l2 radius within which it cannot change.

    Each image's statement fails with probability at most ``alpha`` (by itself; for a statement on all m images
    together, use alpha / m). What an image gets depends on (seed, index) alone: not on the batch, on the order, or on
    the other images (a target whose rounding depends on its batch may decide a tie differently; a ``budget`` is
    shared by all).

    Queries: n0 + n an image at most, on the ledger ``certify``; the sequential methods stop at far fewer. They ask in
    forwards of ``oracle.max_batch`` rows, filled from all images that are still undecided.

    Args:
        sigma: standard deviation of the noise, in the units of pixels in [0, 1].
        n0: samples that select the class; they are used for nothing else.
        n: samples of the estimate at most; ``fixed`` uses them all.
        alpha: probability with which an image's statement may be wrong.
        radii: l2 radii to decide: an image stops when each is certified or futile. ``"auto"``: 0, 1/2, 1, 1.5 and 2
            sigma, as far as n reaches. ``None``: no stop, all n samples, and the full radius.
        method: ``fixed``, ``staged`` or ``eprocess`` (``bbox.defenses.bounds``).
        denoise: called with noisy rows and sigma before the target; it runs on the target's device and costs no query.
        indices: each image's index in its data; default 0 to m - 1.
        budget: rows of the whole call, a hard limit. Images that it leaves unfinished abstain where they are not
            certified yet; ``Certificate.reason`` says so.
        on_progress: called before each slice of forwards with the state so far (save it to be able to resume).
        resume: a certificate that on_progress was given; sampling goes on where it stands.

    Shapes:
        inputs: (m, channels, height, width) float32 in [0, 1]; labels: (m,), used only for accuracy.

    Raises:
        UsageError: a number that makes no sense, or (n, alpha) that can never certify what is asked.
        InputError: inputs outside [0, 1], of a shape that the target does not take, or a denoiser that fails.
        TargetError: the target failed; its ``result`` is the certificate so far.

    Example:
        >>> import bbox
        >>> from bbox.defenses import certify
        >>> digits = bbox.data.load("zoo:digits").select(limit=4)
        >>> oracle = bbox.Oracle(bbox.targets.load("zoo:digits"))
        >>> found = certify(oracle, digits.inputs, digits.labels, sigma=0.25, n=1000, radii=(0.125,))
        >>> found.certified((0.125,))[:, 0].tolist(), found.queries == oracle.books["certify"].queries
        ([True, False, True, True], True)
    """
    chosen = check_request(sigma, n0, n, alpha, method, radii, budget)
    index = _check_inputs(oracle, inputs, labels, indices)
    name = oracle.target.name if denoise is None else f"{oracle.target.name} behind a denoiser"
    settings = Settings(name, float(sigma), n0, n, float(alpha), method, chosen, seed, budget)
    truth = np.full(len(index), -1) if labels is None else torch.as_tensor(labels).cpu().numpy().astype(np.int64)
    found = Certificate.blank(settings, index, truth, oracle.target.num_classes or 0)
    if resume is not None:
        _check_same(found, resume)
        found = resume
        found.settings = settings
    report = on_progress or (lambda _: None)
    roots = root_keys(seed, torch.from_numpy(index))
    sample = _Sampler(oracle, inputs, float(sigma), denoise)
    rows_a_slice = _SLICE * oracle.max_batch
    try:
        while not found.complete:
            choosing = found.selected < n0
            done = found.selected if choosing.any() else found.samples
            waiting = choosing if choosing.any() else found.undecided
            # The images with the fewest samples go first, so that a budget is spread evenly.
            here = int(done[waiting].min())
            step = (n0 if choosing.any() else settings.rule.next_stop(here)) - here
            images = (waiting & (done == here)).nonzero()[0][: max(1, rows_a_slice // step)]
            rows = len(images) * step
            if budget is not None:
                rows = min(rows, budget - found.queries)
            # Rows are taken from the budget before they are asked: killed in between, they are never asked in excess.
            found.queries += rows
            report(found)
            stream = _SELECTION if choosing.any() else _ESTIMATE
            owner, answers = sample(fold(roots, stream), images, here, step, rows)
            _book(found, owner, answers, selecting=bool(choosing.any()))
    except TargetError as error:
        error.result = found
        raise
    report(found)
    return found


def noise_accuracy(
    oracle: Oracle,
    inputs: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    draws: int = 1,
    denoise: Denoise | None = None,
    seed: int = 0,
    indices: Tensor | Sequence[int] | None = None,
) -> NoiseAccuracy:
    """Accuracy of the model under noise without a vote: how often one noisy answer is right.

    Queries: ``draws`` an image, on the ledger ``certify``. The noise is none of ``certify``'s.

    Raises:
        UsageError, InputError, TargetError: as ``certify``.
    """
    _check_numbers(sigma, draws, 1, 0.5, "fixed", None)
    index = _check_inputs(oracle, inputs, labels, indices)
    keys = fold(root_keys(seed, torch.from_numpy(index)), _NOISE_ACCURACY)
    images = np.arange(len(index))
    owner, answers = _Sampler(oracle, inputs, float(sigma), denoise)(keys, images, 0, draws, len(index) * draws)
    truth = torch.as_tensor(labels).cpu().numpy()
    right = np.bincount(owner[answers == truth[owner]], minlength=len(index)) / draws
    error = float(right.std(ddof=1) / math.sqrt(len(right))) if len(right) > 1 else math.nan
    return NoiseAccuracy(float(right.mean()), error, draws, len(right))


class _Sampler:
    """Makes noisy rows of many images, a forward at a time, and asks them."""

    def __init__(self, oracle: Oracle, inputs: Tensor, sigma: float, denoise: Denoise | None) -> None:
        self.oracle, self.inputs, self.sigma, self.denoise = oracle, inputs, sigma, denoise

    def __call__(
        self, keys: Tensor, images: NDArray[np.int64], first: int, step: int, rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ask samples ``first`` to ``first + step - 1`` of each image, image by image, of all these the first ``rows``.

        Shapes:
            keys: (m,) int64; images: (k,) positions.
            returns: each row's position and answered class, (rows,) int64 both.
        """
        device = self.oracle.device
        positions = torch.from_numpy(images)
        pool, own = self.inputs[positions].to(device, torch.float32), keys[positions].to(device)
        answers: list[Tensor] = []
        start = 0
        while start < rows:
            flat = torch.arange(start, min(rows, start + self.oracle.max_batch), device=device)
            place = flat // step
            noise = normal(fold(own[place], first + flat % step), pool[0].numel())
            noisy = torch.add(pool[place], noise.view(-1, *pool.shape[1:]), alpha=self.sigma)
            answers.append(self.oracle.ask(self._denoised(noisy), "certify").labels)
            start += len(flat)
        owner = images[np.arange(rows) // step]
        return owner, (torch.cat(answers) if answers else torch.empty(0, dtype=torch.int64)).numpy()

    def _denoised(self, noisy: Tensor) -> Tensor:
        if self.denoise is None:
            return noisy
        try:
            with torch.no_grad():
                clean = self.denoise(noisy, self.sigma)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(f"the denoiser failed on rows of shape {tuple(noisy.shape)}: {reason}") from error
        if not isinstance(clean, Tensor) or clean.shape != noisy.shape:
            got = tuple(clean.shape) if isinstance(clean, Tensor) else type(clean).__name__
            raise InputError(f"the denoiser returned {got} for rows of shape {tuple(noisy.shape)}")
        return clean


def _book(found: Certificate, owner: NDArray[np.int64], answers: NDArray[np.int64], *, selecting: bool) -> None:
    """Count answers; select classes that are due; look at the bounds of images that got samples."""
    usable = answers >= 0
    classes = max(found.counts.shape[1], int(answers.max(initial=-1)) + 1)
    grow = ((0, 0), (0, classes - found.counts.shape[1]))
    found.counts, found.selection = np.pad(found.counts, grow), np.pad(found.selection, grow)
    flat = owner[usable] * classes + answers[usable]
    counted = np.bincount(flat, minlength=len(found) * classes).reshape(len(found), classes)
    taken = np.bincount(owner, minlength=len(found))
    if selecting:
        found.selection += counted
        found.selected += taken
        due = (found.selected >= found.settings.n0) & (found.selection.sum(1) > 0)
        if classes:
            found.predicted = np.where(due, found.selection.argmax(1), found.predicted)
        return
    found.counts += counted
    found.samples += taken
    fresh = taken.nonzero()[0]
    proven = found.settings.rule.bound(found.hits[fresh], found.samples[fresh])
    found.lower[fresh] = np.maximum(found.lower[fresh], proven)


def check_request(
    sigma: float,
    n0: int,
    n: int,
    alpha: float,
    method: bounds.Method,
    radii: Sequence[float] | Literal["auto"] | None,
    budget: int | None = None,
) -> tuple[float, ...] | None:
    """Check the numbers of ``certify`` against each other; returns the radii to decide.

    Raises:
        UsageError: one makes no sense, or (n, alpha) can never certify what is asked.
    """
    _check_numbers(sigma, n0, n, alpha, method, budget)
    most = bounds.largest_radius(method, n, alpha, sigma)
    if most <= 0:
        least = bounds.smallest_n(alpha, method=method)
        raise UsageError(f"n = {n} samples can never certify at alpha {alpha:g}; the smallest n that can is {least}")
    if radii is None:
        return None
    if radii == "auto":
        return tuple(step * sigma for step in (0.0, 0.5, 1.0, 1.5, 2.0) if step * sigma <= most)
    chosen = tuple(sorted({float(r) for r in radii}))
    if not chosen:
        raise UsageError("no radius is given; leave radii out, or None for the full radius")
    for at in chosen:
        if not 0 <= at < math.inf:
            raise UsageError(f"radius is {at:g}, expected at least 0, in l2 over pixels in [0, 1]")
        if at > most:
            # At 5 sigma it takes 24 million samples, and beyond 8 p differs from 1 by less than floats can tell.
            far = at >= 5 * sigma
            advice = "use a larger sigma" if far else f"n = {bounds.smallest_n(alpha, at, sigma, method)} could"
            raise UsageError(
                f"radius {at:g} is out of reach: n = {n} at alpha {alpha:g} and sigma {sigma:g} certifies at most "
                f"{most:.3f}; {advice}"
            )
    return chosen


def _check_numbers(sigma: float, n0: int, n: int, alpha: float, method: bounds.Method, budget: int | None) -> None:
    if not 0 < sigma < math.inf:
        raise UsageError(f"sigma is {sigma:g}, expected more than 0")
    if sigma > 1:
        raise UsageError(
            f"sigma is {sigma:g}, more than the whole range of pixels, [0, 1]; "
            f"if that was in units of 0 to 255, give {sigma / 255:g}"
        )
    for name, value in (("n0", n0), ("n", n), ("budget", budget)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}, expected at least 1")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha:g}, expected more than 0 and less than 1")
    if method not in bounds.METHODS:
        near = did_you_mean(str(method), bounds.METHODS)
        raise UsageError(f"method is {method!r}, expected {', '.join(bounds.METHODS)}{near}")


def _check_inputs(
    oracle: Oracle, inputs: Tensor, labels: Tensor | None, indices: Tensor | Sequence[int] | None
) -> NDArray[np.int64]:
    """Refuse what cannot be certified; returns each image's index, (m,)."""
    if inputs.ndim != 4 or len(inputs) == 0 or not inputs.is_floating_point():
        raise InputError(
            f"inputs are {tuple(inputs.shape)} {inputs.dtype}, expected floats (images, channels, height, width)"
        )
    low, high = (float(x) for x in torch.aminmax(inputs))
    if not (low >= 0 and high <= 1):
        hint = "; divide by 255" if high > 2 else ""
        raise InputError(f"pixels reach from {low:g} to {high:g}, expected [0, 1]{hint}")
    shape = tuple(inputs.shape[1:])
    takes = oracle.target.input_shape
    if takes is not None and tuple(takes) != shape:
        raise InputError(f"{oracle.target.name} takes images of shape {tuple(takes)}, the inputs have {shape}")
    if labels is not None and len(labels) != len(inputs):
        raise InputError(f"{len(inputs)} images but {len(labels)} labels")
    index = np.arange(len(inputs)) if indices is None else torch.as_tensor(indices).cpu().numpy().astype(np.int64)
    if len(index) != len(inputs):
        raise UsageError(f"{len(inputs)} images but {len(index)} indices")
    if len(np.unique(index)) != len(index):
        raise UsageError("an index is given twice; two images must not share their noise")
    return index


def _check_same(new: Certificate, old: Certificate) -> None:
    """Refuse to go on with a certificate of something else; only the budget may change."""
    same = replace(old.settings, budget=new.settings.budget) == new.settings
    if not same or not np.array_equal(old.index, new.index):
        raise UsageError("the certificate to resume was made with other settings or for other images")
