"""The saved files of a run of either kind, ready to be shown to any target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbox.data.base import CodeSet, Dataset, Examples, MotionSet
from bbox.errors import InputError
from bbox.motion.skeleton import Skeleton
from bbox.results.craft_folder import ADVERSARIAL, CraftFolder
from bbox.results.plain_folder import kind_of
from bbox.results.saved import SavedImages, SavedPrograms
from bbox.results.store import RunFolder

__all__ = ["Files", "files_of", "motion_set"]


@dataclass(frozen=True)
class Files:
    """Saved files to be judged.

    Attributes:
        data: the originals with their labels; methods: name and a reader of files by places in ``data``.
    """

    data: Examples
    methods: dict[str, Callable[[list[int]], Tensor]]


def files_of(path: Path) -> Files:
    """Originals and adversarial examples of a no-box run, or of an attack that has found some.

    Raises:
        InputError: no run folder, another kind of run, or nothing in it to be judged.
    """
    kind = kind_of(path)
    if kind == CraftFolder.kind:
        return _crafted(CraftFolder.open(path))
    if kind is not None:
        raise InputError(f"{path} is the folder of a {kind} run; expected one of bbox attack")
    with RunFolder.open(path) as folder:
        return _attacked(folder)


def _crafted(folder: CraftFolder) -> Files:
    listed = folder.examples()
    indices = [int(e["index"]) for e in listed]
    missing = [i for i in indices if not folder.has(ADVERSARIAL, i)]
    if missing:
        raise InputError(f"{folder.path} is unfinished: motion {missing[0]} is missing; bbox attack smi --resume it")
    methods = [m for m in folder.methods() if all(folder.has(m, i) for i in indices)]

    def reader(method: str) -> Any:
        return lambda places: folder.motions(method, [indices[place] for place in places])

    return Files(motion_set(folder), {method: reader(method) for method in methods})


def motion_set(folder: CraftFolder) -> MotionSet:
    """The originals of a no-box run, as they were saved."""
    run, listed = folder.run(), folder.examples()
    indices = [int(e["index"]) for e in listed]
    labels = [e["label"] for e in listed]
    names = run["data"]["class_names"]
    return MotionSet(
        name=str(run["data"]["name"]),
        inputs=folder.motions("originals", indices),
        labels=None if None in labels else torch.tensor(labels, dtype=torch.int64),
        indices=torch.tensor(indices, dtype=torch.int64),
        ids=tuple(str(e["id"]) for e in listed),
        class_names=None if names is None else tuple(names),
        skeleton=Skeleton.from_json(run["data"]["skeleton"]),
        frame_rate=float(run["data"]["frame_rate"]),
    )


def _attacked(folder: RunFolder) -> Files:
    run = folder.run()
    found = [e for e in folder.examples().values() if e.distance is not None]
    if not found:
        raise InputError(f"{folder.path} has no adversarial example to be judged")
    indices = [e.index for e in found]
    described = run["data"]
    names = described.get("class_names")
    common: dict[str, Any] = {
        "name": str(described["name"]),
        "labels": torch.tensor([e.label for e in found], dtype=torch.int64),
        "indices": torch.tensor(indices, dtype=torch.int64),
        "ids": tuple(e.id for e in found),
        "class_names": None if names is None else tuple(names),
    }
    saved: Any = SavedImages(folder, described["shape"])
    data: Examples
    if described.get("kind") == "programs":
        saved = SavedPrograms(folder)
        data = CodeSet(inputs=saved.read("originals", indices), **common)
    elif described.get("kind") == "motions":
        skeleton = Skeleton.from_json(described["skeleton"])
        rows = saved.read("originals", indices)
        data = MotionSet(inputs=rows, skeleton=skeleton, frame_rate=float(described["frame_rate"]), **common)
    else:
        data = Dataset(inputs=saved.read("originals", indices), **common)
    everything: Any = saved.read(ADVERSARIAL, indices)

    def read(places: Sequence[int]) -> Tensor:
        chosen: Tensor = everything[torch.as_tensor(places)]
        return chosen

    return Files(data, {ADVERSARIAL: read})
