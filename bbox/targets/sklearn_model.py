"""``sklearn:PATH`` or a path ending in .skops: a classifier of scikit-learn over images as rows of numbers."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_regressor
from skops import io
from torch import Tensor

from bbox.errors import InputError
from bbox.targets.code.user_code import unpickled
from bbox.targets.foreign import LAYOUT, Foreign, choose_access, describe, foreign_target, model_file
from bbox.targets.options import Options
from bbox.targets.references import one_line
from bbox.targets.torch_module import TorchTarget

__all__ = ["SklearnModel", "load"]

_PICKLES = (".joblib", ".pkl", ".pickle")
_SCORES = ("predict_proba", "decision_function")


class SklearnModel(Foreign):
    """A fitted classifier as a module: probabilities, else the decision function, else labels.

    Args:
        classifier: with ``classes_`` and ``predict``.
    """

    def __init__(self, classifier: Any, digest: str, *, name: str, hwc: bool, access: Any) -> None:
        super().__init__(digest, hwc=hwc, flat=True, access=access)
        self.name = name
        self.classifier = classifier
        self.method = _method(classifier)
        self.features = getattr(classifier, "n_features_in_", None)
        self.places = {label: place for place, label in enumerate(classifier.classes_.tolist())}

    def answer(self, rows: Tensor) -> Tensor:
        """See ``Foreign``."""
        plain = rows.cpu().numpy()
        if self.features is not None and plain.shape[1] != self.features:
            raise InputError(
                f"{self.name} takes {self.features} numbers a row, and the images have {plain.shape[1]} (channels x "
                "height x width)"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names")  # it was fitted on a table
            answer = np.asarray(getattr(self.classifier, self.method)(plain))
        if self.method == "predict":
            answer = np.array([self.places[label] for label in answer.tolist()], np.int64)
        elif answer.ndim == 1:  # the decision function of two classes: above zero is the second
            answer = np.stack([-answer, answer], 1)
        return torch.from_numpy(answer).to(rows.device)


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> TorchTarget:
    """Load a classifier that skops has saved; with ``trust``, one that joblib or pickle has.

    Each image is given as one row, channels first (``layout=hwc``: last), of numbers in [0, 1] (``range=0-255``: of
    bytes).
    Other options: ``access=labels`` (hands out labels only), mean, std, size, num_classes and input_shape.

    Raises:
        UsageError: an option is wrong.
        InputError: the file is missing or unreadable, holds types that skops does not know to be safe (and ``trust``
            is not set), or is no classifier.
    """
    spec = reference if reference.lower().endswith((".skops", *_PICKLES)) else f"sklearn:{reference}"
    read = Options(spec, options, ("trusted", *LAYOUT))
    path = model_file(Path(reference))
    described = describe(read)
    hwc = read.choice("layout", ("chw", "hwc")) == "hwc"
    if path.suffix.lower() in _PICKLES:
        if not trust:
            raise InputError(
                f"{path} is a pickle, which runs any code that was put in it; save the model with skops.io.dump, or "
                "pass --trust if you trust its origin"
            )
        found, digest = unpickled(path, trust)
    else:
        trusted = set((read.text("trusted") or "").split(","))
        found, digest = _read(path, trusted, trust), hashlib.sha256(path.read_bytes()).hexdigest()
    classes = _classes(spec, found)
    described.setdefault("num_classes", len(classes))
    access = choose_access(read, "labels" if _method(found) == "predict" else "scores")
    model = SklearnModel(found, digest, name=spec, hwc=hwc, access=access)
    _check_shape(model, described)
    names = None if classes == list(range(len(classes))) else tuple(map(str, classes))
    # It runs on the CPU whatever the device, so rows should lie there too.
    return foreign_target(
        model, name=spec, access=access, device=device or "cpu", class_names=names, described=described
    )


def _read(path: Path, trusted: set[str], trust: bool) -> Any:
    try:
        unknown = io.get_untrusted_types(file=path)
        unsafe = [name for name in unknown if name not in trusted]
        if unsafe and not trust:
            named = ",".join(unsafe[:5]) + (", ..." if len(unsafe) > 5 else "")
            raise InputError(
                f"{path} holds types that skops does not know to be safe: {named}; pass trusted={named} if they may be "
                "loaded, or --trust if you trust the origin of the file"
            )
        if unsafe:
            warnings.warn(f"--trust: {path} is loaded with types that can run code: {', '.join(unsafe)}", stacklevel=3)
        return io.load(path, trusted=unknown)
    except InputError:
        raise
    except ImportError as error:  # a module of the user's
        raise InputError(f"{path} needs what is not installed ({one_line(error)}); is it on PYTHONPATH?") from error
    except Exception as error:
        raise InputError(f"{path} is not a readable skops file: {one_line(error)[:300]}") from error


def _classes(spec: str, found: Any) -> list[Any]:
    classes = getattr(found, "classes_", None)
    numbers = isinstance(found, BaseEstimator) and is_regressor(found)  # which raises for what is no estimator
    if hasattr(found, "predict") and not numbers and isinstance(classes, np.ndarray) and classes.ndim == 1:
        return list(classes.tolist())
    kind = type(found).__name__
    if isinstance(classes, list):
        raise InputError(f"{spec} is a {kind} of {len(classes)} outputs, expected a classifier of one")
    what = "which predicts numbers, not classes" if numbers else "and no fitted classifier"
    raise InputError(f"{spec} is a {kind}, {what}; expected one with classes_ and predict")


def _method(classifier: Any) -> str:
    return next((name for name in _SCORES if hasattr(classifier, name)), "predict")


def _check_shape(model: SklearnModel, described: Mapping[str, Any]) -> None:
    shape = described.get("input_shape")
    if shape is not None and model.features is not None and int(np.prod(shape)) != model.features:
        given = "x".join(map(str, shape))
        raise InputError(f"{model.name} takes {model.features} numbers a row, and input_shape={given} has others")
