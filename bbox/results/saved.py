"""How originals and adversarial examples lie in a run folder: images as arrays and pictures, programs as sources.

originals/, adversarial/    000003.npy (and .png), or 000003.py; the second of a pair beside it, 000003.partner.py
renames/                    of a program: 000003.json, what has which new name and what was checked; 000003.diff
names.json                  in how many of the data's programs each new name stands (``bbox.results.code_names``)
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bbox.batch import Batch
from bbox.code.bindings import decoded, encoded
from bbox.code.equivalence import Verdict, compare
from bbox.code.languages import language_of, named
from bbox.code.program import Program, Programs
from bbox.code.site import site_of
from bbox.data.base import CodeSet, Examples
from bbox.errors import InputError
from bbox.results.store import RunFolder

__all__ = ["Saved", "SavedImages", "SavedPrograms", "read_program", "saved_for", "verdict_of"]


class Saved(Protocol):
    """Writes examples into a run folder and reads them back."""

    def keep(self, index: int, original: Any) -> None:
        """Save an original for which nothing was found, where the figures need it."""

    def write(self, index: int, original: Any, best: Any) -> None:
        """Save an original and its adversarial example."""

    def read(self, kind: str, indices: Sequence[int]) -> Batch:
        """What lies on disk. ``kind``: originals or adversarial."""

    def pictures(self, indices: Sequence[int]) -> Batch | None:
        """The adversarial examples as they are after rounding to 8 bits, ``None`` where they are no pictures."""


class SavedImages:
    """Images, and motions, which are no pictures. Shapes: original, best (*shape); what is read is (k, *shape)."""

    def __init__(self, folder: RunFolder, shape: Sequence[int]) -> None:
        self._folder = folder
        self._pictures = len(shape) == 3 and shape[0] in (1, 3)

    def keep(self, index: int, original: Tensor) -> None:
        """Images without an adversarial one are not shown, and the data has them."""

    def write(self, index: int, original: Tensor, best: Tensor) -> None:
        self._folder.write_array("originals", index, original)
        self._folder.write_array("adversarial", index, best)
        if self._pictures:
            self._folder.write_png(index, best)

    def read(self, kind: str, indices: Sequence[int]) -> Tensor:
        return torch.stack([self._folder.read_array(kind, index) for index in indices])

    def pictures(self, indices: Sequence[int]) -> Tensor | None:
        return torch.stack([self._folder.read_png(index) for index in indices]) if self._pictures else None


class SavedPrograms:
    """Programs. ``functions``: whether what a program itself defines may be renamed (``bbox.code.domain.Renaming``)."""

    def __init__(self, folder: RunFolder, *, functions: bool = False) -> None:
        self._folder = folder
        self._functions = functions

    def keep(self, index: int, original: Program) -> None:
        self._put("originals", index, original)

    def write(self, index: int, original: Program, best: Program) -> None:
        self._put("originals", index, original)
        self._put("adversarial", index, best)
        verdict = compare(original, best, functions=self._functions)
        report = {
            "language": original.language,
            "equivalent": verdict.equivalent,
            "reason": verdict.reason,
            "checks": list(verdict.checks),
            "identifiers": len(site_of(original, functions=self._functions).identifiers),
            "renames": [
                {"old": r.old, "new": r.new, "start": r.start, "occurrences": r.occurrences} for r in verdict.renames
            ],
        }
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        self._folder.write_bytes(Path("renames", f"{index:06d}.json"), encoded(text))
        self._folder.write_bytes(Path("renames", f"{index:06d}.diff"), encoded(_diff(index, original, best)))

    def _put(self, kind: str, index: int, program: Program) -> None:
        path = _path(kind, index, program.language)
        self._folder.write_bytes(path, encoded(program.code))
        if program.partner is not None:
            self._folder.write_bytes(_partner(path), encoded(program.partner))

    def read(self, kind: str, indices: Sequence[int]) -> Programs:
        return Programs(read_program(self._folder, kind, index) for index in indices)

    def pictures(self, indices: Sequence[int]) -> None:
        return None


def saved_for(data: Examples, folder: RunFolder, *, functions: bool = False) -> Saved:
    """How examples of this data are saved in a run folder."""
    if isinstance(data, CodeSet):
        return SavedPrograms(folder, functions=functions)
    return SavedImages(folder, data.inputs.shape[1:])


def read_program(folder: RunFolder, kind: str, index: int) -> Program:
    """A saved program, its language by its suffix.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    place = folder.path / kind
    try:
        for path in sorted(place.glob(f"{index:06d}.*")):
            language = language_of(path)
            if language is not None and not path.stem.endswith(".partner"):
                partner = _partner(path)
                second = decoded(partner.read_bytes()) if partner.is_file() else None
                return Program(decoded(path.read_bytes()), language, second)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"program {index} in {place} cannot be read: {error}") from error
    raise InputError(f"{place} has no program {index}; it was saved there, so put it back or start a new run")


def verdict_of(folder: RunFolder, index: int, *, functions: bool) -> Verdict:
    """The validity of a saved example, checked again from its two files; without them it is not valid."""
    try:
        original, adversarial = (read_program(folder, kind, index) for kind in ("originals", "adversarial"))
    except InputError as error:
        return Verdict(False, str(error))
    return compare(original, adversarial, functions=functions)


def _path(kind: str, index: int, language: str) -> Path:
    return Path(kind, f"{index:06d}{named(language).suffixes[0]}")


def _partner(path: Path) -> Path:
    return path.with_name(f"{path.stem}.partner{path.suffix}")


def _diff(index: int, original: Program, best: Program) -> str:
    name = _path("", index, original.language)
    lines = difflib.unified_diff(
        original.code.splitlines(keepends=True),
        best.code.splitlines(keepends=True),
        f"originals/{name}",
        f"adversarial/{name}",
    )
    # A last line without a line end would run into the next one.
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
