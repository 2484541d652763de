"""Label mapping: the answers of a model with other classes than the data's, as answers about the data's classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bbox.defenses.scores import labels_of
from bbox.errors import InputError, UsageError
from bbox.oracle import UNKNOWN

__all__ = ["LabelMapping", "frequency_mapping"]


@dataclass(frozen=True)
class LabelMapping:
    """One source class for each target class, none twice.

    Label mapping comes from adversarial reprogramming (Tsai, Chen and Ho 2020, "BAR", which averages several source
    classes a target class); one to one and by frequency as in Chen et al. 2023, "ILM-VP".

    Args:
        sources: the source class of each target class.
        num_source: number of classes of the model.

    Raises:
        UsageError: a source class is out of range or there twice.

    Example:
        >>> swap = LabelMapping((2, 0), num_source=3)
        >>> swap(torch.tensor([[0.1, 0.2, 0.7]]))
        tensor([[0.7000, 0.1000]])
        >>> swap(torch.tensor([0, 1, 2]))
        tensor([ 1, -1,  0])
    """

    sources: tuple[int, ...]
    num_source: int

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError(
                "a label mapping of no classes maps nothing; expected a source class for each target class"
            )
        for place, source in enumerate(self.sources):
            if not 0 <= source < self.num_source:
                raise UsageError(
                    f"target class {place} is mapped from {source}, expected a class below {self.num_source}"
                )
        if len(set(self.sources)) < len(self.sources):
            twice = next(source for source in self.sources if self.sources.count(source) > 1)
            raise UsageError(f"source class {twice} is mapped to more than one target class, expected one at most")

    @classmethod
    def identity(cls, num_target: int, num_source: int | None = None) -> LabelMapping:
        """Each class from the one of the same number; source classes beyond the target's are left out."""
        return cls(tuple(range(num_target)), num_target if num_source is None else num_source)

    @classmethod
    def frequency(cls, answers: Tensor, labels: Tensor, num_target: int, num_source: int) -> LabelMapping:
        """See ``frequency_mapping``. Asked again with later answers, this is the iterative mapping of ILM-VP."""
        return cls(tuple(frequency_mapping(answers, labels, num_target, num_source).tolist()), num_source)

    def __call__(self, answers: Tensor) -> Tensor:
        """Scores, (n, num_source), or labels, (n,), as such of the target classes."""
        return self.scores(answers) if answers.ndim == 2 else self.labels(answers)

    def scores(self, scores: Tensor) -> Tensor:
        """Scores of the target classes; probabilities do not sum to 1 any more. A refusal (NaN) stays one.

        Shapes: (n, num_source) -> (n, num_target), differentiable.

        Raises:
            InputError: there are not ``num_source`` scores.
        """
        if scores.ndim != 2 or scores.shape[1] != self.num_source:
            raise InputError(
                f"the model answered {tuple(scores.shape)}, expected {self.num_source} scores a row to be mapped"
            )
        return scores[:, torch.tensor(self.sources, device=scores.device)]

    def labels(self, labels: Tensor) -> Tensor:
        """Labels of the target classes.

        A source class that no target class has taken is ``UNKNOWN`` (-1): the oracle reads it as no answer, so that it
        is right for no image. ``UNKNOWN`` and ``REFUSED`` stay what they are.

        Shapes: (n,) int64 -> (n,) int64.

        Raises:
            InputError: a label is not below ``num_source``.
        """
        if len(labels) and int(labels.max()) >= self.num_source:
            raise InputError(f"the model answered class {int(labels.max())}, expected one below {self.num_source}")
        inverse = torch.full((self.num_source,), UNKNOWN, dtype=torch.int64, device=labels.device)
        inverse[torch.tensor(self.sources, device=labels.device)] = torch.arange(
            len(self.sources), device=labels.device
        )
        return torch.where(labels < 0, labels, inverse[labels.clamp_min(0)])

    def structure(self) -> dict[str, object]:
        """The mapping, JSON-able, for ``from_structure``."""
        return {"sources": list(self.sources), "num_source": self.num_source}

    @classmethod
    def from_structure(cls, structure: Mapping[str, object]) -> LabelMapping:
        """What ``structure`` has given.

        Raises:
            InputError: it is not complete.
        """
        sources, num_source = structure.get("sources"), structure.get("num_source")
        if not isinstance(sources, list) or not isinstance(num_source, int):
            raise InputError(f"a label mapping is {dict(structure)!r}, expected sources and num_source")
        return cls(tuple(int(source) for source in sources), num_source)


def frequency_mapping(answers: Tensor, labels: Tensor, num_target: int, num_source: int) -> Tensor:
    """The source class that the model most often predicts for each target class, none twice (Chen et al. 2023).

    Greedy over the counts of (target label, predicted source class): the largest count of a target class and a source
    class that are both free is taken until none is left. Equal counts go to the lower target class, then to the lower
    source class. A target class for which nothing is left gets the lowest free source class. Unusable and refused
    answers count nowhere.

    Args:
        answers: (n, num_source) scores, or (n,) labels, of the model for the images; no query is asked here.
        labels: (n,) int64, target classes of the images.

    Returns: (num_target,) int64 source classes, on the CPU.

    Raises:
        UsageError: the model has fewer classes than the data, or a label or an answer is out of range.
    """
    if num_target > num_source:
        raise UsageError(f"{num_target} classes cannot be mapped one to one from a model of {num_source}")
    predicted = labels_of(answers, scores=answers.ndim == 2, refuses=False).cpu()
    labels = labels.cpu().to(torch.int64)
    if len(predicted) != len(labels):
        raise UsageError(f"{len(predicted)} answers and {len(labels)} labels, expected one label an answer")
    for what, found, classes in (("label", labels, num_target), ("predicted class", predicted, num_source)):
        if len(found) and int(found.max()) >= classes:
            raise UsageError(f"{what} {int(found.max())} is out of range, expected one below {classes}")
    usable = (predicted >= 0) & (labels >= 0)
    counts = torch.bincount(labels[usable] * num_source + predicted[usable], minlength=num_target * num_source)
    mapping = [-1] * num_target
    free = dict.fromkeys(range(num_source))
    order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
    for target, source in (divmod(pair, num_source) for pair in order.tolist()):
        if mapping[target] < 0 and source in free:
            mapping[target] = source
            del free[source]
    left = iter(list(free))
    return torch.tensor([next(left) if source < 0 else source for source in mapping], dtype=torch.int64)
