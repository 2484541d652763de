"""A foolbox model as a target."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bbox.errors import InputError, UsageError
from bbox.targets.base import Target
from bbox.targets.frozen import Frozen, digest, pick_device
from bbox.targets.options import Options
from bbox.targets.references import call_factory, find_reference

__all__ = ["FoolboxTarget", "load"]


class FoolboxTarget(Target):
    """A foolbox model; rows in [0, 1] are mapped to its bounds, and its own preprocessing stays its own.

    A PyTorch model inside is called in eval mode and left as it was. Models of other frameworks get arrays of
    their own kind. A model with ``data_format`` ``channels_last`` gets its channels last.

    Args:
        model: a ``foolbox.Model``.
        name: what the user would type to load it again.
        num_classes, input_shape: where known.

    Raises:
        UsageError: the bounds are not an interval.
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        num_classes: int | None = None,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.num_classes = num_classes
        self.input_shape = input_shape
        self.low, self.high = (float(bound) for bound in model.bounds)
        if not self.low < self.high:
            raise UsageError(f"{name}: bounds are ({self.low:g}, {self.high:g}), expected low below high")
        self.inner = _inner(model)
        self.module = _module(self.inner)
        self._frozen = None if self.module is None else Frozen(self.module)
        self._dummy: Any = getattr(self.inner, "dummy", None)
        native = self._dummy is None or isinstance(self._dummy.raw, Tensor)
        self.device = pick_device(getattr(self.inner, "device", None) or "cpu") if native else torch.device("cpu")
        self._native = native
        self._last = getattr(self.inner, "data_format", None) == "channels_last"

    def __call__(self, rows: Tensor) -> Tensor:
        """Scores of rows.

        Shapes:
            rows: (n, channels, height, width) in [0, 1].
            returns: (n, classes) float32.

        Raises:
            InputError: the model answers no array.
        """
        own = rows.to(self.device, torch.float32, copy=True) * (self.high - self.low) + self.low
        if self._last:
            own = own.movedim(1, -1).contiguous()
        with nullcontext() if self._frozen is None else self._frozen(), torch.inference_mode():
            if self._native:
                given = self.model(own)
            else:
                import eagerpy

                given = self.model(eagerpy.from_numpy(self._dummy, own.numpy()).raw)
        if not isinstance(given, Tensor):
            given = getattr(given, "raw", given)
            if not isinstance(given, Tensor):
                try:
                    given = torch.as_tensor(np.asarray(given))
                except (TypeError, ValueError, RuntimeError) as error:
                    raise InputError(
                        f"{self.name}: the model answers {type(given).__name__}, expected scores"
                    ) from error
        return given.to(rows.device, torch.float32 if given.is_floating_point() else torch.int64, copy=True)

    def fingerprint(self) -> str:
        """SHA-256 over bounds and preprocessing, and over the weights where a PyTorch model is inside."""
        arguments = [
            None if part is None else np.asarray(getattr(part, "raw", part)).tolist()
            for part in _on_cpu(getattr(self.inner, "_preprocess_args", ()))
        ]
        module = self.module if self.module is not None else nn.Module()
        return digest(module, type(self.model).__qualname__, self.low, self.high, arguments)


def _on_cpu(parts: Any) -> list[Any]:
    raw = [getattr(part, "raw", part) for part in parts]
    return [part.detach().cpu() if isinstance(part, Tensor) else part for part in raw]


def _inner(model: Any) -> Any:
    """The model below foolbox's own wrappers."""
    seen = model
    while hasattr(seen, "bounds") and hasattr(getattr(seen, "_model", None), "bounds"):
        seen = seen._model
    return seen


def _module(inner: Any) -> nn.Module | None:
    """The torch module in a ``PyTorchModel``, which keeps it in the closure of the function that it calls."""
    function = getattr(inner, "_model", None)
    if isinstance(function, nn.Module):
        return function
    if inspect.isfunction(function):
        kept = inspect.getclosurevars(function).nonlocals.get("model")
        if isinstance(kept, nn.Module):
            return kept
    return None


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> FoolboxTarget:
    """Load ``package.module:factory``: a function that returns a foolbox model, or a model. Options go to it.

    The factory chooses the device itself; ``device`` is passed on only where the factory has such a
    parameter.

    Raises:
        UsageError: no such module or name, an option that does not fit, or a device that the factory does not
            take.
        InputError: the user's code failed, or returned no foolbox model.
    """
    del trust
    from foolbox.models.base import Model

    spec = f"foolbox:{reference}"
    found = find_reference("foolbox", reference)
    if isinstance(found, Model):
        Options(spec, options, ())
        model, takes_device = found, False
    elif callable(found):
        takes_device = "device" in inspect.signature(found).parameters
        passed = {**options, "device": device} if device is not None and takes_device else options
        model = call_factory(spec, found, passed)
    else:
        raise InputError(f"{spec} is a {type(found).__name__}, expected a foolbox model or a function that makes one")
    if not isinstance(model, Model):
        raise InputError(f"{spec} returned {type(model).__name__}, expected a foolbox model")
    target = FoolboxTarget(model, name=spec)
    if device is not None and not takes_device and target.device != pick_device(device):
        raise UsageError(f"{spec} lies on {target.device}; let the factory take a device parameter to use {device}")
    return target
