"""Zeroth-order estimation: random directions, subspaces, gradient estimators. No attack or defense in it."""

from bbox.zo.directions import Directions
from bbox.zo.estimators import CGE, RGE, DecisionMonteCarlo, Estimator, Probes
from bbox.zo.random import fold, gaussian, rademacher, root_keys, uniform
from bbox.zo.subspace import DCTSubspace, FullSpace, Subspace

__all__ = [
    "CGE",
    "RGE",
    "DCTSubspace",
    "DecisionMonteCarlo",
    "Directions",
    "Estimator",
    "FullSpace",
    "Probes",
    "Subspace",
    "fold",
    "gaussian",
    "rademacher",
    "root_keys",
    "uniform",
]
