"""The library call: attack a model, get verified adversarial examples."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbox import targets
from bbox.attacks import make_attack
from bbox.attacks.base import Attack
from bbox.batch import Batch, put
from bbox.code.program import Programs
from bbox.data.base import CodeSet, Dataset, Examples
from bbox.domain import Norm
from bbox.engine import Job
from bbox.errors import TargetError, UsageError
from bbox.oracle import Ledger
from bbox.results.plan import Plan, prepare
from bbox.results.records import Config, Example
from bbox.results.run import Progress, execute, figures
from bbox.results.saved import saved_for
from bbox.results.session import describe_run
from bbox.results.store import RunFolder
from bbox.targets.base import Target

__all__ = ["AttackResult", "attack", "examples_of"]


@dataclass(frozen=True)
class AttackResult:
    """What an attack found.

    Shapes (n examples, in the order they were given):
        adversarial: (n, *shape) float32, or n programs; the original where nothing was found.
        success: (n,) bool, verified: the saved example, read back, fooled the target again.
        distance: (n,) float64, in the norm asked for; inf without success.
        queries: (n,) int64.

    Attributes:
        examples: stop reason, labels and trace of each.
        summary: the figures of ``results.json``.
        ledgers: queries by purpose (attack, clean, verify, probe).
        folder: the run folder, where one was asked for.
    """

    adversarial: Any
    success: Tensor
    distance: Tensor
    queries: Tensor
    examples: tuple[Example, ...]
    summary: dict[str, Any]
    ledgers: dict[str, Ledger]
    folder: Path | None


def attack(
    target: Any,
    inputs: Tensor | np.ndarray[Any, Any] | Programs | Sequence[str] | Examples,
    labels: Tensor | Sequence[int] | None = None,
    attack: str | Attack = "cgba",
    *,
    budget: int = 1000,
    options: Mapping[str, object] | None = None,
    seed: int = 0,
    target_class: int | str | None = None,
    starts: Tensor | None = None,
    max_queries: int | None = None,
    norm: Norm = "l2",
    stop_at: float | None = None,
    tube: float | None = None,
    quantize: str | None = None,
    epsilons: Sequence[float] = (),
    checkpoints: Sequence[int] = (),
    max_batch: int | None = 128,
    patience: float = 60.0,
    max_requests: int | None = None,
    cache: str | Path | None = None,
    engine: str = "local",
    workers: int = 2,
    out: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> AttackResult:
    """Attack a model under a hard query budget for each example.

    Code is attacked by the same call: ``bbox.attack(scores_of_sources, Programs(...), labels, "alert")``.

    Args:
        target: a torch module, a callable, a foolbox model, a ``bbox.targets.Target``, or a spec such as
            ``"zoo:digits"``. For code, a callable from a list of sources to scores or labels.
        inputs: (n, channels, height, width) in [0, 1]; or ``bbox.code.Programs``; or a data set of ``bbox.data.load``,
            as motions must be, which brings its labels.
        labels: (n,) true classes; without them, what the target says first.
        attack: a name (``bbox list attacks``) or an attack.
        budget: queries an example; the target never sees one more.
        options: the attack's options, where it is given by name.
        target_class: a class index, ``"next"`` or ``"random"`` for a targeted attack.
        starts: (n or 1, channels, height, width), adversarial points to start from.
        max_queries: queries of the whole attack.
        norm: ``"l2"`` or ``"linf"``, one of the attack's norms: what distances are measured in.
        stop_at: an example stops at this distance.
        tube: motions: metres that a coordinate may move, default 0.1.
        quantize: ``"8bit"``: the target sees images rounded to 8 bits.
        epsilons, checkpoints: distances and query counts of the summary.
        max_batch: rows a forward; ``None`` measures (a probe on the books).
        patience: seconds that a live target may be silent before the attack stops with a ``TargetError``.
        max_requests: requests to a live target, retries among them, a hard limit.
        cache: file of the query cache: rows that any run has asked before are not asked again. Only for a target that
            answers a row always alike.
        engine: ``"ray"`` shares the examples out over ``workers`` Ray actors; the target must be a spec then.
        out: a run folder to write, so that the run can be resumed and reported; without one nothing stays on disk.

    Raises:
        UsageError, InputError: arguments or data that do not fit, each in one line.
        TargetError: the target failed; its ``result`` holds what was found until then. Of examples that were still
            running it holds the closest row so far, without ``success``: that was not verified.

    Example:
        >>> import bbox
        >>> digits = bbox.data.load("zoo:digits").select(limit=4)
        >>> result = bbox.attack("zoo:digits", digits.inputs, digits.labels, budget=200)
        >>> bool(result.success.all()), result.queries.tolist()
        (True, [200, 200, 200, 200])
    """
    if isinstance(attack, str):
        name, made = attack, make_attack(attack, options)
    else:
        name, made = type(attack).__name__, attack
        if options:
            raise UsageError("options go with an attack's name; this attack has its own already")
    if engine == "ray" and not isinstance(target, str):
        raise UsageError("workers of Ray load the target themselves: give a spec such as 'torch:my.module:factory'")
    given = inputs if isinstance(inputs, Examples) else examples_of(inputs, labels)
    wrapped = _target(target, given)
    config = Config(
        attack=name,
        attack_options=dict(options or {}),
        target=target if isinstance(target, str) else wrapped.name,
        data=given.name,
        seed=seed,
        budget=budget,
        max_queries=max_queries,
        target_class=target_class,
        quantize=quantize,
        norm=norm,
        stop_at=stop_at,
        tube=tube,
        epsilons=tuple(epsilons),
        checkpoints=tuple(checkpoints),
        max_batch=max_batch,
        patience=patience,
        max_requests=max_requests,
        cache=None if cache is None else str(cache),
        engine=engine,
        workers=workers,
    )
    plan = prepare(config, made, wrapped, given, starts=starts)
    with ExitStack() as stack:
        path = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bbox-")))
        described = describe_run(plan, f"bbox.attack(..., attack={name!r}, budget={budget})")
        folder = stack.enter_context(RunFolder.create(path, described))
        saved = None if out is None else path
        try:
            execute(plan, folder, on_progress=on_progress)
        except TargetError as error:
            error.result = _result(plan, folder, saved, error.unfinished)
            raise
        return _result(plan, folder, saved)


def _result(plan: Plan, folder: RunFolder, out: Path | None, unfinished: Sequence[Job] = ()) -> AttackResult:
    """What the folder holds, and what was found for the examples that were running when the target failed."""
    finished = folder.examples()
    n = len(plan.data)
    adversarial: Batch = plan.data.inputs.clone()
    success = torch.zeros(n, dtype=torch.bool)
    distance = torch.full((n,), torch.inf, dtype=torch.float64)
    queries = torch.zeros(n, dtype=torch.int64)
    saved = saved_for(plan.data, folder)
    for row, example in finished.items():
        queries[row] = example.queries
        if example.success and example.distance is not None:
            put(adversarial, torch.tensor([row]), saved.read("adversarial", [example.index]))
            success[row], distance[row] = True, example.distance
    for job in unfinished:
        best = job.accounts.best
        put(adversarial, job.examples, best.cpu() if isinstance(best, Tensor) else best)
        distance[job.examples], queries[job.examples] = job.accounts.distance, job.accounts.spent
    return AttackResult(
        adversarial=adversarial,
        success=success,
        distance=distance,
        queries=queries,
        examples=tuple(finished.values()),
        summary=figures(folder)["summary"],
        ledgers={str(purpose): ledger for purpose, ledger in plan.oracle.books.items()},
        folder=out,
    )


def _target(target: Any, given: Examples) -> Target:
    if isinstance(target, str):
        return targets.load(target)
    if isinstance(target, Target) or not isinstance(given, CodeSet):
        return targets.wrap(target)
    from bbox.targets.code import wrap

    return wrap(target)


def examples_of(
    inputs: Tensor | np.ndarray[Any, Any] | Programs | Sequence[str], labels: Tensor | Sequence[int] | None
) -> Examples:
    """Inputs of a library call as a data set. Shapes: as ``bbox.attack`` takes them."""
    classes = None if labels is None else torch.as_tensor(labels).detach().to("cpu", torch.int64)
    numbers = torch.arange(len(inputs))
    ids = tuple(f"{i}" for i in range(len(inputs)))
    if isinstance(inputs, Programs):
        return CodeSet(name="inputs", inputs=inputs, labels=classes, indices=numbers, ids=ids)
    if len(inputs) and isinstance(inputs[0], str):
        raise UsageError("inputs are text; give bbox.code.Programs, which say in which language they are")
    images = torch.as_tensor(inputs).detach().cpu()
    images = images.float() if images.dtype == torch.float64 else images
    return Dataset(name="inputs", inputs=images, labels=classes, indices=numbers, ids=ids)
