"""Zeroth-order estimation: random directions, subspaces, gradient estimators. No attack or defense in it."""

from bbox.zo.descent import Adam, Descent, GradientCorrection
from bbox.zo.directions import Directions
from bbox.zo.estimators import CGE, RGE, DecisionMonteCarlo, Estimator, Probes
from bbox.zo.random import fold, gaussian, rademacher, root_keys, uniform
from bbox.zo.spsa import SPSA, Gains, clip_estimate
from bbox.zo.subspace import DCTSubspace, FullSpace, Subspace, TemporalSubspace

__all__ = [
    "CGE",
    "RGE",
    "SPSA",
    "Adam",
    "DCTSubspace",
    "DecisionMonteCarlo",
    "Descent",
    "Directions",
    "Estimator",
    "FullSpace",
    "Gains",
    "GradientCorrection",
    "Probes",
    "Subspace",
    "TemporalSubspace",
    "clip_estimate",
    "fold",
    "gaussian",
    "rademacher",
    "root_keys",
    "uniform",
]
