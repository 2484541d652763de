"""What simpler means reach with the same labelled images and budget, measured on the same held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from bbox.defenses.blackvip.adapt import prompted
from bbox.defenses.blackvip.adapters import LocalClassifier, OutputAdapter
from bbox.defenses.blackvip.fit import Split, adapt_prompter, look
from bbox.defenses.blackvip.objective import Objective
from bbox.defenses.blackvip.prompters import Prompter, Reprogram, UniversalPrompt
from bbox.defenses.books import Books, Journal
from bbox.errors import UsageError
from bbox.oracle import Answers, Oracle
from bbox.targets.base import Target
from bbox.targets.torch_module import TorchTarget
from bbox.zo import SPSA, Adam, Gains

if TYPE_CHECKING:
    from bbox.defenses.blackvip import BlackVIP

__all__ = ["METHODS", "Comparison", "check_methods", "mcnemar"]

METHODS = ("output", "local", "vp", "bar", "white-box", "vp-white-box")
_NAMES = {
    "zero-shot": "zero-shot",
    "blackvip": "BlackVIP",
    "vp": "VP with SPSA-GC",
    "bar": "BAR",
    "output": "output adapter",
    "local": "local classifier",
    "white-box": "coordinator, white box",
    "vp-white-box": "VP, white box",
}
_WHITE = ("white-box", "vp-white-box")  # ceilings: never recommended
_PROMPTS = ("blackvip", "vp", "bar")
_ALPHA = 0.05
# Steps and widths in units of a parameter: a pixel for VP, the logit of one for BAR.
_VP_STEP = 0.005
_BAR_STEP, _BAR_WIDTH = 1.0, 0.1
_WHITE_STEPS, _WHITE_RATE = 300, 0.01


def check_methods(options: BlackVIP, target: Target) -> None:
    """Refuse baselines that the target or the mapping does not allow, before anything is paid.

    Raises:
        UsageError: a white box of what is no torch module, or behind a label mapping.
    """
    white = [method for method in options.methods() if method in _WHITE]
    if white and not isinstance(target, TorchTarget):
        raise UsageError(f"the baseline {white[0]} needs the model itself; {target.name} is no torch module")
    if white and options.mapping != "identity":
        raise UsageError(f"the baseline {white[0]} knows no label mapping; leave it out")


class Comparison:
    """Fit the baselines that the options name and measure all on the test images.

    Queries: at most ``budget`` for each of VP and BAR and one a training image for the output adapter, on the ledger
    ``baseline``; one a test image for each row of the table but the adapters', on the ledger ``evaluate``.

    Shapes:
        training, test: images (n, channels, height, width) in [0, 1], and labels (n,) int64.

    ``run`` returns ``rows`` (method, name, accuracy, interval, p_value against zero-shot, queries, calls, correct: a
    character an image), ``recommended``, ``improved`` and ``advice``.
    """

    def __init__(
        self,
        options: BlackVIP,
        oracle: Oracle,
        training: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        budget: int,
        seed: int,
        journal: Journal | None,
        report: Callable[[str, int, int], None],
    ) -> None:
        if options.prompt is None:
            raise UsageError("blackvip must be fitted before it is compared")
        self.options, self.prompt = options, options.prompt.to(oracle.device)
        self.oracle, self.budget, self.seed = oracle, budget, seed
        self.journal, self.report = journal, report
        device = oracle.device
        self.split = Split(training[0].to(device), training[1], options.selection, seed)
        self.test, self.labels = test[0].to(device), test[1].cpu()
        self.rows: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        methods, prompt = self.options.methods(), self.prompt
        books = Books(self.oracle, {}, self.journal, ledger="baseline")
        objective = Objective(books)
        shown = look(self.options, objective, self.split, ("fit", "fit")) if "output" in methods else None
        evaluated = Books(self.oracle, {}, self.journal)
        raw = Objective(evaluated).answers(self.test, "evaluate")
        objective = replace(objective, books=evaluated, mapping=prompt.mapping)
        self._add("zero-shot", objective.labels(raw.cpu()), 0, 0)
        answers = raw
        if not prompt.identity:
            parts = [prompt(part) for part in torch.split(self.test, 256)]
            answers = objective.answers(torch.cat(parts), "evaluate")
        self._add("blackvip", objective.labels(answers.cpu()), *prompt.cost)
        for method in methods:
            if shown is not None and method == "output":
                adapter = OutputAdapter()
                adapter.fit(_as_answers(shown), self.split.labels.cpu(), self.split.classes)
                self._add(method, adapter.scores(_as_answers(raw)).argmax(1), books.spent["fit"], books.calls)
            elif method == "local":
                local = LocalClassifier(prompt.coordinator.encoder)
                local.fit(self.split.images, self.split.labels, self.split.classes)
                self._add(method, local.scores(self.test).argmax(1).cpu(), 0, 0)
            elif method in _WHITE:
                self._white_box(method)
            else:
                self._prompt(method)
        return {"rows": self.rows, "images": len(self.labels), **_verdict(self.rows)}

    def _prompt(self, method: str) -> None:
        """VP or BAR, under the same budget."""
        options, shape = self.options, _shape(self.test)
        schedule = options.schedule()
        prompter: Prompter
        if method == "vp":
            prompter = UniversalPrompt(shape)
            schedule = replace(schedule, gains=replace(schedule.gains, a=_VP_STEP))
        else:
            prompter = Reprogram(shape)
            # One-sided RGF and plain descent, as published; directions have length 1, so that a width a coordinate is
            # sqrt(dim) times as large along them.
            width = _BAR_WIDTH * math.sqrt(prompter.dim)
            gains = Gains(_BAR_STEP, width, alpha=schedule.gains.alpha, gamma=schedule.gains.gamma)
            schedule = replace(schedule, spsa=SPSA(options.k, 1, "sphere"), optimizer="spsa", gains=gains)
        books = Books(self.oracle, {}, self.journal, max_calls=options.max_calls or None, ledger="baseline")
        found, objective = adapt_prompter(
            options,
            prompter,
            schedule,
            books,
            self.split,
            self.budget,
            self.seed,
            lambda stage, done, total: self.report(f"{method}: {stage}", done, total),
        )
        rows = self.test
        if not found.identity:
            context = prompter.context(rows)
            rows = prompted(prompter, found.weights, rows, context, found.statistics)
        objective = replace(objective, books=Books(self.oracle, {}, self.journal))
        labels = objective.labels(objective.answers(rows, "evaluate").cpu())
        self._add(method, labels, sum(books.spent.values()), books.calls, found.figures)

    def _white_box(self, method: str) -> None:
        """The prompter by the model's own gradient: a ceiling, not a method for black boxes. Its forwards are free."""
        target, prompt = self.oracle.target, self.prompt
        if not isinstance(target, TorchTarget):
            raise UsageError(f"the baseline {method} needs the model itself; {target.name} is no torch module")
        prompter: Prompter = prompt.coordinator if method == "white-box" else UniversalPrompt(_shape(self.test))
        images, labels = self.split.images, self.split.labels
        context = prompter.context(images)
        weights, adam = prompter.start(self.seed).to(images.device), Adam()
        generator = torch.Generator().manual_seed(self.seed)
        for step in range(_WHITE_STEPS):
            place = torch.randperm(len(images), generator=generator)[:64].to(images.device)
            at = weights.clone().requires_grad_(True)
            rows = prompter.rows(at[None], images[place], context[place])[0]
            loss = torch.nn.functional.cross_entropy(target.with_gradient(rows), labels[place])
            (gradient,) = torch.autograd.grad(loss, at)
            weights = adam.step(weights, gradient, _WHITE_RATE * (1 - step / _WHITE_STEPS))
        statistics = prompter.statistics(weights, images, context)
        rows = prompted(prompter, weights, self.test, prompter.context(self.test), statistics)
        with torch.no_grad():
            found = torch.cat([target.with_gradient(part) for part in torch.split(rows, 256)])
        self._add(method, found.argmax(1).cpu(), None, None)

    def _add(
        self,
        method: str,
        labels: Tensor,
        queries: int | None,
        calls: int | None,
        figures: dict[str, Any] | None = None,
    ) -> None:
        correct = labels.cpu() == self.labels
        count, n = int(correct.sum()), len(correct)
        interval = binomtest(count, n).proportion_ci(method="wilson")
        row = {
            "method": method,
            "name": _NAMES[method],
            "accuracy": count / n,
            "interval": [float(interval.low), float(interval.high)],
            "queries": queries,
            "calls": calls,
            "p_value": None,
            "correct": "".join("1" if hit else "0" for hit in correct.tolist()),
        }
        if self.rows:
            row["p_value"] = mcnemar(self.rows[0]["correct"], str(row["correct"]))
        if figures is not None:
            row["fit"] = figures
        self.rows.append(row)


def mcnemar(before: str, after: str) -> float:
    """The exact two-sided p-value that two classifiers are right equally often, paired by image.

    >>> mcnemar("0000011", "1111111")
    0.0625
    """
    gained = sum(b < a for b, a in zip(before, after, strict=True))
    lost = sum(b > a for b, a in zip(before, after, strict=True))
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether the prompt is worth it, in plain words."""
    by = {row["method"]: row for row in rows}
    zero, prompt = by["zero-shot"], by["blackvip"]
    able = [row for row in rows if row["method"] not in _WHITE]
    best = max(able, key=lambda row: row["accuracy"])
    improved = prompt["accuracy"] > zero["accuracy"] and prompt["p_value"] < _ALPHA
    advice = []
    if improved:
        advice.append(f"the prompt is better than no prompt: {_percent(prompt)} against {_percent(zero)}")
    else:
        advice.append(
            f"not improved: the prompt has {_percent(prompt)}, no prompt {_percent(zero)} "
            f"(p = {1.0 if prompt['p_value'] is None else prompt['p_value']:.2g})"
        )
    if best["method"] not in _PROMPTS and best["method"] != "zero-shot":
        advice.append(
            f"the {best['name']} is best on these images: {_percent(best)}. Take a prompt only where the service must "
            "stay an image-in, prediction-out endpoint whose answers other code reads, or where nothing but the input "
            "can be touched"
        )
    elif best["method"] in ("vp", "bar"):
        advice.append(f"{best['name']} is best on these images: {_percent(best)}, with one prompt for all images")
    return {"recommended": best["method"], "improved": improved, "advice": advice}


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f}%"


def _as_answers(raw: Tensor) -> Answers:
    raw = raw.cpu()
    if raw.ndim == 1:
        return Answers(raw.long(), None)
    usable = raw.amax(1).isfinite()  # as the oracle has it: a class may be masked with -inf
    return Answers(raw.argmax(1).masked_fill(~usable, -1), raw)


def _shape(images: Tensor) -> tuple[int, int, int]:
    return images.shape[1], images.shape[2], images.shape[3]
