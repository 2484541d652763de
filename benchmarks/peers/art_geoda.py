"""ART's GeoDA with its defaults. It is untargeted only, and plans for its budget in advance."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.meter import Meter
from benchmarks.peers.art_common import art_classifier, art_facts

__all__ = ["prepare", "run"]


def prepare(_options: Any) -> dict[str, Any]:
    if not hasattr(np, "mat"):
        np.mat = np.asmatrix  # numpy 2 dropped a name that GeoDA uses
    return {**art_facts(), "settings": "class defaults (sub_dim 10), max_iter = the budget, start given"}


def run(meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    from art.attacks.evasion import GeoDA

    if target is not None:
        raise SystemExit("art-geoda has no targeted attack")

    class StartedGeoDA(GeoDA):  # type: ignore[misc]
        def _find_random_adversarial(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return start[None].cpu().numpy()

    attack = StartedGeoDA(art_classifier(meter), norm=2, max_iter=meter.budget, verbose=False)
    # It writes its basis into the working directory and reads it back by name: give it a folder it may keep.
    folder = Path(tempfile.gettempdir()) / "bbox-benchmarks" / "geoda"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        attack.generate(image[None].cpu().numpy(), y=np.array([label]))
