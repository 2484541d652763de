"""SMI gradient, the no-box attack on skeleton motion, and the baselines that it is measured beside."""

from __future__ import annotations

from bbox.attacks.smi.attack import SMI
from bbox.attacks.smi.baselines import BASELINES, DRIFT, LOW_PASS, drift, perturb

__all__ = ["BASELINES", "DRIFT", "LOW_PASS", "SMI", "drift", "perturb"]
