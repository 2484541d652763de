"""Calling a torch module without leaving a trace in it: eval mode, buffers kept, training flags put back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bbox.errors import UsageError

__all__ = ["Frozen", "digest", "pick_device"]


class Frozen:
    """Guards a module's state around a forward.

    Every submodule is in eval mode inside, whatever its flag was, and has its flag back after. A buffer that
    the forward writes or replaces has its old bits back after. Unwritten buffers cost nothing: torch counts
    writes.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._buffers: list[tuple[nn.Module, str, Tensor, Tensor, int]] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        modules = list(self.module.modules())
        flags = [module.training for module in modules]
        self._remember(modules)
        # Flags are set one by one: module.eval() may be overridden, and exported modules refuse it.
        for module, flag in zip(modules, flags, strict=True):
            if flag:
                module.training = False
        try:
            yield
        finally:
            for module, flag in zip(modules, flags, strict=True):
                if module.training != flag:
                    module.training = flag
            self._restore()

    def _remember(self, modules: list[nn.Module]) -> None:
        now = [
            (owner, name, buffer) for owner in modules for name, buffer in owner._buffers.items() if buffer is not None
        ]
        same = len(now) == len(self._buffers) and all(
            buffer is kept[2] and _version(buffer) == kept[4]
            for (_, _, buffer), kept in zip(now, self._buffers, strict=True)
        )
        if not same:
            self._buffers = [
                (owner, name, buffer, buffer.detach().clone(), _version(buffer)) for owner, name, buffer in now
            ]

    def _restore(self) -> None:
        for place, (owner, name, buffer, copy, version) in enumerate(self._buffers):
            if owner._buffers.get(name) is not buffer:
                owner._buffers[name] = buffer
            if _version(buffer) != version:
                with torch.no_grad():
                    buffer.copy_(copy)
                self._buffers[place] = (owner, name, buffer, copy, _version(buffer))


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def digest(module: nn.Module, *more: object) -> str:
    """SHA-256 over a module's class names, graphs, parameters and buffers, and ``more``."""
    total = hashlib.sha256()
    for name, child in module.named_modules():
        total.update(f"{name}={type(child).__qualname__};".encode())
        if isinstance(child, torch.fx.GraphModule):
            total.update(child.code.encode())
    for source in (
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    ):
        for name, tensor in source:
            total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            total.update(plain.view(torch.uint8).numpy().data)
    total.update(repr(more).encode())
    return total.hexdigest()


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, else CUDA where there is one, else the CPU.

    Raises:
        UsageError: there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        have = f"cpu and {torch.cuda.device_count()} CUDA devices"
        raise UsageError(f"device {str(device)!r} is not available; this machine has {have}") from error
    if chosen.type == "meta":
        raise UsageError("device 'meta' computes nothing; use cpu or cuda")
    return chosen
