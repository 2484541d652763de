"""``zoo:NAME``: a model that comes with bbox."""

from __future__ import annotations

from collections.abc import Mapping

from bbox.registry import Registry
from bbox.targets.base import Target
from bbox.targets.options import Options
from bbox.targets.torch_module import TorchTarget

__all__ = ["load"]


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> Target:
    """Load a model of ``bbox.zoo.TARGETS``. It takes images in [0, 1] as they are, or programs, and no options.

    Raises:
        UsageError: no such model, an option was given, or an extra is not installed.
    """
    del trust
    from bbox.zoo import TARGETS

    registry = Registry("zoo target", None, TARGETS)
    entry = TARGETS[reference] if reference in TARGETS else registry.entry(reference)
    Options(f"zoo:{reference}", options, ())
    module = registry.get(reference)()
    if isinstance(module, Target):
        return module
    return TorchTarget(
        module,
        name=f"zoo:{reference}",
        num_classes=getattr(entry, "num_classes", None),
        input_shape=getattr(entry, "input_shape", None),
        device=device,
    )
