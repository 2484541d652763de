"""Any object that classifies source text as a target: a callable, a scikit-learn pipeline, a victim's wrapper."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bbox.code.program import Programs
from bbox.errors import TargetError, UsageError
from bbox.targets.base import Access, Target
from bbox.targets.code.base import CodeTarget

__all__ = ["CodeCallable", "wrap"]


def wrap(obj: object, **kwargs: Any) -> CodeTarget:
    """Make a target of an object that classifies source text. A code target passes through unchanged.

    What it does with a list of programs is found by its methods, in this order: ``get_prob`` (a victim of OpenAttack;
    else its ``get_pred``), ``predict_proba`` (a scikit-learn pipeline over text; else ``predict``), a call (any
    function, or a ``ModelWrapper`` of TextAttack). ``kwargs`` go to ``CodeCallable``.

    Raises:
        UsageError: the object does none of these, or an argument is wrong.

    Example:
        >>> from bbox.code.program import Program
        >>> target = wrap(lambda codes: [len(code) > 5 for code in codes], classes=("short", "long"))
        >>> target(Programs([Program("a = 1", "python"), Program("a = 10", "python")]))
        tensor([0, 1])
    """
    if isinstance(obj, Target):
        if not isinstance(obj, CodeTarget):
            raise UsageError(f"{obj.name} is a target of {obj.takes}, not of code")
        if kwargs:
            raise UsageError(f"{obj.name} is a target already and takes no {sorted(kwargs)[0]!r}")
        return obj
    if isinstance(obj, str):
        raise UsageError(f"wrap takes an object, got the text {obj!r}; a spec is loaded by bbox.targets.load")
    if isinstance(obj, type):
        raise UsageError(f"wrap takes an object, got the class {obj.__name__}; make an instance of it first")
    return CodeCallable(obj, **kwargs)


class CodeCallable(CodeTarget):
    """An object that answers a list of programs with scores or labels.

    An answer (n, classes) is scores; (n,) is labels: integers or booleans, or the names in ``classes``. Without
    ``access``, the first answer tells which (the oracle probes before a run), and every later one must be alike.

    Args:
        obj: as ``wrap`` takes it. It is given a list of source texts, or of pairs of them.
        name: what the user would type to load it again; default the object's name.
        classes: the names of the classes by index; a scikit-learn pipeline tells them itself.
        access: ``"scores"`` or ``"labels"``, where known.
        pairs: whether a row is a pair of programs.
        language: the one language that it reads.
        version: text that enters the fingerprint; change it when the object answers differently.
        num_classes: where known and ``classes`` is not given.
    """

    def __init__(
        self,
        obj: object,
        *,
        name: str | None = None,
        classes: Sequence[str] | None = None,
        access: Access | None = None,
        pairs: bool = False,
        language: str | None = None,
        version: str = "",
        num_classes: int | None = None,
    ) -> None:
        self.name = name or str(getattr(obj, "__qualname__", None) or type(obj).__qualname__)
        self.obj = obj
        self.ask, told = _question(self.name, obj)
        if access not in (None, "scores", "labels"):
            raise UsageError(f"{self.name}: access={access}, expected scores or labels")
        self.pairs = pairs
        self.language = language
        self.version = version
        self.known = (access or told) is not None
        self.access = access or told or "scores"
        own = getattr(obj, "classes_", None)  # of scikit-learn: its labels, in the order of its scores
        self._values = None if own is None else {value: place for place, value in enumerate(np.asarray(own).tolist())}
        self.class_names = _names(self.name, classes, own)
        self.num_classes = num_classes if self.class_names is None else len(self.class_names)
        if num_classes is not None and num_classes != self.num_classes:
            raise UsageError(f"{self.name}: num_classes={num_classes}, and {self.num_classes} classes are named")

    def __call__(self, rows: Programs) -> Tensor:
        """See ``CodeTarget``.

        Raises:
            InputError: the rows are pairs and the target reads single programs, or the reverse.
            TargetError: the answer is neither scores nor labels of these rows.
        """
        with torch.no_grad():
            answer = self._tensor(self.ask(self.sources(rows)))
        kind = self._kind(answer, len(rows))
        if not self.known:
            self.access, self.known = kind, True
        elif kind != self.access:
            raise TargetError(f"{self.name} answered {kind}, expected {self.access}; pass access={kind} if it is right")
        return answer.to("cpu", torch.float32 if kind == "scores" else torch.int64, copy=True)

    def fingerprint(self) -> str:
        """SHA-256 over what is seen of the object: its source file, its name, an estimator's pickle, ``version``."""
        named = self.obj if hasattr(self.obj, "__qualname__") else type(self.obj)
        module, name = getattr(named, "__module__", ""), getattr(named, "__qualname__", "")
        total = hashlib.sha256(repr((module, name, self.pairs, self.class_names, self.version)).encode())
        try:
            total.update(Path(inspect.getfile(cast(Any, named))).read_bytes())
        except (OSError, TypeError):
            code = getattr(named, "__code__", None)
            total.update(b"" if code is None else code.co_code + repr(code.co_names).encode())
        if self._values is not None and not self.version:  # an estimator is its fitted state
            total.update(pickle.dumps(self.obj))
        return total.hexdigest()

    def _tensor(self, given: object) -> Tensor:
        if isinstance(given, Tensor):
            found = given.detach()
        else:
            array = np.asarray(given)
            if array.ndim == 1 and (self._values is not None or array.dtype.kind in "US"):
                return torch.tensor([self._place(value) for value in array.tolist()], dtype=torch.int64)
            try:
                found = torch.as_tensor(array)
            except (TypeError, ValueError, RuntimeError) as error:
                raise TargetError(f"{self.name} answered {type(given).__name__}, expected scores or labels") from error
        return found.long() if found.dtype == torch.bool else found

    def _place(self, label: Any) -> int:
        """The index of a label that is no index: a class's name, or a value of ``classes_``."""
        if self._values is not None and label in self._values:
            return self._values[label]
        if self.class_names is not None and label in self.class_names:
            return self.class_names.index(label)
        raise TargetError(f"{self.name} answered the label {label!r}, which is no class; give classes= with every name")

    def _kind(self, answer: Tensor, rows: int) -> Access:
        whole = not answer.is_floating_point() and not answer.is_complex()
        if answer.ndim == 1 and whole and len(answer) == rows:
            return "labels"
        if answer.ndim == 2 and not answer.is_complex() and len(answer) == rows and answer.shape[1] > 1:
            if self.num_classes not in (None, answer.shape[1]):
                raise TargetError(f"{self.name} answered {answer.shape[1]} scores a row for {self.num_classes} classes")
            return "scores"
        raise TargetError(
            f"{self.name} answered {tuple(answer.shape)} {answer.dtype} for {rows} programs; "
            "expected (programs, classes) scores with at least 2 classes, or (programs,) integer labels"
        )


def _question(name: str, obj: object) -> tuple[Callable[[list[Any]], object], Access | None]:
    for method, access in (("get_prob", "scores"), ("predict_proba", "scores"), ("get_pred", "labels")):
        # hasattr is false where scikit-learn's pipeline ends in an estimator without probabilities, and where
        # OpenAttack's victim leaves the method out.
        if callable(getattr(obj, method, None)):
            return getattr(obj, method), cast(Access, access)
    if hasattr(obj, "classes_") and callable(getattr(obj, "predict", None)):
        return cast(Any, obj).predict, "labels"
    if callable(obj):
        return obj, None
    raise UsageError(
        f"{name} classifies no code: expected a callable, or an object with get_prob, get_pred, "
        "predict_proba or (fitted) predict"
    )


def _names(name: str, classes: Sequence[str] | None, own: Any) -> tuple[str, ...] | None:
    if classes is None:
        return None if own is None else tuple(str(value) for value in np.asarray(own).tolist())
    if own is not None and len(own) != len(classes):
        raise UsageError(f"{name}: {len(classes)} classes are named, and it was fitted on {len(own)}")
    return tuple(classes)
