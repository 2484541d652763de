"""``clip:PATH_OR_ID``: a CLIP-style model as a zero-shot classifier of classes that the user names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.errors import InputError, UsageError
from bbox.targets.frozen import pick_device
from bbox.targets.options import Options, class_names
from bbox.targets.pixels import Pixels
from bbox.targets.pretrained import pretrained, pretrained_model
from bbox.targets.torch_module import TorchTarget

__all__ = ["ZeroShot", "load"]

_TEMPLATE = "a photo of a {}."
_CHUNK = 256  # texts in one forward


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> TorchTarget:
    """Load a model of an image and a text tower (CLIP, SigLIP) that transformers has saved, or from its hub.

    Options: ``classes`` (required: names with commas, or a text file with one name a line), ``template`` (``a photo
    of a {}.``; several separated by ``|`` are averaged). Rows are prepared as the saved image processor says. Scores
    are logits: the model's scale times the cosine, and its bias where it has one.

    Raises:
        UsageError: no such folder or hub id, no network, or an option is wrong.
        InputError: the folder holds no such model, or a file is not readable.
    """
    spec = f"clip:{reference}"
    read = Options(spec, options, ("classes", "template"))
    names = class_names(spec, options.get("classes"))
    templates = _templates(spec, read.text("template") or _TEMPLATE)
    chosen = pick_device(device)
    model = pretrained_model(reference, spec=spec, trust=trust)
    lacking = [name for name in ("get_text_features", "get_image_features", "logit_scale") if not hasattr(model, name)]
    if lacking:
        raise InputError(f"{spec} is a {type(model).__name__} without {lacking[0]}, expected a CLIP or SigLIP model")
    pixels = Pixels(pretrained("AutoImageProcessor", reference, spec=spec, trust=trust), where=spec)
    tokenizer = pretrained("AutoTokenizer", reference, spec=spec, trust=trust)
    texts = [template.replace("{}", name) for template in templates for name in names]
    tokens = {
        name: ids.reshape(len(templates), len(names), -1) for name, ids in _tokens(tokenizer, texts, model).items()
    }
    module = ZeroShot(model.to(chosen), pixels, tokens)
    return TorchTarget(module, name=spec, num_classes=len(names), device=chosen)


class ZeroShot(nn.Module):
    """Images to the similarity with each class's text (Radford et al. 2021; SigLIP: Zhai et al. 2023).

    A class's text is the normalised mean of its normalised features over the templates (the prompt
    ensembling of Radford et al. 2021). Texts are computed once, on the model's device.

    Args:
        model: of transformers, with ``get_image_features``, ``get_text_features`` and ``logit_scale``.
        pixels: prepares images.
        tokens: what the text tower takes by name, each (templates, classes, length).
    """

    model: Any

    def __init__(self, model: nn.Module, pixels: nn.Module, tokens: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        self.pixels = pixels
        for name, tensor in tokens.items():
            self.register_buffer(f"text_{name}", tensor, persistent=False)
        # No buffer: its last bits depend on the device, and a fingerprint over weights and tokens must not.
        self._texts = _texts(model, tokens)

    def forward(self, rows: Tensor) -> Tensor:
        """Shapes: rows (n, channels, height, width) in [0, 1]; returns (n, classes) logits."""
        images = functional.normalize(_pooled(self.model.get_image_features(pixel_values=self.pixels(rows))), dim=-1)
        scores: Tensor = self.model.logit_scale.exp() * (images @ self._texts.T)
        bias = getattr(self.model, "logit_bias", None)
        return scores if bias is None else scores + bias


def _texts(model: Any, tokens: Mapping[str, Tensor]) -> Tensor:
    device = next(model.parameters()).device
    templates, classes = next(iter(tokens.values())).shape[:2]
    flat = {name: ids.flatten(0, 1).to(device) for name, ids in tokens.items()}
    with torch.no_grad():
        chunks = [
            _pooled(model.get_text_features(**{name: ids[start : start + _CHUNK] for name, ids in flat.items()}))
            for start in range(0, templates * classes, _CHUNK)
        ]
    each = functional.normalize(torch.cat(chunks), dim=-1).reshape(templates, classes, -1)
    return functional.normalize(each.mean(0), dim=-1)


def _pooled(answer: Any) -> Tensor:
    # transformers answers a tensor in some versions and an output with the projected features in others.
    pooled: Tensor = answer if isinstance(answer, Tensor) else answer.pooler_output
    return pooled


def _tokens(tokenizer: Any, texts: list[str], model: Any) -> dict[str, Tensor]:
    config = model.config
    # SigLIP was trained on texts padded to the full length, and reads its last token, which padding moves.
    padding = "max_length" if "siglip" in str(config.model_type) else True
    longest = int(config.text_config.max_position_embeddings)
    read = tokenizer(texts, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
    return {name: read[name] for name in ("input_ids", "attention_mask") if name in read}


def _templates(spec: str, text: str) -> list[str]:
    templates = [template.strip() for template in text.split("|")]
    for template in templates:
        if "{}" not in template:
            raise UsageError(f"{spec}: template {template!r} has no {{}} for the class name")
    return templates
