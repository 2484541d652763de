"""``hf:PATH_OR_ID``: a classifier of transformers, of images or of source code, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bbox.errors import InputError
from bbox.targets.base import Target
from bbox.targets.code import hf as sequences
from bbox.targets.frozen import pick_device
from bbox.targets.options import Options
from bbox.targets.pixels import Pixels
from bbox.targets.pretrained import pretrained, pretrained_model
from bbox.targets.torch_module import TorchTarget

__all__ = ["ImageClassifier", "load"]

_IMAGES, _SEQUENCES = "ForImageClassification", "ForSequenceClassification"


class ImageClassifier(nn.Module):
    """Images to logits, prepared as the saved image processor says.

    Args:
        model: of transformers, takes ``pixel_values`` and answers something with ``logits``.
        pixels: prepares images.
    """

    def __init__(self, model: nn.Module, pixels: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.pixels = pixels

    def forward(self, rows: Tensor) -> Tensor:
        """Shapes: rows (n, channels, height, width) in [0, 1]; returns (n, classes) logits."""
        logits: Tensor = self.model(pixel_values=self.pixels(rows)).logits
        return logits


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> Target:
    """Load a folder of ``save_pretrained``, or a hub id.

    A model for image classification takes images of any size and no options; its scores are logits. One for sequence
    classification is a classifier of source code, with the options of ``hf-code:``, which loads it.

    Raises:
        UsageError: no such folder or hub id, no network, or an option is wrong.
        InputError: the folder holds no such model, or a file is not readable.
    """
    spec = f"hf:{reference}"
    config = pretrained("AutoConfig", reference, spec=spec, trust=trust)
    made_for = [str(name) for name in config.architectures or ()]
    if any(name.endswith(_SEQUENCES) for name in made_for) or "checkpoint" in options:
        return sequences.load(reference, options=options, trust=trust, device=device)
    if not any(name.endswith(_IMAGES) for name in made_for):
        what = made_for[0] if made_for else f"a {config.model_type} model of no stated use"
        raise InputError(f"{spec} is {what}, expected a model whose class ends in {_IMAGES} or {_SEQUENCES}")
    Options(spec, options, ())
    model: Any = pretrained_model(
        reference,
        spec=spec,
        trust=trust,
        auto="AutoModelForImageClassification",
        hint="it is a model that was not trained to classify",
    )
    pixels = Pixels(pretrained("AutoImageProcessor", reference, spec=spec, trust=trust), where=spec)
    classes = int(model.config.num_labels)
    target = TorchTarget(ImageClassifier(model, pixels), name=spec, num_classes=classes, device=pick_device(device))
    target.class_names = sequences.names_of_classes(model.config.id2label, classes)
    return target
