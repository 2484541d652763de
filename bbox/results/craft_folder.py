"""The folder of a no-box run: adversarial motions that no target has seen, and the baselines beside them.

run.json            what was asked, versions, hardware, the data's fingerprint
encoder/            the encoder, and while it is being trained its checkpoint
originals/          000003.npy, one motion each, float32 metres
adversarial/        the same of the attack; baselines/NAME/ of each baseline
adversarial.npz     all of them as a data set (``motion:RUN/adversarial.npz``)
answers.sqlite      what each target said of each file, once ``bbox evaluate`` has asked
results.json        figures of the motions; evaluation.json: fooling rates of each target
report.html         one offline page
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bbox.errors import InputError
from bbox.files import write_whole
from bbox.results.craft_config import CraftConfig
from bbox.results.plain_folder import PlainFolder, cannot_write
from bbox.results.store import npy_bytes

__all__ = ["ADVERSARIAL", "CraftFolder"]

ADVERSARIAL = "adversarial"


class CraftFolder(PlainFolder):
    """The folder of a no-box run."""

    kind: ClassVar[str] = "craft"
    noun: ClassVar[str] = "no-box run"

    def check(self) -> None:
        self.config()

    def config(self) -> CraftConfig:
        return CraftConfig.from_json(self.run()["config"])

    def methods(self) -> list[str]:
        """The attack (``adversarial``) and the baselines that are on disk."""
        place = self.path / "baselines"
        return [ADVERSARIAL, *(sorted(p.name for p in place.iterdir() if p.is_dir()) if place.is_dir() else [])]

    def place(self, method: str) -> Path:
        """The folder of a method's files; ``originals`` is one of them."""
        return self.path / method if method in ("originals", ADVERSARIAL) else self.path / "baselines" / method

    def has(self, method: str, index: int) -> bool:
        return (self.place(method) / f"{index:06d}.npy").is_file()

    def save(self, method: str, index: int, motion: Tensor) -> None:
        """Write one motion, whole or not at all.

        Raises:
            StorageError: the disk is full, or the folder is gone.
        """
        try:
            self.place(method).mkdir(parents=True, exist_ok=True)
            write_whole(self.place(method) / f"{index:06d}.npy", npy_bytes(motion))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def motions(self, method: str, indices: list[int]) -> Tensor:
        """Saved motions, read back: (k, 3, frames, joints, bodies).

        Raises:
            InputError: one is missing, or is no motion.
        """
        rows, shape = [], self.run()["data"]["shape"]
        for index in indices:
            path = self.place(method) / f"{index:06d}.npy"
            try:
                row = np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise InputError(f"{path} cannot be read ({error}); start a new run, or put it back") from error
            if row.dtype != np.float32 or list(row.shape) != shape:
                raise InputError(f"{path} holds {row.dtype} of shape {row.shape}, expected float32 of {tuple(shape)}")
            rows.append(torch.from_numpy(row))
        return torch.stack(rows)

    def examples(self) -> list[dict[str, Any]]:
        """Index, id and label of each motion of the run."""
        listed: list[dict[str, Any]] = self.run()["examples"]
        return listed
