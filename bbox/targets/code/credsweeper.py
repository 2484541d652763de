"""``credsweeper:PRESET``: Samsung's CredSweeper, a scanner of hard-coded credentials, as its package ships it.

The scanner looks for candidates by rules (regular expressions over name and value), and a network then gives most of
them a probability from the line, the variable's name and the value. The question here is whether a program that holds a
credential is reported at all: classes ``missed`` and ``found``.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbox.code.languages import named
from bbox.code.program import Program, Programs
from bbox.errors import UsageError
from bbox.targets.code.base import CodeTarget
from bbox.targets.options import Options

__all__ = ["CredentialScanner", "load"]

_PRESETS = ("lowest", "low", "medium", "high", "highest")


class CredentialScanner(CodeTarget):
    """Whether CredSweeper reports a credential in a program.

    The score of ``found`` is the largest probability p of the program's candidates, as odds over those of the preset's
    threshold t: sigmoid(logit p - logit t), which is above one half where the scanner reports. It is 1 for a candidate
    that a rule alone decides, and 0 where there is none.

    Args:
        preset: the scanner's threshold, ``medium`` by default as in the scanner.

    Raises:
        UsageError: the package is not installed, or there is no such preset.
    """

    class_names = ("missed", "found")
    num_classes = 2

    def __init__(self, preset: str = "medium") -> None:
        if preset not in _PRESETS:
            raise UsageError(f"credsweeper:{preset} is unknown, expected credsweeper:{'|'.join(_PRESETS)}")
        self.name = f"credsweeper:{preset}"
        with _calm():
            try:
                import credsweeper
                from credsweeper.app import CredSweeper
                from credsweeper.common.constants import ThresholdPreset
                from credsweeper.file_handler.byte_content_provider import ByteContentProvider
                from credsweeper.ml_model.ml_validator import MlValidator
            except ImportError as error:
                raise UsageError(
                    f"{self.name} needs a package: pip install 'bbox-toolkit[credsweeper]' ({error})"
                ) from error
            self.threshold = float(MlValidator(ThresholdPreset(preset)).threshold)
            # Below every threshold, so that candidates come back with their probability instead of being dropped.
            self.scanner = CredSweeper(ml_threshold=1e-12, ml_threads_limit=torch.get_num_threads())
        self._file = ByteContentProvider
        self._home = Path(credsweeper.__file__).parent

    def __call__(self, rows: Programs) -> Tensor:
        """See ``CodeTarget``."""
        self.sources(rows)  # refuses pairs
        with _calm():
            found = torch.tensor([self._probability(program) for program in rows], dtype=torch.float64)
        limit = torch.tensor(self.threshold, dtype=torch.float64)
        score = torch.sigmoid(found.logit() - limit.logit())
        return torch.stack([1 - score, score], 1).float()

    def fingerprint(self) -> str:
        """SHA-256 over the scanner's network, its rules and settings, and the threshold."""
        total = hashlib.sha256(repr(self.threshold).encode())
        for name in ("ml_model/ml_model.onnx", "ml_model/ml_config.json", "rules/config.yaml", "secret/config.json"):
            total.update((self._home / name).read_bytes())
        return total.hexdigest()

    def _probability(self, program: Program) -> float:
        file = self._file(program.code.encode(), file_path=f"program{named(program.language).suffixes[0]}")
        manager = self.scanner.credential_manager
        manager.set_credentials(self.scanner.file_scan(file))
        self.scanner.post_processing(None)
        return max((_certainty(candidate) for candidate in manager.get_credentials()), default=0.0)


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> CredentialScanner:
    """Load the scanner at one of its presets, ``credsweeper:medium`` for its default; no options.

    Raises:
        UsageError: no such preset, an option was given, or the package is not installed.
    """
    del trust, device
    Options(f"credsweeper:{reference}", options, ())
    return CredentialScanner(reference)


def _certainty(candidate: Any) -> float:
    return float(candidate.ml_probability or 0.0) if candidate.use_ml else 1.0


def _calm() -> warnings.catch_warnings[None]:
    """The package deprecates its own classes without offering others (1.19.5)."""
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)
