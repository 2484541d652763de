"""A data set as attacks see it: inputs, labels, and each example's place in its source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from bbox.code.program import Programs
from bbox.errors import InputError, UsageError
from bbox.motion.skeleton import Skeleton

__all__ = ["CodeSet", "Dataset", "Examples", "MotionSet"]


_POINT = Skeleton("point", ("point",), (-1,))  # the default of a field that every reader gives
_FARTHEST = 100.0  # metres; beyond it the unit is wrong


@dataclass(frozen=True)
class Examples:
    """Labelled inputs of any kind.

    Shapes:
        inputs: n inputs, indexed by a tensor of rows.
        labels: (n,) int64, or ``None`` where the data carries none.
        indices: (n,) int64, each example's position in its source. An example's randomness depends on the
            seed and on this number alone, so it gives the same result in any selection.

    Attributes:
        name: what the user would type to load it again.
        ids: one readable name an example (a file name, or the position).
        class_names: names of the classes by index, where the source has them.
    """

    name: str
    inputs: Any
    labels: Tensor | None
    indices: Tensor
    ids: tuple[str, ...]
    class_names: tuple[str, ...] | None = None

    kind: ClassVar[str] = "examples"
    takes: ClassVar[Any] = ""  # what a target of it takes (``bbox.targets.base.Takes``)

    def __post_init__(self) -> None:
        if len(self.inputs) == 0:
            raise InputError(f"{self.name}: no {self.kind} found")
        if self.labels is not None:
            if self.labels.shape != (len(self.inputs),):
                raise InputError(f"{self.name}: {len(self.inputs)} {self.kind} but {self.labels.numel()} labels")
            if int(self.labels.min()) < 0:
                raise InputError(f"{self.name}: label {int(self.labels.min())} is negative")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Sequence[int] | Tensor) -> Self:
        """The examples at these rows (positions in this set, not in the source), in this order."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        return replace(
            self,
            inputs=self.inputs[rows],
            labels=None if self.labels is None else self.labels[rows],
            indices=self.indices[rows],
            ids=tuple(self.ids[i] for i in rows.tolist()),
        )

    def select(
        self, *, limit: int | None = None, indices: Sequence[int] | None = None, seed: int | None = None
    ) -> Self:
        """Choose examples by source index, or the first ``limit``, or ``limit`` drawn by ``seed``.

        Raises:
            UsageError: an index is not in the set or is repeated, or limit is not positive.
        """
        chosen = self
        if indices is not None:
            place = {index: row for row, index in enumerate(self.indices.tolist())}
            missing = [i for i in indices if i not in place]
            if missing:
                raise UsageError(
                    f"index {missing[0]} is not in {self.name}, which has indices "
                    f"{min(place)} to {max(place)} ({len(place)} examples)"
                )
            if len(set(indices)) != len(indices):
                raise UsageError("an index is given twice")
            chosen = self.take([place[i] for i in indices])
        if limit is not None:
            if limit < 1:
                raise UsageError(f"limit is {limit}, expected at least 1")
            if seed is None:
                chosen = chosen.take(range(min(limit, len(chosen))))
            else:
                generator = torch.Generator().manual_seed(seed)
                order = torch.randperm(len(chosen), generator=generator)[:limit]
                chosen = chosen.take(order.sort().values)
        return chosen

    def few_shot(self, shots: int, seed: int) -> tuple[Self, Self]:
        """``shots`` examples of each class, drawn by ``seed``, and all the others; both in the order of this set.

        As in CoOp (Zhou et al., IJCV 2022), a class that has fewer gives all it has. Of one seed, the draw with
        fewer shots lies within the one with more.

        Raises:
            UsageError: shots is below 1, there are no labels, or no class has more than ``shots`` examples.
        """
        if shots < 1:
            raise UsageError(f"shots is {shots}, expected at least 1")
        if self.labels is None:
            raise UsageError(f"{self.name} has no labels, and shots are drawn from each class; give labels")
        count = len(self)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        by_class = order[self.labels[order].argsort(stable=True)]
        sizes = self.labels.bincount()
        first = (sizes.cumsum(0) - sizes)[self.labels[by_class]]
        drawn = torch.zeros(count, dtype=torch.bool)
        drawn[by_class] = torch.arange(count) - first < shots
        if bool(drawn.all()):
            largest = int(sizes.max())
            raise UsageError(f"{shots} shots take all of {self.name}: no class has more than {largest}; give fewer")
        return self.take(drawn.nonzero().flatten()), self.take((~drawn).nonzero().flatten())

    def fingerprint(self) -> str:
        """A digest of inputs, labels and indices."""
        digest = hashlib.sha256()
        for part in (self._digestible(), self.labels, self.indices):
            if part is not None:
                digest.update(part if isinstance(part, bytes) else part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _digestible(self) -> Tensor | bytes:
        raise NotImplementedError


@dataclass(frozen=True)
class Dataset(Examples):
    """Labelled images in [0, 1].

    Shapes:
        inputs: (n, channels, height, width) float32.
        labels, indices: as in ``Examples``.
    """

    inputs: Tensor

    kind: ClassVar[str] = "images"
    takes: ClassVar[Any] = "images"

    def __post_init__(self) -> None:
        if self.inputs.ndim != 4:
            raise InputError(
                f"{self.name}: images have shape {tuple(self.inputs.shape)}; "
                "bbox reads (examples, channels, height, width)"
            )
        super().__post_init__()
        if self.inputs.dtype != torch.float32:
            raise InputError(f"{self.name}: images are {self.inputs.dtype}, expected float32 in [0, 1]")
        finite = torch.isfinite(self.inputs).flatten(1).all(1)
        if not bool(finite.all()):
            bad = int((~finite).nonzero()[0])
            raise InputError(f"{self.name}: image {self.ids[bad]} has a value that is not finite")
        low, high = float(self.inputs.min()), float(self.inputs.max())
        if low < 0.0 or high > 1.0:
            hint = "; divide by 255" if high > 2.0 else ""
            raise InputError(f"{self.name}: pixels reach from {low:g} to {high:g}, expected [0, 1]{hint}")

    def _digestible(self) -> Tensor:
        return self.inputs


@dataclass(frozen=True)
class MotionSet(Examples):
    """Labelled skeleton motions in metres.

    Shapes:
        inputs: (n, 3, frames, joints, bodies) float32; padding and absent bodies are zeros (``bbox.motion.present``).
        labels, indices: as in ``Examples``.

    Attributes:
        skeleton: the bone graph of each body.
        frame_rate: frames a second.
    """

    inputs: Tensor
    skeleton: Skeleton = _POINT
    frame_rate: float = 30.0

    kind: ClassVar[str] = "motions"
    takes: ClassVar[Any] = "motion"

    def __post_init__(self) -> None:
        shape = tuple(self.inputs.shape)
        if len(shape) != 5 or shape[1] != 3:
            raise InputError(
                f"{self.name}: motions have shape {shape}; bbox reads (examples, 3, frames, joints, bodies)"
            )
        super().__post_init__()
        if self.inputs.dtype != torch.float32:
            raise InputError(f"{self.name}: motions are {self.inputs.dtype}, expected float32 in metres")
        if shape[3] != len(self.skeleton):
            raise InputError(
                f"{self.name}: motions have {shape[3]} joints, the skeleton {self.skeleton.name} {len(self.skeleton)}"
            )
        if not self.frame_rate > 0:
            raise InputError(f"{self.name}: frame rate is {self.frame_rate:g}, expected frames a second above 0")
        finite = torch.isfinite(self.inputs).flatten(1).all(1)
        empty = ~(self.inputs != 0).flatten(1).any(1)
        for fault, what in ((~finite, "has a value that is not finite"), (empty, "has no body in any frame")):
            if bool(fault.any()):
                raise InputError(f"{self.name}: motion {self.ids[int(fault.nonzero()[0])]} {what}")
        reach = float(self.inputs.abs().max())
        if reach > _FARTHEST:
            raise InputError(f"{self.name}: coordinates reach {reach:g} m; give the unit, for example unit=cm or mm")

    def _digestible(self) -> Tensor:
        return self.inputs


@dataclass(frozen=True)
class CodeSet(Examples):
    """Labelled programs, or pairs of programs.

    Attributes:
        origin: what the reader needs to write programs back in the format they came in (``bbox.data.code``); ``None``
            where they come from no file.
    """

    inputs: Programs
    origin: Any = None

    kind: ClassVar[str] = "programs"
    takes: ClassVar[Any] = "code"

    def _digestible(self) -> bytes:
        fields = ((p.language, p.code, p.partner or "") for p in self.inputs)
        return json.dumps(list(fields)).encode()
