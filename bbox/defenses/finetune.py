"""Training a classifier of code further, with transformers' Trainer."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bbox.code.program import Programs
from bbox.errors import InputError, UsageError

if TYPE_CHECKING:
    from bbox.targets.code.hf import SequenceClassifier

__all__ = ["Training", "finetune", "need_trainer"]


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        epochs: passes over the examples; lr: the highest learning rate, from which it falls linearly to 0.
        batch_size: examples a step; seed: of their order, of dropout and of nothing else.
    """

    epochs: int = 3
    lr: float = 5e-5
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 < self.lr <= 1:
            raise UsageError(f"lr is {self.lr:g}, expected more than 0, at most 1")


def need_trainer() -> None:
    """Refuse to begin where transformers' Trainer cannot run.

    Raises:
        UsageError: ``accelerate`` is missing.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"training needs accelerate, for transformers' Trainer: pip install 'bbox-toolkit[finetune]' ({error})"
        ) from error


def finetune(
    target: SequenceClassifier,
    programs: Programs,
    labels: Tensor,
    training: Training,
    *,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """A copy of the target's model, trained on these examples from the weights that it has; and the figures of that.

    Programs are given as the target gives them, cut off at its ``max_length``. The loss is cross-entropy; for a sigmoid
    head, binary cross-entropy. torch's, numpy's and Python's random states are as before after it.

    Queries: none; the model is the user's own, and no black box.

    Shapes:
        labels: (n,) int64.

    Args:
        report: called with (step, steps).

    Raises:
        UsageError: ``accelerate`` is missing.
        InputError: the training diverged.
    """
    need_trainer()
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Classifier(Trainer):
        def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
            truth = inputs.pop("labels")
            logits = model(**inputs).logits
            if target.head == "sigmoid":
                return nn.functional.binary_cross_entropy_with_logits(logits.reshape(-1), truth.to(logits.dtype))
            return nn.functional.cross_entropy(logits, truth)

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if report is not None:
                report(state.global_step, state.max_steps)

    encoded = target.encode(target.sources(programs))
    examples = [
        {**{key: values[place] for key, values in encoded.items()}, "labels": int(labels[place])}
        for place in range(len(programs))
    ]

    def collate(batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        padded = target.pad({key: [row[key] for row in batch] for key in encoded})
        return {**padded, "labels": torch.tensor([row["labels"] for row in batch], device=target.device)}

    model = copy.deepcopy(target.model).requires_grad_(True)
    with _quiet(), _own_randomness(), tempfile.TemporaryDirectory(prefix="bbox-trainer-") as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=training.epochs,
            learning_rate=training.lr,
            per_device_train_batch_size=training.batch_size,
            seed=training.seed,
            use_cpu=target.device.type == "cpu",
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Classifier(
            model=model, args=arguments, train_dataset=examples, data_collator=collate, callbacks=[Watch()]
        )
        ended = trainer.train()
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise InputError(f"the training diverged (lr {training.lr:g}): weights are not finite; give a smaller --lr")
    figures = {"examples": len(examples), "steps": int(ended.global_step), "loss": float(ended.training_loss)}
    return model.eval().requires_grad_(False), figures


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Trainer seeds every generator of the process: put them back."""
    python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(of_numpy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own lines on the streams."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(40)  # of the standard library: errors alone
    try:
        yield
    finally:
        logging.set_verbosity(level)
