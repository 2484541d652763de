"""Multinomial logistic regression with an L2 penalty chosen by cross-validation: no query, no randomness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from torch import Tensor

from bbox.errors import InputError, UsageError

__all__ = ["LogisticRegression"]

Floats = NDArray[np.float64]

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(6, -7, -1))  # 1000 to 0.001
_CONSTANT = 1e-6  # a feature that deviates less than this beside its size is constant, to float32
_PATIENCE = 2


class LogisticRegression:
    """Minimises sum of cross-entropy + strength / 2 * |weights|^2 on standardised features, by L-BFGS in float64.

    The intercepts are free. A feature that is not finite counts as its mean. A class of which there is no row gets the
    share 1 / (n + classes), as by the rule of succession, whatever the features.

    Args:
        strengths: penalties to choose among, from the largest; the search ends after two in a row that are worse than
            the best, so that small ones, which fit slowly, are tried only where they may win.
        folds: of the cross-validation, stratified and without randomness; the smallest held-out log-loss wins.

    Attributes:
        strength: the penalty chosen (sklearn's 1 / C).
        loss, accuracy: its cross-validated log-loss (nats) and accuracy (0 to 1).
    """

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS, folds: int = 5) -> None:
        self.strengths = strengths
        self.folds = folds
        self.strength = self.loss = self.accuracy = float("nan")
        self._scaling: tuple[Floats, Floats] | None = None
        self._fit: _Fit | None = None

    def fit(self, inputs: Tensor, labels: Tensor, num_classes: int) -> None:
        """Choose the penalty and fit to all rows.

        Shapes:
            inputs: (n, d) float; labels: (n,) int64 in [0, num_classes).

        Raises:
            UsageError: there are fewer than two rows.
            InputError: a label is not one of the classes.
        """
        classes: NDArray[np.int64] = labels.detach().cpu().numpy()
        if len(classes) < 2:
            raise UsageError(f"a logistic regression needs at least 2 labelled rows, got {len(classes)}")
        if classes.min() < 0 or classes.max() >= num_classes:
            wrong = classes.min() if classes.min() < 0 else classes.max()
            raise InputError(f"label {wrong} is not one of {num_classes} classes, expected 0 to {num_classes - 1}")
        raw = inputs.detach().cpu().double().numpy()
        self._scaling = _scaling(raw)
        rows, basis = _reduce(_standardise(raw, *self._scaling))
        self._choose(rows, classes, num_classes)
        fit = _Fit.of(rows, classes, num_classes, self.strength)
        self._fit = fit if basis is None else fit.expanded(basis)

    def scores(self, inputs: Tensor) -> Tensor:
        """Log-probabilities of the classes.

        Shapes:
            inputs: (n, d) float; returns: (n, num_classes) float32, on the inputs' device.
        """
        if self._fit is None or self._scaling is None:
            raise ValueError("the regression was not fitted")
        rows = _standardise(inputs.detach().cpu().double().numpy(), *self._scaling)
        return torch.from_numpy(self._fit.log_probabilities(rows)).to(inputs.device, torch.float32)

    def _choose(self, rows: Floats, labels: NDArray[np.int64], num_classes: int) -> None:
        """Find the penalty with the smallest held-out loss."""
        count = len(rows)
        fold = np.empty(count, np.int64)
        fold[labels.argsort(kind="stable")] = np.arange(count) % min(self.folds, count)
        fits: list[_Fit | None] = [None] * min(self.folds, count)
        self.loss, worse = float("inf"), 0
        for strength in self.strengths:
            held_out = np.empty((count, num_classes))
            for number, before in enumerate(fits):
                train = fold != number
                fits[number] = fit = _Fit.of(
                    rows[train], labels[train], num_classes, strength, start=before, tolerance=1e-5
                )
                held_out[~train] = fit.log_probabilities(rows[~train])
            loss = -float(held_out[np.arange(count), labels].mean())
            worse = 0 if loss < self.loss else worse + 1
            if not worse:
                self.strength, self.loss = strength, loss
                self.accuracy = float((held_out.argmax(1) == labels).mean())
            if worse == _PATIENCE:
                break


@dataclass(frozen=True)
class _Fit:
    """A fit of one penalty. Shapes: weights (d + 1, present), the intercepts last; present: classes with rows."""

    weights: Floats
    present: NDArray[np.int64]
    num_classes: int
    missing: float  # log share of a class without rows

    @classmethod
    def of(
        cls,
        rows: Floats,
        labels: NDArray[np.int64],
        num_classes: int,
        strength: float,
        *,
        start: _Fit | None = None,
        tolerance: float = 1e-6,
    ) -> _Fit:
        present, place = np.unique(labels, return_inverse=True)
        ones = np.concatenate([rows, np.ones((len(rows), 1))], 1)
        target = np.eye(len(present))[place]
        shape = (ones.shape[1], len(present))

        def objective(flat: Floats) -> tuple[float, Floats]:
            weights = flat.reshape(shape)
            logits = ones @ weights
            penalised = weights[:-1] * strength
            loss = (logsumexp(logits, axis=1) - (logits * target).sum(1)).sum() + (penalised * weights[:-1]).sum() / 2
            gradient = ones.T @ (softmax(logits, axis=1) - target)
            gradient[:-1] += penalised
            return loss / len(rows), gradient.ravel() / len(rows)

        first = np.zeros(shape) if start is None else start.weights
        options = {"maxiter": 1000, "maxfun": 2000, "gtol": tolerance, "ftol": 1e-5 * tolerance, "maxcor": 20}
        found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=options)
        missing = -float(np.log(len(rows) + num_classes))
        return cls(found.x.reshape(shape), present, num_classes, missing)

    def log_probabilities(self, rows: Floats) -> Floats:
        logits = rows @ self.weights[:-1] + self.weights[-1]
        rest = (self.num_classes - len(self.present)) * np.exp(self.missing)
        answer = np.full((len(rows), self.num_classes), self.missing)
        answer[:, self.present] = logits - logsumexp(logits, axis=1, keepdims=True) + np.log1p(-rest)
        return answer

    def expanded(self, basis: Floats) -> _Fit:
        """The same fit for rows that were not reduced to ``basis``."""
        weights = np.concatenate([basis @ self.weights[:-1], self.weights[-1:]])
        return _Fit(weights, self.present, self.num_classes, self.missing)


def _scaling(raw: Floats) -> tuple[Floats, Floats]:
    """Mean of each feature, and one over its standard deviation (0 for a constant one)."""
    known = np.isfinite(raw)
    count = known.sum(0).clip(1)
    mean = np.where(known, raw, 0).sum(0) / count
    deviation = np.sqrt((np.where(known, raw - mean, 0) ** 2).sum(0) / count)
    size = np.abs(np.where(known, raw, 0)).max(0)
    varies = deviation > _CONSTANT * size
    return mean, np.where(varies, 1 / np.where(varies, deviation, 1), 0)


def _standardise(raw: Floats, mean: Floats, scale: Floats) -> Floats:
    return (np.where(np.isfinite(raw), raw, mean) - mean) * scale


def _reduce(rows: Floats) -> tuple[Floats, Floats | None]:
    """Rows in an orthonormal basis of their span where they are fewer than the features: the weights lie in it."""
    if rows.shape[0] >= rows.shape[1]:
        return rows, None
    basis, triangle = np.linalg.qr(rows.T)
    return triangle.T, basis
