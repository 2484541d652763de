"""A user's project in a folder of its own: a slow classifier that logs each row it is given, and data for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

_TOY = """
import hashlib, os, time
import torch

_generator = torch.Generator().manual_seed(11)
CENTRES = ((0.2 + 0.6 * torch.rand(4, 64, generator=_generator)).double() * (1 << 20)).round().long()

def classify(rows):
    log = os.environ.get("TOY_LOG")
    if log:
        lines = "".join(hashlib.blake2b(row.numpy().tobytes(), digest_size=8).hexdigest() + "\\n" for row in rows)
        with open(log, "a") as file:
            file.write(lines)
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    whole = (rows.double() * (1 << 20)).round().long().flatten(1)
    scores = -(whole[:, None] - CENTRES).square().sum(2)
    return (scores - scores.amax(1, keepdim=True)).float()
"""


@dataclass(frozen=True)
class Project:
    """A folder with ``toy.py`` and ``data.npz``."""

    path: Path
    name: str

    @classmethod
    def make(cls, path: Path, name: str, count: int = 6, wrong: int = 1) -> Project:
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{name}.py").write_text(_TOY)
        space: dict = {}
        exec(_TOY, space)
        centres = (space["CENTRES"].double() / (1 << 20)).float().view(4, 1, 8, 8)
        noise = 0.1 * torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        inputs = (centres[torch.arange(count) % 4] + noise).clamp(0, 1)
        labels = space["classify"](inputs).argmax(1)
        labels[:wrong] = (labels[:wrong] + 1) % 4
        np.savez(path / "data.npz", inputs=inputs.numpy(), labels=labels.numpy())
        return cls(path, name)

    def arguments(self, out: str, *more: str, attack: str = "cgba", budget: int = 120) -> list[str]:
        return [
            *("attack", attack, "--target", f"python:{self.name}:classify", "--data", "data.npz"),
            *("--budget", str(budget), "--max-batch", "16", "--threads", "1", "--no-report", "--quiet"),
            *("--out", out, *more),
        ]

    def resume(self, out: str) -> list[str]:
        return ["attack", "cgba", "--resume", out, "--no-report", "--quiet", "--threads", "1"]

    def start(
        self, arguments: list[str], *flags: str, log: str | None = None, sleep: float = 0.0
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, "TOY_SLEEP": str(sleep), "OMP_NUM_THREADS": "1"}
        if log is not None:
            environment["TOY_LOG"] = str(self.path / log)
        return subprocess.Popen(
            [sys.executable, *flags, "-c", "from bbox.cli import main; main()", *arguments],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop_after(self, rows: int, sign: signal.Signals, arguments: list[str], log: str, sleep: float) -> int:
        """Run, send the signal once it has logged this many rows more, return its exit code."""
        path = self.path / log
        target = self.logged(log) + rows
        with self.start(arguments, log=log, sleep=sleep) as process:
            deadline = time.monotonic() + 60
            while process.poll() is None and self.logged(log) < target and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(sign)
            process.communicate(timeout=60)
        assert path.exists()
        return process.returncode

    def logged(self, log: str) -> int:
        path = self.path / log
        return path.stat().st_size // 17 if path.exists() else 0

    def counts(self, log: str) -> Counter[str]:
        return Counter((self.path / log).read_text().split())

    def run(self, arguments: list[str], *flags: str, log: str | None = None) -> tuple[int, str, str]:
        with self.start(arguments, *flags, log=log) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out, err
