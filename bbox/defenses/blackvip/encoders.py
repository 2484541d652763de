"""Frozen feature encoders of the coordinator (Oh et al. 2023, "BlackVIP"): once an image, no gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from bbox.defenses.blackvip.backbones import Backbone, load_backbone, wrap_backbone
from bbox.defenses.blackvip.pca import Pca
from bbox.errors import InputError, UsageError
from bbox.targets.frozen import pick_device

__all__ = ["Encoder", "make_encoder", "module_encoder", "restore"]

_FORMS = "pca, pca:32, hf:PATH_OR_ID, torchvision:NAME,weights=PATH or torch:PACKAGE.MODULE:FACTORY"
_COMPONENTS = 32


class Encoder(Protocol):
    """Images to features.

    Attributes:
        dim: number of features of an image.
    """

    dim: int

    def __call__(self, rows: Tensor) -> Tensor:
        """Features, the same whenever the same rows are asked; no gradient.

        Shapes:
            rows: (n, channels, height, width) in [0, 1].
            returns: (n, dim) float32, on the rows' device.
        """

    def state(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """A JSON-able structure and tensors, which ``restore`` takes."""


def make_encoder(
    spec: str | Callable[[Tensor], Tensor], images: Tensor, *, device: str | torch.device | None = None
) -> Encoder:
    """An encoder from text, or of a torch module or another callable.

    ``pca`` (32 components) and ``pca:N`` need no weights: whitened principal components of ``images``. The others are
    frozen networks: ``hf:PATH_OR_ID`` (transformers' ``AutoModel`` with the image processor it was saved with),
    ``torchvision:NAME,weights=PATH`` (its classifier left out; further options of the target kind after commas),
    ``torch:PACKAGE.MODULE:FACTORY`` (any module, its answer flattened).

    Shapes:
        images: (n, channels, height, width) in [0, 1], the training images.

    Raises:
        UsageError: the spec is wrong, a hub cannot be reached, or the images do not differ (``pca``).
        InputError: a file or the user's code was read and refused, or the network does not take these images.
    """
    chosen = pick_device(device)
    if not isinstance(spec, str):
        return module_encoder(spec, images, device=chosen)
    kind, colon, rest = spec.partition(":")
    if kind == "pca":
        wished = rest if colon else str(_COMPONENTS)
        if not wished.isdecimal() or int(wished) < 1:
            raise UsageError(f"encoder {spec}: {rest!r} is no number of components; write pca:{_COMPONENTS}")
        return Pca.of(images, int(wished), device=chosen)
    if kind in ("hf", "torchvision", "torch") and rest:
        return load_backbone(spec, images, device=chosen)
    raise UsageError(f"unknown encoder {spec!r}; expected {_FORMS}")


def module_encoder(
    module: nn.Module | Callable[[Tensor], Tensor], images: Tensor, *, device: str | torch.device | None = None
) -> Encoder:
    """A torch module (its answer is flattened), or a function that answers (n, dim) floats, as an encoder.

    A module is moved to the device in place, as ``module.to`` does, and called in eval mode.

    Args:
        images: (1 or more, channels, height, width); one of them is encoded, to learn ``dim``.

    Raises:
        UsageError: it is neither.
        InputError: it does not take these images.
    """
    return wrap_backbone(module, images, device=pick_device(device))


def restore(
    structure: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    *,
    device: str | torch.device | None = None,
    given: str | Callable[[Tensor], Tensor] | None = None,
) -> Encoder:
    """The encoder whose ``state`` was kept.

    Args:
        given: the network, or its spec, where the state does not say it (an object of a library call) or the place is
            another one now.

    Raises:
        UsageError: the network cannot be found by its spec, or must be given.
        InputError: it is another network than it was, or the state is not complete.
    """
    kind = structure.get("kind")
    try:
        if kind == "pca":
            return Pca.restore(structure, tensors, device=pick_device(device))
        if kind != "backbone":
            raise InputError(f"an encoder of kind {kind!r} cannot be restored, expected pca or backbone")
        spec, shape = given or structure["spec"], structure["shape"]
        kept = structure["fingerprint"]
    except KeyError as error:
        raise InputError(f"the state of the encoder is not complete: it lacks {error}") from error
    if spec is None:
        raise UsageError("the encoder was a module of a library call, which a bundle does not keep; give it again")
    if not isinstance(shape, list) or not (isinstance(spec, str) or callable(spec)):
        raise InputError(f"the state of the encoder has spec {spec!r} and shape {shape!r}, which cannot be read")
    found = make_encoder(spec, torch.zeros(1, *shape), device=device)
    if not isinstance(found, Backbone) or found.network.fingerprint() != kept:
        raise InputError(f"encoder {spec} has other weights than it was fitted with; give the same ones, or fit again")
    return found
