"""Frozen networks as encoders: of transformers, of torchvision, of the user's own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bbox.errors import BboxError, InputError, UsageError
from bbox.options import split_spec_options
from bbox.targets import torch_factory, torchvision_model
from bbox.targets.base import Target
from bbox.targets.pixels import Pixels
from bbox.targets.pretrained import pretrained, pretrained_model
from bbox.targets.references import one_line
from bbox.targets.torch_module import TorchTarget
from bbox.targets.wrapping import wrap_object

__all__ = ["Backbone", "TransformerFeatures", "load_backbone", "wrap_backbone"]

_CHUNK = 64  # images in one forward


class Backbone:
    """A network's answer as features, flattened; never trained, never stored.

    Attributes:
        dim: number of features of an image.
        spec: what loads the network again, ``None`` for an object of a library call.
    """

    def __init__(self, network: Target, images: Tensor, *, spec: str | None) -> None:
        self.network = network
        self.spec = spec
        self.shape = tuple(images.shape[1:])
        try:
            probe = self(images[:1])
        except BboxError:
            raise
        except Exception as error:
            raise InputError(
                f"encoder {network.name} does not take images of shape {self.shape} ({one_line(error)[:200]})"
            ) from error
        self.dim = probe.shape[1]
        if not torch.isfinite(probe).all():
            raise InputError(f"encoder {network.name} answers features that are not finite")

    def __call__(self, rows: Tensor) -> Tensor:
        """Features of rows, chunk by chunk.

        Shapes:
            rows: (n, channels, height, width) in [0, 1].
            returns: (n, dim) float32, on the rows' device.
        """
        parts = [self.network(chunk.to(self.network.device)).flatten(1).float() for chunk in torch.split(rows, _CHUNK)]
        return torch.cat(parts).to(rows.device)

    def state(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """The spec and a fingerprint of the weights; never the weights."""
        structure: dict[str, object] = {
            "kind": "backbone",
            "spec": self.spec,
            "shape": list(self.shape),
            "fingerprint": self.network.fingerprint(),
        }
        return structure, {}


class TransformerFeatures(nn.Module):
    """A vision model of transformers as (n, dim) features.

    The class token of the last hidden state (after the last layer norm) where the model has one, else its pooled
    output, else the mean over places. Of a model with an image and a text tower: its image features. A ViT-MAE (He et
    al. 2022) sees the whole image: nothing is masked, and patches keep their order.
    """

    model: Any

    def __init__(self, model: Any, pixels: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.pixels = pixels
        self.has_class_token = any(
            name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters()
        )
        self.masks = model.config.model_type == "vit_mae"
        if self.masks:
            model.config.mask_ratio = 0.0

    def forward(self, rows: Tensor) -> Tensor:
        """Shapes: rows (n, channels, height, width) in [0, 1]; returns (n, dim)."""
        pixels = self.pixels(rows)
        if hasattr(self.model, "get_image_features"):
            answer = self.model.get_image_features(pixel_values=pixels)
            return answer if isinstance(answer, Tensor) else answer.pooler_output
        answer = self.model(pixel_values=pixels, **self._order(pixels))
        hidden: Tensor = answer.last_hidden_state
        if hidden.ndim == 3 and self.has_class_token:
            return hidden[:, 0]
        if getattr(answer, "pooler_output", None) is not None:
            return torch.flatten(answer.pooler_output, 1)
        return hidden.mean(1) if hidden.ndim == 3 else hidden.flatten(2).mean(2)

    def _order(self, pixels: Tensor) -> dict[str, Tensor]:
        """The random numbers that a ViT-MAE would sort its patches by, sorted already."""
        if not self.masks:
            return {}
        patches = self.model.embeddings.patch_embeddings.num_patches
        return {"noise": torch.arange(patches, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)}


def load_backbone(spec: str, images: Tensor, *, device: torch.device) -> Backbone:
    """``hf:PATH_OR_ID``, ``torchvision:NAME,weights=PATH`` or ``torch:PACKAGE.MODULE:FACTORY``; options after commas.

    Raises:
        UsageError: the spec, an option or a name in it is wrong.
        InputError: a file or the user's code was read and refused, or the network does not take these images.
    """
    kind, _, rest = spec.partition(":")
    reference, given = split_spec_options(rest)
    options: dict[str, object] = {**given}
    if kind != "hf" and "," in reference:
        raise UsageError(f"encoder {spec}: {reference.partition(',')[2]!r} is no option; write KEY=VALUE")
    network: TorchTarget
    if kind == "hf":
        if options:
            raise UsageError(f"encoder {spec} has no option {min(options)!r}; it takes a folder or a hub id alone")
        model = pretrained_model(reference, spec=f"encoder {spec}", optional="pooler")
        pixels = Pixels(pretrained("AutoImageProcessor", reference, spec=f"encoder {spec}"), where=f"encoder {spec}")
        network = TorchTarget(TransformerFeatures(model, pixels), name=spec, device=device)
    elif kind == "torchvision":
        network = torchvision_model.load(reference, options=options, trust=False, device=str(device))
        _drop_classifier(network.module, network.num_classes)
    else:
        network = torch_factory.load(reference, options=options, trust=False, device=str(device))
    return Backbone(network, images, spec=spec)


def wrap_backbone(module: Callable[[Tensor], Tensor], images: Tensor, *, device: torch.device) -> Backbone:
    """A torch module, or a function that answers (n, dim) floats, as an encoder."""
    return Backbone(wrap_object(module, device=device), images, spec=None)


def _drop_classifier(module: nn.Module, classes: int | None) -> None:
    """Put an identity in the place of the last layer that answers ``classes`` numbers."""
    widths = {
        name: getattr(layer, "out_features", None) or getattr(layer, "out_channels", None)
        for name, layer in module.named_modules()
    }
    last = [name for name, width in widths.items() if width == classes][-1]
    module.set_submodule(last, nn.Identity())
