"""The defense contract: something put around a target that gives back a target."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from bbox.errors import UsageError
from bbox.oracle import Oracle
from bbox.targets.base import Takes, Target

if TYPE_CHECKING:
    from bbox.defenses.books import Journal

__all__ = ["Defense", "TrainedDefense", "Wrapped", "need_scores"]


class Defense(ABC):
    """A defense. Subclasses are dataclasses whose fields are its options; the command line reads them from there.

    Attributes:
        takes: what the targets take that it stands around: images, or code.
        summary: one sentence for listings.
        needs: what it works on: ``"input"``, ``"scores"``, ``"state"`` (a memory of earlier queries).
        cost: what it costs in latency, accuracy and memory a query.
        weakness: the adaptive attack that is known to get around it, with its source.
        adaptations: the adaptive attackers that the evaluation must try, by name: ``"average"`` (votes over repeats),
            ``"scale-free"`` (a score attack that does not read the size of scores), ``"reverse"`` (one that undoes
            AAA), ``"resample"`` (searches the smallest step that a stateful detector lets through), ``"large-steps"``
            (steps that rise over noise and quantisation, and do not look alike).
        trained: whether it must be fitted before it can wrap (``TrainedDefense``).
    """

    takes: ClassVar[Takes] = "images"
    summary: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("input",)
    cost: ClassVar[str] = ""
    weakness: ClassVar[str] = ""
    adaptations: ClassVar[tuple[str, ...]] = ()
    trained: ClassVar[bool] = False

    @abstractmethod
    def wrap(self, target: Target) -> Target:
        """The defended target; it can be attacked, certified and wrapped again like any other.

        Raises:
            UsageError: the target does not give what the defense works on, or the defense was not fitted.
        """

    def describe(self) -> str:
        """Name and options, as text that changes whenever the defense answers differently."""
        options: list[str] = (
            [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.init] if is_dataclass(self) else []
        )
        return f"{type(self).__name__}({', '.join(options)})"

    def state(self) -> tuple[Mapping[str, object], Mapping[str, Tensor]]:
        """What fitting has made: a JSON-able structure and tensors. Nothing for a defense that is not trained."""
        return {}, {}

    def restore(self, structure: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        del structure, tensors


class TrainedDefense(Defense):
    """A defense that asks the black box while it is fitted.

    Attributes:
        labelled: whether it learns from labels, and is compared with simpler means on held-out images.
        least: images that it needs at least.
    """

    trained: ClassVar[bool] = True
    labelled: ClassVar[bool] = False
    least: ClassVar[int] = 25

    @property
    def certified_noise(self) -> float | None:
        """Deviation of the noise that it was trained for and can be certified under, ``None`` where there is none."""
        return None

    @abstractmethod
    def fit(
        self,
        oracle: Oracle,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        budget: int,
        seed: int = 0,
        journal: Journal | None = None,
        report: Callable[[str, int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Fit to the oracle's target, and return the figures of the fit (JSON-able).

        Args:
            budget: queries in all, a hard limit; on the ledgers ``fit``, ``select`` and ``probe``.
            journal: answers on record are taken from there.
            report: called with (stage, done, total).

        Shapes:
            images: (n, channels, height, width) in [0, 1]; labels: (n,) int64, read where the defense is ``labelled``.
        """

    def compare(
        self,
        oracle: Oracle,
        training: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        *,
        budget: int,
        seed: int = 0,
        journal: Journal | None = None,
        report: Callable[[str, int, int], None] | None = None,
    ) -> dict[str, Any] | None:
        """Simpler means to the same end, each within ``budget``, measured on held-out images (JSON-able).

        ``None`` where the defense has none. Asked on the ledgers ``baseline`` and ``evaluate``.

        Shapes:
            training, test: images (n, channels, height, width) in [0, 1], and labels (n,) int64.
        """
        del oracle, training, test, budget, seed, journal, report
        return None

    def comparison_queries(self, budget: int, training: int, test: int) -> int:
        """Queries that ``compare`` may ask at most, with so many images."""
        del budget, training, test
        return 0


class Wrapped(Target):
    """A target inside a defense. Subclasses write ``__call__`` and ask ``self.inner(rows)``.

    Everything that is not said otherwise is the inner target's: access, shape, classes, device.

    Raises:
        UsageError: the defense is for another kind of input than the target takes.
    """

    def __init__(self, inner: Target, defense: Defense, *, name: str) -> None:
        if inner.takes != defense.takes:
            raise UsageError(f"{name} defends targets of {defense.takes}, and {inner.name} takes {inner.takes}")
        self.takes = inner.takes
        self.class_names = inner.class_names
        self.inner = inner
        self.defense = defense
        self.name = f"{name}({inner.name})"
        self.access = inner.access
        self.input_shape = inner.input_shape
        self.num_classes = inner.num_classes
        self.device = inner.device
        self.in_process = inner.in_process
        self.deterministic = inner.deterministic
        self.refuses = inner.refuses
        self.rows_per_query = inner.rows_per_query

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.inner.fingerprint()} {self.defense.describe()}".encode())
        structure, tensors = self.defense.state()
        digest.update(json.dumps(structure, sort_keys=True).encode() if structure else b"")
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def fresh(self) -> Target:
        inner = self.inner.fresh()
        return self if inner is self.inner else self.defense.wrap(inner)


def need_scores(target: Target, name: str) -> None:
    """Refuse a target that gives labels only.

    Raises:
        UsageError: it does.
    """
    if target.access != "scores":
        raise UsageError(f"{name} works on scores, and {target.name} answers labels only")
