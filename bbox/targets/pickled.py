"""``pickle:PATH``: a .pt or .pth file. Loading a pickle runs code from it, so only ``--trust`` does it."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bbox.errors import InputError
from bbox.targets.options import PREPROCESSING, Options
from bbox.targets.references import one_line
from bbox.targets.torch_module import TorchTarget

__all__ = ["load"]


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> TorchTarget:
    """Load a pickled torch module, with ``trust`` only.

    Raises:
        InputError: the file is missing, is no module, or ``trust`` is not set.
    """
    path = Path(reference)
    read = Options(reference, options, PREPROCESSING)
    if not path.is_file():
        raise InputError(f"{reference}: no such file")
    if _is_torchscript(path):
        raise InputError(
            f"{reference} is a TorchScript archive; export the model with torch.export.save to a .pt2 file"
        )
    loaded: object
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if not trust:
            raise InputError(
                f"{reference} holds more than tensors; a pickled module runs any code that was put in it: "
                "export it with torch.export.save to a .pt2 file, or pass --trust if you trust its origin"
            ) from error
        warnings.warn(f"--trust: {reference} is unpickled, which runs any code that was put in it", stacklevel=3)
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as failure:
            raise InputError(f"{reference} does not load: {one_line(failure)}") from failure
    if not isinstance(loaded, nn.Module):
        what = "weights without a model" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise InputError(
            f"{reference} holds {what}; use torchvision:NAME with weights={reference}, "
            "or torch:package.module:factory that loads them"
        )
    preprocessing: dict[str, Any] = read.preprocessing()
    return TorchTarget(loaded, name=reference, device=device, **preprocessing)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
