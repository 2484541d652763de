"""A user's project on motion: data, an encoder, and a metered classifier, in a folder of its own."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from bbox.data.base import MotionSet
from bbox.data.motion import save_motions
from tests.motion.bodies import SKELETON, move, ragged
from tests.toys import Examples, Quadratic

NAMES = ("wave", "kick", "jump", "turn")

_PROJECT = """
import os, time
import torch
from torch import nn

class Waves(nn.Module):
    def forward(self, motions):
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
        values = motions.flatten(1) * torch.arange(motions[0].numel()).mul(0.7).sin()
        return torch.stack([values[:, part::5].sum(1) for part in range(5)], 1)

def encoder():
    return Waves()

def blind():
    class Blind(nn.Module):
        def forward(self, motions):
            return motions.detach().flatten(1)[:, :5]
    return Blind()

def classify(rows):
    log = os.environ.get("TOY_LOG")
    if log:
        with open(log, "a") as file:
            file.write("row\\n" * len(rows))
        if os.path.getsize(log) > 4 * int(os.environ.get("TOY_GOOD", "1000000000")):
            raise RuntimeError("the service has gone")
    values = (rows * 1000).round().long().flatten(1)
    return torch.stack([values[:, part::4].sum(1) for part in range(4)], 1).float()
"""


class Waves(nn.Module):
    """Features without a matrix product: the same for a motion alone and in any batch."""

    def forward(self, motions: Tensor) -> Tensor:
        weights = torch.arange(motions[0].numel()).mul(0.7).sin()
        values = motions.flatten(1) * weights
        return torch.stack([values[:, part::5].sum(1) for part in range(5)], 1)


class MotionToy(Quadratic):
    """``Quadratic`` over motions of two bodies; its centres lie within reach of a tube of 10 cm."""

    takes = "motion"

    def __init__(self, access: str = "scores", frames: int = 20) -> None:
        super().__init__((3, frames, len(SKELETON), 2), access=access)
        base = ragged(4, frames)[1]
        generator = torch.Generator().manual_seed(5)
        offset = 0.02 * torch.randn(4, 3, 1, len(SKELETON), 2, generator=generator)
        self.centres = (base + offset) * (base != 0)
        self._centres = self._integers(self.centres).flatten(1)
        self._weights = torch.ones(4, dtype=torch.int64)


def near_centres(target: MotionToy, count: int) -> Examples:
    """Motions near the centres, labelled by the target itself; some frames are padding or lack the second body."""
    noise = 0.005 * torch.randn(count, *target.input_shape, generator=torch.Generator().manual_seed(7))
    there = target.centres[:1] != 0
    inputs = (target.centres[torch.arange(count) % 4] + noise) * there
    return Examples(inputs, target.answer(inputs).argmax(1))


def motion_set(count: int = 6, frames: int = 12, *, bodies: int = 1, seed: int = 0) -> MotionSet:
    """Labelled motions of ``SKELETON``."""
    return MotionSet(
        name="toys",
        inputs=move(count, frames, bodies=bodies, seed=seed),
        labels=torch.arange(count) % 4,
        indices=torch.arange(count),
        ids=tuple(f"clip-{i}" for i in range(count)),
        class_names=NAMES,
        skeleton=SKELETON,
    )


@dataclasses.dataclass(frozen=True)
class MotionProject:
    """A folder with a module and ``data.npz``, whose labels are what ``classify`` says, but for the first."""

    path: Path
    name: str

    @classmethod
    def make(cls, path: Path, name: str, count: int = 6) -> MotionProject:
        (path / f"{name}.py").write_text(_PROJECT)
        data = motion_set(count)
        labels = cls.classify(data.inputs).argmax(1)
        labels[0] = (labels[0] + 1) % 4
        save_motions(path / "data.npz", dataclasses.replace(data, labels=labels))
        return cls(path, name)

    @staticmethod
    def classify(rows: Tensor) -> Tensor:
        values = (rows * 1000).round().long().flatten(1)
        return torch.stack([values[:, part::4].sum(1) for part in range(4)], 1).float()

    @property
    def target(self) -> str:
        return f"python:{self.name}:classify"

    def craft(self, out: str, *more: str) -> list[str]:
        """A run that learns nothing and takes no time."""
        encoder = ("--encoder", f"torch:{self.name}:encoder", "--iterations", "4", "--epsilon", "0.05")
        return ["attack", "smi", "--data", "motion:data.npz", *encoder, "--out", out, "--no-report", *more]

    def start(self, arguments: list[str], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from bbox.cli import main; main()", *arguments],
            cwd=self.path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop_once(self, there: Path, sign: signal.Signals, arguments: list[str], **environment: str) -> tuple[int, str]:
        """Run, send the signal once this file is there; its exit code and stderr."""
        with self.start(arguments, **environment) as process:
            deadline = time.monotonic() + 60
            while not there.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(sign)
            _, err = process.communicate(timeout=60)
        return process.returncode, err
