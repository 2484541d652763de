"""Denoisers by name: the user's own torch module, any callable, a diffusion model on disk."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from bbox.defenses.certification import Denoise
from bbox.errors import InputError, UsageError
from bbox.registry import did_you_mean
from bbox.targets.frozen import digest
from bbox.targets.references import call_factory, find_reference

__all__ = ["load_denoiser"]

_KINDS = ("torch", "python", "diffusers")


def load_denoiser(spec: str, *, device: torch.device, shape: tuple[int, ...] | None = None) -> tuple[Denoise, str]:
    """A denoiser, and a hex digest that changes with its weights.

    Args:
        spec: ``torch:package.module:factory`` (a module, or what makes one), ``python:package.module:function``
            (called with rows and sigma; its digest knows its name only), or ``diffusers:PATH``.
        device: where a module is put.
        shape: of one image; a diffusion model is checked against it.

    A module whose forward takes one argument is called with the rows alone.

    Raises:
        UsageError, InputError: no such thing, or it is none.
    """
    kind, _, reference = spec.partition(":")
    if kind not in _KINDS or not reference:
        near = did_you_mean(kind, _KINDS)
        raise UsageError(
            f"--denoiser {spec!r}: expected torch:MODULE:FACTORY, python:MODULE:FUNCTION or diffusers:PATH{near}"
        )
    if kind == "diffusers":
        from bbox.defenses.diffusion import DiffusionDenoiser

        model = DiffusionDenoiser.load(reference, device=device, shape=shape)
        return model, digest(model.unet, spec)
    found = find_reference(kind, reference)
    if kind == "python":
        if not callable(found):
            raise InputError(f"{spec} is a {type(found).__name__}, expected a function of rows and sigma")
        return found, digest(nn.Identity(), spec)
    made = found if isinstance(found, nn.Module) or not callable(found) else call_factory(spec, found, {})
    if not isinstance(made, nn.Module):
        raise InputError(f"{spec} gives a {type(made).__name__}, expected a torch module; for a function use python:")
    made = made.to(device).eval().requires_grad_(False)
    return (made if _takes_sigma(made) else _without_sigma(made)), digest(made, spec)


def _takes_sigma(module: nn.Module) -> bool:
    """Whether the forward takes a second positional argument."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(kind in plain for kind in kinds) > 1 or inspect.Parameter.VAR_POSITIONAL in kinds


def _without_sigma(module: nn.Module) -> Denoise:
    def denoise(rows: Tensor, sigma: float) -> Tensor:
        del sigma
        answer: Tensor = module(rows)
        return answer

    return denoise
