"""Any decision-based attack of foolbox, under the oracle's exact budget.

A foolbox attack calls its model and waits for the answer. Here each image runs in a thread of its own that is only
ever awake while the engine waits for it, so that the call becomes an ``Ask``: the rows of many images share forwards,
though foolbox sees one image at a time (its own batches change its results: foolbox 3.3.4 divides HopSkipJump's
gradient by the norm of the whole batch). Foolbox draws from the global random state; each image keeps its own.
"""

from __future__ import annotations

import inspect
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbox.attacks.base import Ask, Attack, Problem, Run
from bbox.attacks.starts import find_starts
from bbox.errors import UsageError
from bbox.goal import Goal
from bbox.oracle import UNKNOWN
from bbox.registry import check_options, did_you_mean
from bbox.targets.base import REFUSED

__all__ = ["FoolboxAttack", "foolbox_class", "foolbox_options"]


def foolbox_class(name: str) -> Any:
    """A class of ``foolbox.attacks``.

    Raises:
        UsageError: there is no attack of that name.
    """
    import foolbox

    found = getattr(foolbox.attacks, name, None)
    if not (inspect.isclass(found) and issubclass(found, foolbox.attacks.Attack) and not inspect.isabstract(found)):
        known = [
            key
            for key, value in vars(foolbox.attacks).items()
            if inspect.isclass(value) and issubclass(value, foolbox.attacks.Attack) and not inspect.isabstract(value)
        ]
        raise UsageError(f"foolbox has no attack {name!r}{did_you_mean(name, known) or '; see foolbox.attacks'}")
    return found


def foolbox_options(name: str) -> dict[str, tuple[type, Any]]:
    """The plain options (numbers, words, switches) of a foolbox attack: name -> (type, default)."""
    cls = foolbox_class(name)
    options: dict[str, tuple[type, Any]] = {
        key: (type(parameter.default), parameter.default)
        for key, parameter in inspect.signature(cls).parameters.items()
        if isinstance(parameter.default, bool | int | float | str) and key != "tensorboard"
    }
    if _is_fixed_epsilon(cls):
        options["epsilon"] = (float, None)
    return options


def _is_fixed_epsilon(cls: Any) -> bool:
    return "epsilon" in inspect.signature(cls.run).parameters


class FoolboxAttack(Attack):
    """Run ``foolbox.attacks.<name>`` one image at a time behind the oracle.

    Queries: whatever the attack asks; it is stopped at exactly its budget, and the closest row that it asked counts.

    Args:
        name: a class of ``foolbox.attacks`` that needs no gradients.
        options: keyword arguments of its constructor; ``epsilon`` for a fixed-epsilon attack.
    """

    def __init__(self, name: str, options: Mapping[str, object] | None = None) -> None:
        options = dict(options or {})
        cls = foolbox_class(name)
        known = foolbox_options(name)
        check_options(f"foolbox:{name}", options, known)
        from bbox.options import read_option

        values = {key: read_option(f"foolbox:{name}: {key}", known[key][0], value) for key, value in options.items()}
        self.name = name
        self.arguments: dict[str, Any] = {}
        if _is_fixed_epsilon(cls):
            if "epsilon" not in values:
                raise UsageError(f"foolbox:{name} attacks at a fixed distance; give epsilon")
            self.arguments["epsilon"] = values.pop("epsilon")
        try:
            self.attack = cls(**values)
        except Exception as error:
            raise UsageError(f"foolbox:{name} refused its options {values}: {error or type(error).__name__}") from error
        self.takes_starts = "starting_points" in inspect.signature(cls.run).parameters

    def radius(self, problem: Problem) -> float | None:
        return self.arguments.get("epsilon")

    def run(self, problem: Problem) -> Run:
        starts: Tensor | None = None
        asked = torch.arange(len(problem))
        if self.takes_starts and (problem.starts is not None or problem.goal.targeted):
            starts, have = yield from find_starts(problem)
            asked = asked[have]
        calls: dict[int, _Call] = {}
        try:
            for i in asked.tolist():
                calls[i] = _Call(self._job(problem, i, starts), int(problem.keys[i]))
            with _kept_random_state():
                waiting = {i: rows for i, call in calls.items() if (rows := call.resume(None)) is not None}
            while waiting:
                owner = torch.cat([torch.full((len(rows),), i, dtype=torch.int64) for i, rows in waiting.items()])
                answer = yield Ask(torch.cat(list(waiting.values())), owner)
                usable = answer.answered & (answer.labels != UNKNOWN)
                labels = torch.where(answer.labels == REFUSED, _other_label(problem.goal)[owner], answer.labels)
                lengths = [len(rows) for rows in waiting.values()]
                parts = zip(waiting, torch.split(usable, lengths), torch.split(labels, lengths), strict=True)
                still: dict[int, Tensor] = {}
                with _kept_random_state():
                    for i, mine, given in parts:
                        if bool(mine.all()) and (rows := calls[i].resume(given)) is not None:
                            still[i] = rows
                waiting = still
        finally:
            for call in calls.values():
                call.stop()

    def _job(self, problem: Problem, i: int, starts: Tensor | None) -> Callable[[Callable[[Tensor], Tensor]], None]:
        """The foolbox run of one image, as a function of ``ask: rows -> labels``."""
        import foolbox

        label = problem.goal.labels[i : i + 1].to(problem.originals.device)
        criterion = foolbox.criteria.TargetedMisclassification if problem.goal.targeted else foolbox.Misclassification
        arguments = dict(self.arguments)
        if starts is not None:
            arguments["starting_points"] = starts[i : i + 1]

        def job(ask: Callable[[Tensor], Tensor]) -> None:
            model = _model(ask, problem, int(label))
            self.attack.run(model, problem.originals[i : i + 1].clone(), criterion(label), **arguments)

        return job


def _other_label(goal: Goal) -> Tensor:
    """A label that does not meet each example's goal: what foolbox is told of a refused row. Shapes: (n,) int64."""
    return (goal.labels == 0).long() if goal.targeted else goal.labels


def _model(ask: Callable[[Tensor], Tensor], problem: Problem, label: int) -> Any:
    """The oracle as a foolbox model: labels only, as one-hot scores."""
    import eagerpy
    import foolbox

    class _OracleModel(foolbox.models.base.Model):  # type: ignore[misc]
        data_format = "channels_first"

        @property
        def bounds(self) -> Any:
            return foolbox.types.Bounds(problem.domain.low, problem.domain.high)

        def __call__(self, inputs: Any) -> Any:
            rows, restore = eagerpy.astensor_(inputs)
            if rows.raw.requires_grad:
                raise UsageError("this foolbox attack needs gradients, and a black box has none")
            own = rows.raw.detach().to(torch.float32, copy=True)
            labels = ask(problem.domain.clip(own, own))  # the box is the same around every original
            scores = torch.nn.functional.one_hot(labels, max(1, int(labels.max()), label) + 1)
            return restore(eagerpy.astensor(scores.to(rows.raw)))

    return _OracleModel()


@dataclass
class _RandomState:
    """The global random states that foolbox draws from."""

    torch_state: Tensor
    cuda_state: list[Tensor]
    numpy_state: Any
    python_state: Any

    @classmethod
    def save(cls) -> _RandomState:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(torch.get_rng_state(), cuda, np.random.get_state(), random.getstate())

    def restore(self) -> None:
        torch.set_rng_state(self.torch_state)
        if self.cuda_state:
            torch.cuda.set_rng_state_all(self.cuda_state)
        np.random.set_state(self.numpy_state)
        random.setstate(self.python_state)


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """Whatever is drawn inside, the global random states are afterwards as they were before."""
    outside = _RandomState.save()
    try:
        yield
    finally:
        outside.restore()


class _Stopped(BaseException):
    """Unwinds a foolbox attack whose budget is spent; not an Exception, so that nothing in it is caught."""


class _Call:
    """A blocking call turned into a conversation: ``resume`` runs it until it wants an answer or ends."""

    def __init__(self, job: Callable[[Callable[[Tensor], Tensor]], None], seed: int) -> None:
        self._job = job
        self._answers: SimpleQueue[Tensor | None] = SimpleQueue()
        self._requests: SimpleQueue[Tensor | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._seed = seed % (1 << 32)
        self._state: _RandomState | None = None
        self._error: BaseException | None = None
        self._asked = False
        self._ended = False

    def resume(self, labels: Tensor | None) -> Tensor | None:
        """Hand over the labels it waits for; returns the next rows it asks, ``None`` at its end.

        Leaves the global random states as this image had them; call it within ``_kept_random_state``.
        """
        if self._state is None:
            torch.manual_seed(self._seed)
            np.random.seed(self._seed)
            random.seed(self._seed)
            self._thread.start()
        else:
            self._state.restore()
            self._answers.put(labels)
        rows = self._requests.get()
        self._state = _RandomState.save()
        if rows is None:
            self._finish()
        return rows

    def stop(self) -> None:
        """End the thread, wherever it waits."""
        if self._thread.is_alive() and not self._ended:
            self._answers.put(None)
            self._thread.join()

    def _ask(self, rows: Tensor) -> Tensor:
        self._asked = True
        self._requests.put(rows)
        labels = self._answers.get()
        if labels is None:
            raise _Stopped
        return labels.to(rows.device)

    def _main(self) -> None:
        try:
            self._job(self._ask)
        except _Stopped:
            return
        except BaseException as error:
            self._error = error
        self._ended = True
        self._requests.put(None)

    def _finish(self) -> None:
        error = self._error
        if error is None:
            return
        if isinstance(error, UsageError):
            raise error
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if not self._asked:
            raise UsageError(f"the foolbox attack failed before its first query: {reason}") from error
        # One image that foolbox gives up on (no start point, most often) does not end the others.
        warnings.warn(f"foolbox gave up on an example: {reason}", RuntimeWarning, stacklevel=3)
