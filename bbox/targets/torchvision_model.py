"""``torchvision:NAME``: an architecture of torchvision with weights from a local file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbox.errors import InputError, UsageError
from bbox.registry import did_you_mean
from bbox.targets.options import PREPROCESSING, Options
from bbox.targets.references import one_line
from bbox.targets.torch_module import TorchTarget

__all__ = ["load", "read_weights"]


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> TorchTarget:
    """Load a classifier of torchvision.

    Options: ``weights`` (a local .safetensors or state-dict file, or ``random``), ``seed`` (of random
    weights, 0), ``num_classes`` (1000), ``mean``, ``std`` (numbers, or ``imagenet``), ``size``,
    ``input_shape``. Nothing is normalised unless mean and std are given.

    Raises:
        UsageError: no such architecture, no weights, or an option is wrong.
        InputError: the weights file is missing, unreadable or of another model.
    """
    del trust
    from torchvision import models

    spec = f"torchvision:{reference}"
    read = Options(spec, options, ("weights", "seed", *PREPROCESSING))
    known = models.list_models(module=models)
    if reference not in known:
        raise UsageError(
            f"torchvision has no classifier {reference!r}{did_you_mean(reference, known) or ';'} "
            f"it has {len(known)}, for example resnet18 and vit_b_16"
        )
    weights = read.text("weights")
    if weights is None:
        raise UsageError(f"{spec} needs weights=PATH, a local file (nothing is downloaded), or weights=random")
    preprocessing: dict[str, Any] = read.preprocessing()
    num_classes = preprocessing.setdefault("num_classes", 1000)
    state = None if weights == "random" else read_weights(Path(weights))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # googlenet and inception speak of their initialisation
        torch.manual_seed(read.integer("seed", 0) or 0)
        module: nn.Module = models.get_model(reference, weights=None, num_classes=num_classes)
    if state is not None:
        _fill(module, state, f"{weights} does not fit {spec}")
    return TorchTarget(module, name=spec, device=device, **preprocessing)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, or from a torch file read with ``weights_only=True``.

    Raises:
        InputError: the file is missing, unreadable, or holds no tensors by name.
    """
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            loaded: object = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"weights {path}: not a readable .safetensors or state-dict file ({one_line(error)[:120]})"
        ) from error
    if isinstance(loaded, Mapping):
        for key in ("state_dict", "model"):
            if isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
                break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(x, Tensor) for x in loaded.values()):
        raise InputError(f"weights {path}: holds no tensors by name; save model.state_dict()")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}


def _fill(module: nn.Module, state: dict[str, Tensor], where: str) -> None:
    own = module.state_dict()
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    # Old files lack the batch counter of batch norm, which eval mode never reads.
    missing = {name for name in missing if not name.endswith("num_batches_tracked")}
    if missing or extra:
        examples = "; ".join(
            f"{len(names)} {what}, for example {min(names)!r}"
            for names, what in ((missing, "missing"), (extra, "unknown"))
            if names
        )
        raise InputError(f"{where}: {examples}")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            head = tensor.ndim and own[name].ndim and tensor.shape[1:] == own[name].shape[1:]
            hint = f"; pass num_classes={tensor.shape[0]}" if head else ""
            raise InputError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, expected {tuple(own[name].shape)}{hint}"
            )
    module.load_state_dict(state, strict=False)
