"""The public CGBA and CGBA-H, run from a checkout of the authors' repository (``--cgba-repo``).

Nothing of it is copied here. What the shim changes, and why:

- The attack lives in ImageNet-normalised space, with its step sizes; the meter sees pixels.
- The start is the case's, and free; the attack still bisects from it and pays.
- Its iterations are endless: the meter's budget ends it.
- Its own query count is made right where it gives up a search (it counts one too many there and dies of it).
- Noise has as many channels as the image; the original is written for three.
- The device is the image's; the original takes a GPU whenever the machine has one.

Rows outside [0, 1] are asked as they are and never count as adversarial. CGBA's arc search makes them by the
thousand, so there is a third entry that the authors do not have: CGBA behind a clamp, as forks of it run it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.meter import Meter

__all__ = ["prepare", "run_cgba", "run_cgba_clipped", "run_cgba_h"]

# The normalisation of the authors' scripts; for one channel, its mean.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ENDLESS = 1_000_000


def prepare(options: Any) -> dict[str, Any]:
    """Put the checkout on the import path."""
    folder = options.cgba_repo
    if folder is None or not (Path(folder) / "proposed_attack.py").exists():
        raise SystemExit(f"--cgba-repo: no proposed_attack.py in {folder}; give a checkout of Farhamdur/CGBA")
    sys.path.append(str(Path(folder).resolve()))
    commit = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "commit": commit or None,
        "settings": "N0 30, sigma 2e-4, tol 1e-4, f 4 (class defaults), normalised space",
    }


class _PixelView:
    """The meter as the attack wants its model: ``forward`` on normalised rows."""

    def __init__(self, meter: Meter, mean: Tensor, std: Tensor, clip: bool) -> None:
        self.meter, self.mean, self.std, self.clip = meter, mean, std, clip

    def forward(self, rows: Tensor) -> Tensor:
        pixels = rows.detach() * self.std + self.mean
        return self.meter(pixels.clamp(0, 1) if self.clip else pixels)


def _shimmed(base: type) -> type:
    class Shimmed(base):  # type: ignore[misc]
        start: Tensor

        def find_random_adversarial(self, image: Tensor) -> tuple[Tensor, int]:
            return self.start, 0

        def find_random(self, x: Tensor, n: int) -> Tensor:
            return super().find_random(x, n)[:, : x.shape[1]].to(x.device)

        def inv_tf(self, x: Tensor, mean: Any, std: Any) -> Tensor:
            return x  # used for the attack's own norms only; the meter has its own

        def _searched(self, search: Any, *points: Tensor) -> tuple[Tensor, int]:
            before = self.all_queries
            found, _ = search(*points)
            return found, self.all_queries - before

        def go_to_boundary_CGBA(self, *points: Tensor) -> tuple[Tensor, int]:  # noqa: N802
            return self._searched(super().go_to_boundary_CGBA, *points)

        def go_to_boundary_CGBA_H(self, *points: Tensor) -> tuple[Tensor, int]:  # noqa: N802
            return self._searched(super().go_to_boundary_CGBA_H, *points)

    return Shimmed


def _run(method: str, meter: Meter, image: Tensor, start: Tensor, target: int | None, *, clip: bool = False) -> None:
    base = importlib.import_module("proposed_attack").Proposed_attack
    channels = len(image)
    mean, std = (
        torch.tensor(values if channels == 3 else [sum(values) / 3] * channels).view(1, -1, 1, 1).to(image)
        for values in (MEAN, STD)
    )
    source, begin = ((pixels[None] - mean) / std for pixels in (image, start))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        attack = _shimmed(base)(
            _PixelView(meter, mean, std, clip),
            source,
            mean.flatten().tolist(),
            std.flatten().tolist(),
            (0 - mean) / std + torch.zeros_like(source),
            (1 - mean) / std + torch.zeros_like(source),
            tar_img=None if target is None else begin,
            attack_method=method,
            iteration=ENDLESS,
            verbose_control="No",
        )
        attack.device = str(image.device)
        attack.start = begin
        attack.Attack()


def run_cgba(meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    """Semicircle search with the arc bisection; made for untargeted attacks."""
    _run("CGBA", meter, image, start, target)


def run_cgba_clipped(meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    """CGBA with every row clamped on its way to the model; the attack itself does not know."""
    _run("CGBA", meter, image, start, target, clip=True)


def run_cgba_h(meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    """The variant for highly curved boundaries, which the authors use for targeted attacks."""
    _run("CGBA_H", meter, image, start, target)
