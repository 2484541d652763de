"""Any Python callable as a target."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from bbox.errors import TargetError, UsageError
from bbox.targets.base import Access, Target
from bbox.targets.frozen import pick_device
from bbox.targets.options import Options
from bbox.targets.references import find_reference

__all__ = ["CallableTarget", "load"]


class CallableTarget(Target):
    """A function of a batch that answers scores or labels.

    A 1-D answer of integers is labels, a 2-D answer is scores. ``access`` is told by the first answer where
    it is not given (the oracle probes before a run), and every later answer must be of the same kind. The
    function gets rows of its own, which it may write to.

    Args:
        function: takes a batch.
        name: what the user would type to load it again.
        array: ``"torch"`` gives it a tensor on ``device``, ``"numpy"`` a float32 array.
        access: ``"scores"`` or ``"labels"``, where known.
        num_classes, input_shape: where known.
        device: default the CPU, since a callable does not say where its weights are.
        version: text that enters the fingerprint; change it when the function answers differently.

    Raises:
        UsageError: an argument is wrong.

    Example:
        >>> target = CallableTarget(lambda rows: rows.flatten(1).argmax(1), name="brightest")
        >>> target(torch.eye(2).reshape(2, 1, 1, 2)), target.access
        (tensor([0, 1]), 'labels')
    """

    any_tensor: bool = True

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        name: str,
        array: Literal["torch", "numpy"] = "torch",
        access: Access | None = None,
        num_classes: int | None = None,
        input_shape: Sequence[int] | None = None,
        device: str | torch.device | None = None,
        version: str = "",
    ) -> None:
        if not callable(function):
            raise UsageError(f"{name} is a {type(function).__name__}, expected a callable")
        for option, value, choices in (
            ("array", array, ("torch", "numpy")),
            ("access", access or "scores", ("scores", "labels")),
        ):
            if value not in choices:
                raise UsageError(f"{name}: {option}={value}, expected {' or '.join(choices)}")
        self.name = name
        self.function = function
        self.array = array
        self.num_classes = num_classes
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.device = pick_device(device or "cpu")
        self.version = version
        self.known = access is not None
        self.access = access or "scores"

    def __call__(self, rows: Tensor) -> Tensor:
        """Scores or labels of rows.

        Shapes:
            rows: (n, channels, height, width) in [0, 1], or motions (n, axes, frames, joints, bodies) in metres.
            returns: (n, classes) float32 scores, or (n,) int64 labels, on the rows' device.

        Raises:
            TargetError: the answer is neither scores nor labels of these rows.
        """
        own = rows.detach().to(torch.float32)
        with torch.no_grad():
            if self.array == "numpy":
                given = self.function(own.cpu().numpy().copy())
            else:
                given = self.function(own.to(self.device, copy=True))
        answer = self._tensor(given)
        kind = self._kind(answer, len(rows))
        if not self.known:
            self.access, self.known = kind, True
        elif kind != self.access:
            raise TargetError(f"{self.name} answered {kind}, expected {self.access}; pass access={kind} if it is right")
        return answer.to(rows.device, torch.float32 if kind == "scores" else torch.int64, copy=True)

    def fingerprint(self) -> str:
        """SHA-256 over the source file, the name and ``version``; what the function reads is not seen."""
        named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        total = hashlib.sha256(repr((named.__module__, named.__qualname__, self.array, self.version)).encode())
        try:
            total.update(Path(inspect.getfile(named)).read_bytes())
        except (OSError, TypeError):
            code = getattr(named, "__code__", None)
            total.update(b"" if code is None else code.co_code + repr(code.co_names).encode())
        return total.hexdigest()

    def _tensor(self, given: object) -> Tensor:
        if isinstance(given, Tensor):
            return given.detach()
        try:
            return torch.as_tensor(np.asarray(given))
        except (TypeError, ValueError, RuntimeError) as error:
            raise TargetError(f"{self.name} answered {type(given).__name__}, expected scores or labels") from error

    def _kind(self, answer: Tensor, rows: int) -> Access:
        whole = not answer.is_floating_point() and not answer.is_complex() and answer.dtype != torch.bool
        if answer.ndim == 1 and whole and len(answer) == rows:
            return "labels"
        if answer.ndim == 2 and (whole or answer.is_floating_point()) and len(answer) == rows and answer.shape[1] > 1:
            return "scores"
        raise TargetError(
            f"{self.name} answered {tuple(answer.shape)} {answer.dtype} for {rows} rows; "
            "expected (rows, classes) scores with at least 2 classes, or (rows,) integer labels"
        )


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> CallableTarget:
    """Load ``package.module:function``; options are array, access, num_classes, input_shape and version.

    Raises:
        UsageError: no such module or name, no callable, or an option is wrong.
        InputError: the module fails while it is imported.
    """
    del trust
    spec = f"python:{reference}"
    read = Options(spec, options, ("array", "access", "num_classes", "input_shape", "version"))
    found = find_reference("python", reference)
    if isinstance(found, nn.Module):
        raise UsageError(f"{spec} is a torch module; use torch:{reference}")
    if isinstance(found, type):
        raise UsageError(f"{spec} is a class; give a function or an instance of it")
    array = cast(Literal["torch", "numpy"], read.choice("array", ("torch", "numpy")) or "torch")
    access = cast(Access | None, read.choice("access", ("scores", "labels")))
    shapes: dict[str, Any] = read.preprocessing()
    return CallableTarget(
        found,
        name=spec,
        array=array,
        access=access,
        device=device,
        version=read.text("version") or "",
        **shapes,
    )
