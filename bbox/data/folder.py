"""A folder of images, labelled by its subfolders, by a CSV file, or not at all."""

from __future__ import annotations

from pathlib import Path

import torch

from bbox.data.base import Dataset
from bbox.data.images import IMAGE_EXTENSIONS, open_image, to_tensor
from bbox.data.labels_csv import read_labels
from bbox.errors import InputError

__all__ = ["load_folder", "stack_images"]


def load_folder(path: Path, *, size: int | None = None, labels: Path | None = None) -> Dataset:
    """Load a folder of images, sorted by their path; ``indices`` counts along that order.

    Labels come from ``labels`` or the folder's own ``labels.csv``; else from class subfolders: the position
    of the folder's name in sorted order, or the name itself where every name is an integer. A flat folder
    without a CSV has no labels. Hidden files and files that are no images are passed over.

    Raises:
        InputError: no image, a broken one, two sizes without ``size``, or labels that do not fit.
    """
    files, others = _find(path)
    if not files:
        seen = f"; {others} other files are in it" if others else ""
        raise InputError(f"{path}: no images found (.png, .jpg, .webp and others){seen}")
    names = [file.relative_to(path).as_posix() for file in files]
    csv = labels if labels is not None else path / "labels.csv"
    if labels is not None or csv.is_file():
        numbers: list[int] | None
        numbers, classes = read_labels(csv, path, names)
    else:
        numbers, classes = _by_subfolder(path, names)
    return Dataset(
        name=str(path),
        inputs=stack_images(files, size),
        labels=None if numbers is None else torch.tensor(numbers, dtype=torch.int64),
        indices=torch.arange(len(files)),
        ids=tuple(names),
        class_names=classes,
    )


def stack_images(files: list[Path], size: int | None) -> torch.Tensor:
    """Read images into one tensor; grayscale stays one channel where every image is grayscale.

    Shapes:
        returns: (n, 1 or 3, height, width) in [0, 1].

    Raises:
        InputError: a broken image, or two sizes and no ``size``.
    """
    tensors, first = [], ""
    for file in files:
        image = open_image(file)
        if size is not None and image.size != (size, size):
            image = image.resize((size, size), resample=2)  # bilinear, antialiased when it shrinks
        tensor = to_tensor(image)
        here = f"{tensor.shape[2]}x{tensor.shape[1]}"
        if first and here != first:
            raise InputError(
                f"images have different sizes: {files[0]} is {first} and {file} is {here} (width x height); "
                "give one with --image-size"
            )
        first = here
        tensors.append(tensor)
    if any(len(tensor) == 3 for tensor in tensors):
        tensors = [tensor.expand(3, -1, -1) for tensor in tensors]
    return torch.stack(tensors)


def _find(path: Path) -> tuple[list[Path], int]:
    """Images below a folder in sorted order, and how many other files there are."""
    try:
        below = [file for file in path.rglob("*") if file.is_file()]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    seen = [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    files = [file for file in seen if file.suffix.lower() in IMAGE_EXTENSIONS]
    return sorted(files, key=lambda file: file.relative_to(path).parts), len(seen) - len(files)


def _by_subfolder(path: Path, names: list[str]) -> tuple[list[int] | None, tuple[str, ...] | None]:
    flat = [name for name in names if "/" not in name]
    if len(flat) == len(names):
        return None, None
    if flat:
        raise InputError(
            f"{path}: {len(flat)} images lie beside class folders, for example {flat[0]}; "
            "move them into one, or give labels in labels.csv"
        )
    folders = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    owners = [name.partition("/")[0] for name in names]
    if all(folder.isascii() and folder.isdigit() for folder in folders):
        return [int(owner) for owner in owners], None
    empty = sorted(set(folders) - set(owners))
    if empty:
        raise InputError(
            f"{path}: the class folder {empty[0]!r} holds no image, so class numbers are unclear; "
            "remove it, or give labels in labels.csv"
        )
    number = {folder: place for place, folder in enumerate(folders)}
    return [number[owner] for owner in owners], tuple(folders)
