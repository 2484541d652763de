"""The embedded motion data: DeepMimic's motion capture clips, cut into windows; and classifiers trained on them.

How they were made, and what was measured, is in ``assets/motion.json`` and ``assets/motion-models.json``;
``python -m bbox.zoo.make_motion`` and ``python -m bbox.zoo.make_motion_models`` make them again.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bbox.data.base import MotionSet
from bbox.errors import UsageError
from bbox.motion.networks import MotionNetwork, load_network
from bbox.motion.skeletons import SKELETONS

__all__ = ["load_motion_card", "load_motion_data", "load_motion_model", "load_motion_parts"]

ASSETS = Path(__file__).with_name("assets")
FRAME_RATE = 120.0
UNIT = 1e-4  # metres of one unit of the stored numbers
_PART = 26  # frames; the parts of a clip are a little longer
_PER_CLASS = 16
_STRIDES = {"train": 2, "test": 1}


def load_motion_card() -> dict[str, Any]:
    """What the embedded motion is: clips, frames, recipe, origin, licences."""
    card: dict[str, Any] = json.loads((ASSETS / "motion.json").read_text(encoding="utf-8"))
    return card


def load_motion_parts(split: Literal["train", "test"]) -> dict[str, list[tuple[int, NDArray[np.float32]]]]:
    """The parts of each clip that belong to a split: where each begins, and its frames (frames, joints, 3) in metres.

    A clip is cut into an odd number of parts of 26 frames or a little more; they go train, test, train ... train. So
    no frame is in both splits, and what a test part shows happened between two training parts.
    """
    _check(split)
    with np.load(ASSETS / "motion.npz", allow_pickle=False) as stored:
        clips = {name: stored[name].cumsum(0) for name in sorted(stored.files)}
    parts = {}
    for name, clip in clips.items():
        count = max(3, len(clip) // _PART)
        edges = np.linspace(0, len(clip), count - (count + 1) % 2 + 1).round().astype(int).tolist()
        spans = list(pairwise(edges))[split == "test" :: 2]
        parts[name] = [(start, (clip[start:end] * UNIT).astype(np.float32)) for start, end in spans]
    return parts


def load_motion_data(
    *, split: Literal["train", "test"] = "test", frames: int = 24, stride: int | None = None
) -> MotionSet:
    """Windows of motion capture, each labelled with the clip that it comes from: 15 classes, 15 joints, one body.

    Both splits are of the same takes of the same few people, in alternating parts (``load_motion_parts``): accuracy
    tells whether a moment between known moments is recognised, nothing of new people. Windows overlap, and lie within
    one part; a part shorter than ``frames`` gives one window that ends in padding. The root of a window's first
    frame is the origin of x and z, heights stay, as in ``bbox.data``'s reader of BVH.

    Args:
        split: ``train``, or ``test``, with at most 16 windows of a class, over all its parts; the classes take turns.
        frames: length of a window, at 120 frames a second.
        stride: frames from one window to the next; ``None`` for 2 in training and 1 in the test.

    Raises:
        UsageError: no such split, or frames or stride is too small.
    """
    stride = _STRIDES[_check(split)] if stride is None else stride
    for option, value, least in (("frames", frames, 2), ("stride", stride, 1)):
        if value < least:
            raise UsageError(f"zoo:motion: {option} is {value}, expected at least {least}")
    windows, labels, ids, turns = [], [], [], []
    clips = load_motion_parts(split)
    for label, (name, parts) in enumerate(clips.items()):
        places = [(p, s) for p, (_, part) in enumerate(parts) for s in range(0, max(len(part) - frames, 0) + 1, stride)]
        if split == "test" and len(places) > _PER_CLASS:
            places = [places[i] for i in np.linspace(0, len(places) - 1, _PER_CLASS).round().astype(int)]
        # The golden ratio spreads the first few windows of a class over all its parts.
        turns += np.argsort([i * 0.618034 % 1 for i in range(len(places))]).argsort().tolist()
        for part, first in places:
            start, positions = parts[part]
            window = np.zeros((frames, *positions.shape[1:]), np.float32)
            shown = positions[first : first + frames]
            window[: len(shown)] = shown - shown[0, 0] * np.array([1, 0, 1], np.float32)
            windows.append(window)
            labels.append(label)
            ids.append(f"{name}-{start + first:03d}")
    order = np.lexsort((labels, turns))
    return MotionSet(
        name="zoo:motion" if split == "test" else "zoo:motion-train",
        inputs=torch.from_numpy(np.stack(windows)[order]).permute(0, 3, 1, 2).unsqueeze(4).contiguous(),
        labels=torch.tensor(labels)[torch.from_numpy(order)],
        indices=torch.arange(len(order)),
        ids=tuple(ids[row] for row in order),
        class_names=tuple(clips),
        skeleton=SKELETONS["humanoid15"],
        frame_rate=FRAME_RATE,
    )


def load_motion_model(name: str) -> MotionNetwork:
    """A network trained on the train split, in evaluation mode, without gradients on its weights."""
    return load_network(ASSETS / f"motion-{name}.safetensors").requires_grad_(False)


def load_stgcn() -> MotionNetwork:
    """ST-GCN on ``zoo:motion``."""
    return load_motion_model("st-gcn")


def load_two_stream_agcn() -> MotionNetwork:
    """2s-AGCN on ``zoo:motion``."""
    return load_motion_model("2s-agcn")


def load_ctrgcn() -> MotionNetwork:
    """CTR-GCN on ``zoo:motion``."""
    return load_motion_model("ctr-gcn")


def load_gru() -> MotionNetwork:
    """A bidirectional GRU on ``zoo:motion``."""
    return load_motion_model("gru")


def load_hcn() -> MotionNetwork:
    """HCN on ``zoo:motion``."""
    return load_motion_model("hcn")


def load_transformer() -> MotionNetwork:
    """A transformer over frames on ``zoo:motion``."""
    return load_motion_model("transformer")


def _check(split: str) -> str:
    if split not in _STRIDES:
        raise UsageError(f"zoo:motion: split is {split!r}, expected train or test")
    return split
