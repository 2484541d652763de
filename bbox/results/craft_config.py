"""What a no-box run was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bbox.errors import UsageError
from bbox.results.records import JsonConfig

__all__ = ["CraftConfig"]


@dataclass(frozen=True)
class CraftConfig(JsonConfig):
    """All that a no-box run depends on, as it stands in ``run.json``.

    Attributes:
        norm: ``"linf"`` or ``"l2"`` (``bbox.motion.domain.Tube``).
        baselines: perturbations of the same size that are made beside the attack's.
        batch: motions that are attacked side by side; it changes speed and memory, not the result.

    Raises:
        UsageError: a number out of its range.
    """

    attack: str = "smi"
    attack_options: dict[str, Any] = field(default_factory=dict)
    data: str = "zoo:motion"
    limit: int | None = None
    indices: tuple[int, ...] | None = None
    seed: int = 0
    norm: str = "linf"
    baselines: tuple[str, ...] = ()
    batch: int = 64
    device: str | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if self.norm not in ("linf", "l2"):
            raise UsageError(f"norm is {self.norm!r}, expected linf or l2")
