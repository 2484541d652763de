"""What the two attacks of the Adversarial Robustness Toolbox share. ART is imported for them alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.meter import Meter

__all__ = ["art_classifier", "art_facts"]


def art_facts() -> dict[str, Any]:
    try:
        import art
    except ImportError as error:
        raise SystemExit(
            f"ART is not in this environment ({error}); benchmarks/README.md says how to make one that has it"
        ) from None
    return {"art": art.__version__, "numpy": np.__version__}


def art_classifier(meter: Meter) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        meter,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=tuple(meter.image.shape),
        nb_classes=meter.num_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if meter.image.device.type == "cpu" else "gpu",
    )
