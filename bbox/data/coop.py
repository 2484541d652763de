"""``coop:PATH.json``: the split files of CoOp and Dassl, which BlackVIP and others take their few shots from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from bbox.data.base import Dataset
from bbox.data.folder import stack_images
from bbox.errors import InputError

__all__ = ["load_coop"]


def load_coop(
    path: Path,
    *,
    size: int | None = None,
    split: Literal["train", "val", "test"] = "train",
    root: Path | None = None,
) -> Dataset:
    """Load one split of ``{"train": [[image path, label, class name], ...], "val": ..., "test": ...}``.

    The layout is that of Zhou et al., "Learning to Prompt for Vision-Language Models" (IJCV 2022), as their code
    writes it (``split_zhou_NAME.json``). Class names come from all splits of the file, so that every split has the
    same; ``indices`` counts along the split, and ``ids`` are the image paths.

    Args:
        path: the JSON file.
        size: resize every image to this side in pixels (bilinear, antialiased).
        split: which part to load.
        root: the folder that the image paths start from; default that of the JSON file.

    Raises:
        InputError: not such a file, no such split in it, labels or names that contradict each other, an image that
            is missing or broken, or two sizes without ``size``.
    """
    splits = _read(path)
    if split not in splits:
        raise InputError(f"{path} has no split {split!r}; it has {', '.join(splits) or 'none'}")
    if not splits[split]:
        raise InputError(f"{path}: the split {split!r} is empty")
    names = [name for name, _, _ in splits[split]]
    folder = path.parent if root is None else root
    missing = next((name for name in names if not (folder / name).is_file()), None)
    if missing is not None:
        raise InputError(f"{path} names {missing}, which is not in {folder}; give its folder with root=DIR")
    return Dataset(
        name=f"coop:{path}",
        inputs=stack_images([folder / name for name in names], size),
        labels=torch.tensor([label for _, label, _ in splits[split]]),
        indices=torch.arange(len(names)),
        ids=tuple(names),
        class_names=_class_names(path, splits),
    )


def _read(path: Path) -> dict[str, list[tuple[str, int, str]]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file ({' '.join(str(error).split())[:160]})") from error
    if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
        raise InputError(f'{path}: expected {{"train": [[image path, label, class name], ...], ...}}')
    return {
        split: [_entry(f"{path}: {split}[{place}]", entry) for place, entry in enumerate(entries)]
        for split, entries in content.items()
    }


def _entry(where: str, entry: Any) -> tuple[str, int, str]:
    if not isinstance(entry, list) or len(entry) != 3:
        raise InputError(f"{where} is {json.dumps(entry)[:80]}, expected [image path, label, class name]")
    name, label, class_name = entry
    if not isinstance(label, int) or isinstance(label, bool) or label < 0:
        raise InputError(f"{where} has the label {json.dumps(label)[:80]}, expected an integer from 0")
    if not isinstance(name, str) or not isinstance(class_name, str):
        raise InputError(f"{where} is {json.dumps(entry)[:80]}, expected [image path, label, class name]")
    return name, label, class_name


def _class_names(path: Path, splits: dict[str, list[tuple[str, int, str]]]) -> tuple[str, ...]:
    named: dict[int, str] = {}
    for entries in splits.values():
        for _, label, name in entries:
            if named.setdefault(label, name) != name:
                raise InputError(f"{path}: label {label} is called {named[label]!r} and {name!r}")
    gap = next(label for label in range(len(named) + 1) if label not in named)
    if gap < len(named):
        raise InputError(f"{path}: labels reach {max(named)}, but no entry has {gap}, so its class has no name")
    return tuple(named[label] for label in range(len(named)))
