"""BlackVIP: an input-dependent visual prompt in front of a black box, trained by its answers alone.

Oh, Hwang, Lee, Lim, Jung, Jung, Choi, Song: "BlackVIP: Black-Box Visual Prompting for Robust Transfer Learning",
CVPR 2023. The adapted model answers f(clip(x + scale * h(x))), where the coordinator h is a frozen encoder, a trainable
trigger and a light decoder, trained by SPSA with gradient correction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bbox.defenses.base import TrainedDefense, Wrapped
from bbox.defenses.blackvip import encoders
from bbox.defenses.blackvip.compare import METHODS, Comparison, check_methods
from bbox.defenses.blackvip.decoder import Backend, Norm
from bbox.defenses.blackvip.fit import LEAST, fit_prompt
from bbox.defenses.blackvip.prompt import Prompt
from bbox.defenses.blackvip.prompters import Coordinator
from bbox.defenses.blackvip.train import Optimizer, Schedule
from bbox.defenses.books import Books, Journal
from bbox.defenses.label_mapping import LabelMapping
from bbox.errors import InputError, UsageError
from bbox.oracle import Oracle
from bbox.targets.base import Target
from bbox.zo import SPSA, Gains

__all__ = ["BlackVIP", "Prompt"]


@dataclass
class BlackVIP(TrainedDefense):
    """Visual prompting of a black box by SPSA-GC.

    Queries: at most the budget of ``fit``: one for each labelled image, at most 768 to probe the perturbation's size,
    four looks at the held-out part, and ``k`` + 1 (one-sided) or 2 ``k`` for each image of a step.

    Args:
        encoder: frozen features: pca, pca:32, hf:PATH_OR_ID, torchvision:NAME,weights=PATH, torch:MODULE:FACTORY.
        k: random directions a step, asked together.
        sides: 1 (w and w + c u) or 2 (w + c u and w - c u).
        law: rademacher directions, or segmented ones as published.
        optimizer: spsa-gc, spsa, adam, or cma-es (needs the extra cma).
        momentum: of the gradient correction.
        a: step size; estimates are clipped to RMS 1, so a parameter moves by at most about a / (1 - momentum) a step.
        c: perturbation size, 0 to probe it.
        alpha, gamma: exponents with which a and c fall.
        clip: clip the estimate at norm sqrt(parameters).
        averaging: weight of the old average in the running average of the weights that is kept; 0 keeps the last.
        batch: images a step.
        scale: the prompt's scale, in pixels of [0, 1].
        trigger_scale: what the trigger's parameters are multiplied with.
        norm: group, batch (as published) or none.
        init: zero (the first prompt is none) or random (as published).
        guard: go back when the running loss is this many times the zero-shot loss; 0 never does.
        selection: part of the labelled images that only chooses among checkpoints.
        mapping: identity, frequency or iterative, for a model with other classes.
        max_calls: calls to the model, a second hard limit beside the budget of images; 0 for none.
        backend: how decoders run: bmm, loop or vmap.
        baselines: what is fitted beside it: output, local, vp, bar, white-box, vp-white-box; none for nothing.
        workers: 0 asks all directions of a step together; else so many threads share them, and the model is asked by
            one at a time.
    """

    summary: ClassVar[str] = "an input-dependent visual prompt, trained by queries alone"
    needs: ClassVar[tuple[str, ...]] = ("input",)
    cost: ClassVar[str] = "a forward of the encoder and of a small decoder a query"
    weakness: ClassVar[str] = "it adapts a model to data and stops no attack; attack the prompted target end to end"
    labelled: ClassVar[bool] = True
    least: ClassVar[int] = LEAST
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # 0.27 in pixels is 1 in the units of CLIP's normalised images, where the paper adds its prompt.
        "cvpr23": {
            "k": 5,
            "sides": 2,
            "law": "segmented",
            "a": 0.01,
            "c": 0.01,
            "clip": False,
            "averaging": 0.0,
            "batch": 128,
            "scale": 0.27,
            "trigger_scale": 1.0,
            "norm": "batch",
            "init": "random",
            "guard": 0.0,
        },
    }

    encoder: Any = "pca"
    k: int = 8
    sides: int = 2
    law: Literal["rademacher", "segmented"] = "rademacher"
    optimizer: Optimizer = "spsa-gc"
    momentum: float = 0.9
    a: float = 0.003
    c: float = 0.0
    alpha: float = 0.4
    gamma: float = 0.1
    clip: bool = True
    averaging: float = 0.9
    batch: int = 16
    scale: float = 0.3
    trigger_scale: float = 30.0
    norm: Norm = "group"
    init: Literal["zero", "random"] = "zero"
    guard: float = 2.0
    selection: float = 0.2
    mapping: Literal["identity", "frequency", "iterative"] = "identity"
    max_calls: int = 0
    backend: Backend = "bmm"
    baselines: str = "output,local,vp,bar"
    workers: int = 0
    prompt: Prompt | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("k", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.sides not in (1, 2):
            raise UsageError(f"sides is {self.sides}, expected 1 or 2")
        if self.optimizer == "cma-es" and SPSA(self.k, self.sides).evaluations < 4:
            raise UsageError(f"k is {self.k}, and cma-es needs a population of 4 at least (2 k, one-sided k + 1)")
        if self.optimizer == "cma-es" and self.workers:
            raise UsageError("cma-es runs in one process; leave out workers")
        for name in ("a", "scale", "trigger_scale"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name):g}, expected more than 0")
        for name in ("c", "alpha", "gamma", "guard", "max_calls", "workers"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name):g}, expected 0 or more")
        for name in ("momentum", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name):g}, expected from 0 to below 1")
        if not 0 < self.selection < 1:
            raise UsageError(f"selection is {self.selection:g}, expected between 0 and 1")
        unknown = set(self.methods()) - set(METHODS)
        if unknown:
            raise UsageError(f"baselines names {min(unknown)!r}, expected some of {', '.join(METHODS)}, or none")

    def methods(self) -> tuple[str, ...]:
        """The baselines that the options name."""
        named = tuple(part.strip() for part in self.baselines.split(",") if part.strip())
        return () if named == ("none",) else named

    def schedule(self) -> Schedule:
        """How the options say to train."""
        return Schedule(
            SPSA(self.k, self.sides, self.law),
            Gains(self.a, self.c, alpha=self.alpha, gamma=self.gamma),
            self.batch,
            self.optimizer,
            self.momentum,
            self.clip,
            averaging=self.averaging,
            guard=self.guard,
        )

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
        """Train on labelled images. See ``TrainedDefense.fit``.

        Raises:
            UsageError: no labels, too few images, or too small a budget.
            InputError: the answers cannot be used, or are of other classes than the labels (``mapping``).
        """
        if labels is None:
            raise UsageError("blackvip learns from labelled images, and the data has no labels")
        check_methods(self, oracle.target)
        books = Books(oracle, {}, journal, max_calls=self.max_calls or None)
        self.prompt, figures = fit_prompt(self, books, images, labels, budget, seed, report or (lambda *_: None))
        return figures

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
    ) -> dict[str, Any]:
        progress = report or (lambda *_: None)
        return Comparison(self, oracle, training, test, budget, seed, journal, progress).run()

    def comparison_queries(self, budget: int, training: int, test: int) -> int:
        methods = self.methods()
        searches = sum(method in ("vp", "bar") for method in methods)
        return (2 + searches) * test + searches * budget + (training if "output" in methods else 0)

    def wrap(self, target: Target) -> Target:
        if self.prompt is None:
            raise UsageError("blackvip must be fitted first: bbox defend blackvip, then defended:RUN")
        return _Prompted(target, self, self.prompt.to(target.device))

    def make_coordinator(
        self, encoder: encoders.Encoder, shape: tuple[int, int, int], **statistics: Any
    ) -> Coordinator:
        """The coordinator that the options describe, around an encoder."""
        return Coordinator(
            encoder,
            shape,
            scale=self.scale,
            trigger_scale=self.trigger_scale,
            norm=self.norm,
            zero=self.init == "zero",
            backend=self.backend,
            **statistics,
        )

    def state(self) -> tuple[Mapping[str, object], Mapping[str, Tensor]]:
        prompt = self.prompt
        if prompt is None:
            return {}, {}
        structure, kept = prompt.coordinator.encoder.state()
        tensors = {"weights": prompt.weights, **{f"encoder.{name}": tensor for name, tensor in kept.items()}}
        for name in ("center", "spread"):
            value = getattr(prompt.coordinator, name)
            if value is not None:
                tensors[name] = value
        for i, (mean, variance) in enumerate(prompt.statistics or ()):
            tensors |= {f"norm{i}.mean": mean, f"norm{i}.variance": variance}
        return {
            "shape": list(prompt.shape),
            "identity": prompt.identity,
            "encoder": structure,
            "mapping": None if prompt.mapping is None else prompt.mapping.structure(),
            "cost": list(prompt.cost),
        }, tensors

    def restore(self, structure: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        try:
            kept = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
            given = self.encoder if callable(self.encoder) else None
            encoder = encoders.restore(structure["encoder"], kept, device="cpu", given=given)
            channels, height, width = (int(size) for size in structure["shape"])
            shape = (channels, height, width)
            identity, (queries, calls) = bool(structure["identity"]), structure["cost"]
            mapping = None if structure["mapping"] is None else LabelMapping.from_structure(structure["mapping"])
            statistics = {name: tensors[name] for name in ("center", "spread") if name in tensors}
            coordinator = self.make_coordinator(encoder, shape, **statistics)
            # Without its statistics a batch norm would serve with those of the rows that come together.
            norms = coordinator.decoder.stages if self.norm == "batch" and not identity else ()
            expected = {"weights": (coordinator.dim,)}
            expected |= {name: (encoder.dim,) for name in ("center", "spread") if statistics}
            expected |= {
                f"norm{i}.{part}": (out,) for i, (*_, out) in enumerate(norms) for part in ("mean", "variance")
            }
            for name, size in expected.items():
                if tuple(tensors[name].shape) != size:
                    raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, expected {size}")
            seen = [(tensors[f"norm{i}.mean"], tensors[f"norm{i}.variance"]) for i in range(len(norms))] or None
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the weights are not those of this blackvip: {reason[:200]}") from error
        self.prompt = Prompt(
            coordinator, tensors["weights"], seen, mapping, identity, shape, (int(queries), int(calls))
        )


class _Prompted(Wrapped):
    """The black box behind a prompt."""

    def __init__(self, inner: Target, defense: BlackVIP, prompt: Prompt) -> None:
        super().__init__(inner, defense, name="blackvip")
        self._prompt = prompt
        if prompt.mapping is not None:
            self.num_classes = len(prompt.mapping.sources)

    def __call__(self, rows: Tensor) -> Tensor:
        with torch.no_grad():
            answers = self.inner(self._prompt(rows.to(self.device, torch.float32)))
        return answers if self._prompt.mapping is None else self._prompt.mapping(answers)
