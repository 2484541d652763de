"""Defenses: one file (or folder) each, found by name in a lazy registry. Importing this package imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bbox.registry import Entry, Registry

if TYPE_CHECKING:
    from bbox.defenses.base import Defense, Wrapped
    from bbox.defenses.certification import Certificate, certify, noise_accuracy

__all__ = ["DEFENSES", "Certificate", "Defense", "Wrapped", "certify", "make_defense", "noise_accuracy"]

DEFENSES = Registry(
    "defense",
    "bbox.defenses",
    {
        "zo-ae-ds": Entry("bbox.defenses.zo_ae_ds:ZOAEDS", "denoised smoothing trained by queries alone (ICLR 2022)"),
        "blackvip": Entry(
            "bbox.defenses.blackvip:BlackVIP", "input-dependent visual prompt trained by queries (CVPR 2023)"
        ),
        "noise": Entry("bbox.defenses.noise:RandomNoise", "fresh noise on the input of each query"),
        "boundary-noise": Entry("bbox.defenses.boundary_noise:BoundaryNoise", "noise on scores near the boundary"),
        "aaa": Entry("bbox.defenses.aaa:AAA", "scores that mislead score-based attacks and keep every label"),
        "coarsen": Entry("bbox.defenses.coarsen:Coarsen", "rounded, top-k or top-1 scores"),
        "jpeg": Entry("bbox.defenses.jpeg:JPEG", "JPEG compression of each query"),
        "bit-depth": Entry("bbox.defenses.bit_depth:BitDepth", "fewer grey levels"),
        "random-resize": Entry("bbox.defenses.random_resize:RandomResize", "random resizing and padding"),
        "vote": Entry("bbox.defenses.vote:SmoothingVote", "majority vote over noisy copies"),
        "blacklight": Entry("bbox.defenses.blacklight:Blacklight", "refuses queries that look like earlier ones"),
        "rename-smoothing": Entry(
            "bbox.defenses.rename_smoothing:RenameSmoothing",
            "code: vote over random safe renames, certified",
            needs="bbox-toolkit[code]",
        ),
        "delta-similarity": Entry("bbox.defenses.delta_similarity:DeltaSimilarity", "refuses streams of similar steps"),
    },
)

_HOME = {
    **dict.fromkeys(("Defense", "Wrapped"), "base"),
    **dict.fromkeys(("Certificate", "certify", "noise_accuracy"), "certification"),
}


def make_defense(name: str, options: Mapping[str, object] | None = None) -> Defense:
    """A defense by name, with its options: fields of its class, values as text or as Python objects.

    Raises:
        UsageError: an unknown name, option, preset or value.
    """
    from bbox.options import build

    cls: type[Defense] = DEFENSES.get(name)
    return build(name, cls, dict(options or {}))


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"bbox.defenses.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bbox.defenses' has no attribute {name!r}")
