"""``motion:PATH``: which format a path has, and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from bbox.code.languages import language_of
from bbox.data.base import MotionSet
from bbox.data.code.files import visible_files
from bbox.data.motion.arrays import load_motion_arrays
from bbox.data.motion.bvh import load_bvh
from bbox.data.motion.kinetics import load_kinetics
from bbox.data.motion.ntu import load_ntu
from bbox.data.options import read_options
from bbox.errors import InputError, UsageError
from bbox.options import read_option

__all__ = ["load_motion", "looks_like_motion"]

FormatName = Literal["auto", "bvh", "ntu", "kinetics", "arrays"]

_LOADERS: Mapping[str, Callable[..., MotionSet]] = {
    "bvh": load_bvh,
    "ntu": load_ntu,
    "kinetics": load_kinetics,
    "arrays": load_motion_arrays,
}
_SUFFIXES = {".bvh": "bvh", ".skeleton": "ntu", ".json": "kinetics", ".npz": "arrays", ".npy": "arrays"}
_EXPECTED = (
    "a .bvh, a .skeleton of NTU RGB+D, a .json of Kinetics-skeleton, a folder of one kind of these, or an .npz or .npy"
)


def load_motion(path: Path, *, format: FormatName = "auto", **options: str) -> MotionSet:
    """Load skeleton motions from a file or a folder.

    Args:
        format: ``bvh``, ``ntu`` (.skeleton), ``kinetics`` (.json), ``arrays`` (.npz, .npy); ``auto`` goes by the name
            of the file, or of those in the folder.
        options: those of the format: ``limit``; ``frames``, ``stride``, ``rate``, ``label``, ``unit``, ``center``,
            ``ends`` of BVH; ``frames``, ``bodies``, ``subset``, ``center`` of NTU; ``frames``, ``bodies`` of Kinetics;
            ``split``, ``labels``, ``skeleton``, ``rate``, ``unit`` of arrays.

    Raises:
        UsageError: an option is wrong.
        InputError: the path is missing or refused.
    """
    read_option(f"motion:{path}: format", FormatName, format)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected {_EXPECTED}")
    name = _format_of(path) if format == "auto" else format
    if path.is_dir() and name == "arrays":
        raise UsageError(f"{path} is a folder, and arrays are read from one file; name it")
    loader = _LOADERS[name]
    return loader(path, **read_options(f"motion:{path} ({name})", loader, options))


def looks_like_motion(path: Path) -> bool:
    """Whether data without a prefix is motion: a folder with .bvh or .skeleton files and no pictures or sources."""
    from bbox.data.images import IMAGE_EXTENSIONS

    if not path.is_dir():
        return path.suffix.lower() in (".bvh", ".skeleton") and path.is_file()
    found = False
    for file in visible_files(path):
        if file.suffix.lower() in IMAGE_EXTENSIONS or language_of(file) is not None:
            return False
        found = found or file.suffix.lower() in (".bvh", ".skeleton")
    return found


def _format_of(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise InputError(f"{path}: not a kind of motion that is told by its name; expected {_EXPECTED}")
        return _SUFFIXES[path.suffix.lower()]
    suffixes = {file.suffix.lower() for file in visible_files(path)}
    # Metadata in JSON lies beside the motions of other kinds.
    kinds = sorted({_SUFFIXES[s] for s in suffixes & {".bvh", ".skeleton"}}) or (["kinetics"] * (".json" in suffixes))
    if not kinds:
        hint = "; arrays are read from one file, name it" if suffixes & {".npz", ".npy"} else ""
        raise InputError(f"{path}: no motions in it{hint}; expected {_EXPECTED}")
    if len(kinds) > 1:
        raise UsageError(f"{path} holds motions of several kinds; give one, as in format={kinds[0]}")
    return kinds[0]
