"""One attack run, from a target and data to verified examples on disk. Killed at any moment, it can go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from bbox.attacks.base import Attack
from bbox.batch import Batch
from bbox.calibrate import calibrate, choose_threads
from bbox.code.bindings import encoded
from bbox.code.domain import Renaming
from bbox.data.base import CodeSet, Examples, MotionSet
from bbox.domain import Box, Domain
from bbox.engine import Job, Pool, drive, make_jobs
from bbox.errors import InputError, UsageError
from bbox.goal import Goal
from bbox.motion.domain import Tube
from bbox.oracle import UNKNOWN, Oracle, Purpose, StopReason
from bbox.results.code_figures import code_figures, textattack_csv
from bbox.results.code_names import count_names
from bbox.results.fits import check_fits, check_kind, match_classes
from bbox.results.metrics import default_checkpoints, default_epsilons, summarise
from bbox.results.records import SCHEMA_VERSION, Config, Example
from bbox.results.saved import read_program, saved_for
from bbox.results.store import RunFolder, StorageError
from bbox.targets.base import REFUSED, Target
from bbox.votes import most_frequent, vote
from bbox.zo import fold, root_keys, uniform

__all__ = ["Plan", "Progress", "ask_labels", "execute", "figures", "prepare"]

_TARGET_CLASS_STREAM = -7
_TUBE = 0.1  # metres
_COPIES = 11  # of a clean image or a saved file, for a target that answers at random: an odd number, so that votes end
# A probe of the number of threads asks up to 150 rows, one of the batch size up to 2,000: below these numbers of
# queries a run is not worth it.
_WORTH_THREADS, _WORTH_BATCH = 5_000, 40_000


@dataclass
class Progress:
    """What a progress display can show; updated after each forward."""

    phase: str = "probe"
    total: int = 0
    queries: int = 0
    finished: int = 0
    examples: int = 0
    distances: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A run that has been checked and not yet started.

    Shapes:
        data: the selected examples; goals: (n,) int64, class to leave or to reach; starts: (n, *shape) or ``None``.
    """

    config: Config
    attack: Attack
    oracle: Oracle
    data: Examples
    goals: Tensor | None
    starts: Tensor | None
    pool: Pool | None

    @property
    def queries_at_most(self) -> int:
        """Upper bound of the attack's queries."""
        total = len(self.data) * self.config.budget
        return total if self.config.max_queries is None else min(total, self.config.max_queries)


def prepare(config: Config, attack: Attack, target: Target, data: Examples, *, starts: Tensor | None = None) -> Plan:
    """Check everything that can be checked, and ask the target one row (on the ``probe`` ledger).

    Raises:
        UsageError: options that do not fit each other or the target.
        InputError: the target cannot take the data's images.
    """
    if attack.access == "none":
        raise UsageError(
            f"{config.attack} asks no target: bbox attack {config.attack} --data {config.data}, then bbox evaluate RUN "
            f"--target {config.target}"
        )
    check_kind(target, data)
    norms = attack.norms_on(data.takes)
    if not norms:
        raise UsageError(f"{config.attack} attacks {attack.takes}, and {data.name} holds {data.kind}")
    if attack.takes == "code" and config.norm == "l2":  # the default of images
        config = replace(config, norm=norms[0])
    if config.norm not in norms:
        has = " and ".join(norms) + (" on motions" if isinstance(data, MotionSet) else "")
        raise UsageError(f"{config.attack} minimises {has}, not {config.norm}; give --norm {norms[0]}")
    config = _for_motions(config) if isinstance(data, MotionSet) else _without_tube(config, data)
    if attack.access == "scores" and target.access == "labels":
        hint = "; give --search labels (experimental)" if attack.takes == "code" else ""
        raise UsageError(f"{config.attack} needs scores, and {target.name} answers labels only{hint}")
    quantize: Any = config.quantize
    data = match_classes(data, target)
    oracle = Oracle(target, max_batch=config.max_batch or 128, quantize=quantize, limit=config.max_queries)
    full = data
    data = data.select(limit=config.limit, indices=config.indices)
    shape = tuple(data.inputs.shape[1:])
    classes = check_fits(oracle, data)
    if full.labels is not None and classes is not None and int(full.labels.max()) >= classes:
        raise InputError(
            f"{data.name} has label {int(full.labels.max())}, but {target.name} has {classes} classes, "
            f"0 to {classes - 1}"
        )
    goals: Tensor | None = None
    pool = None if full.labels is None else Pool(full.inputs, full.labels)
    if pool is None and attack.takes == "code":  # names to take are there without classes, too
        pool = Pool(full.inputs, torch.zeros(len(full), dtype=torch.int64))
    attack.ready(pool, oracle.device)
    if config.target_class is not None:
        if data.labels is None:
            raise UsageError("a targeted attack needs labelled data")
        goals = _target_classes(config, data, classes)
        keep = (goals != data.labels).nonzero()[:, 0]
        if len(keep) == 0:
            raise UsageError(f"every chosen example is of class {config.target_class} already")
        data, goals = data.take(keep), goals[keep]
        starts = None if starts is None or len(starts) == 1 else starts[keep]
        if attack.takes != "code" and starts is None and not _in_pool(pool, goals) and config.start_from is None:
            missing = next(int(g) for g in goals if pool is None or not bool((pool.labels == g).any()))
            raise UsageError(f"{data.name} has none of class {missing} to start from; give --start-from")
    if starts is not None:
        if tuple(starts.shape[1:]) != shape or len(starts) not in (1, len(data)):
            raise UsageError(f"start points have shape {tuple(starts.shape)}, expected one or {len(data)} of {shape}")
        starts = starts.expand(len(data), *shape)
    return Plan(config, attack, oracle, data, goals, starts, pool)


def _for_motions(config: Config) -> Config:
    if config.quantize is not None:
        raise UsageError(f"quantize {config.quantize} is for images, and {config.data} holds motions; leave it out")
    return config if config.tube is not None else replace(config, tube=_TUBE)


def _without_tube(config: Config, data: Examples) -> Config:
    if config.tube is not None:
        raise UsageError(f"tube is for motions, and {data.name} holds {data.kind}; leave it out")
    return config


def _target_classes(config: Config, data: Examples, classes: int | None) -> Tensor:
    labels: Tensor | None = data.labels
    if labels is None:
        raise UsageError("a targeted attack needs labelled data")
    if isinstance(config.target_class, int):
        if config.target_class < 0 or (classes is not None and config.target_class >= classes):
            raise UsageError(f"target class {config.target_class} does not exist; the target has {classes} classes")
        return torch.full_like(labels, config.target_class)
    if config.target_class in (data.class_names or ()):
        names = data.class_names or ()
        return torch.full_like(labels, names.index(str(config.target_class)))
    if classes is None:
        raise UsageError("the target does not say how many classes it has; give the target class as a number")
    if config.target_class == "next":
        return (labels + 1) % classes
    if config.target_class == "random":
        draw = uniform(fold(root_keys(config.seed, data.indices), _TARGET_CLASS_STREAM), 1)[:, 0]
        return (labels + 1 + (draw * (classes - 1)).long()) % classes
    raise UsageError(f"target class is {config.target_class!r}, expected a number, a class by name, next or random")


def _in_pool(pool: Pool | None, goals: Tensor) -> bool:
    return pool is not None and all(bool((pool.labels == g).any()) for g in goals)


def execute(
    plan: Plan,
    folder: RunFolder,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    time_limit: float | None = None,
    threads: int | Literal["auto"] | None = None,
) -> dict[str, Any]:
    """Run the plan into the folder, or go on with what the folder holds; returns the content of ``results.json``.

    Args:
        on_progress: called after each forward.
        time_limit: seconds; what has not finished then stops with ``time_limit`` and keeps its best.
        threads: torch threads to set, ``"auto"`` to measure, ``None`` to leave them alone.

    Raises:
        TargetError: the target failed; the folder keeps what was answered.
    """
    oracle, data = plan.oracle, plan.data
    progress = Progress(total=plan.queries_at_most, examples=len(data))
    report = on_progress or (lambda _: None)
    record: dict[str, Any] = {}
    began = time.monotonic()
    session = folder.write_session({"seconds": 0.0})
    try:
        report(progress)
        _tune(plan, folder, threads)
        predicted = _clean(plan, folder, progress, report)
        scores = folder.clean_scores()  # once: for 1,000 classes it is a large table
        _skip_wrong(plan, folder, predicted, scores)
        done = folder.examples()
        progress.phase, progress.finished = "attack", len(done)
        progress.queries = sum(e.queries for e in done.values())
        progress.distances = [e.distance for e in done.values() if e.distance is not None]
        report(progress)
        attack_began = time.monotonic()

        def on_forward(jobs: Sequence[Job]) -> None:
            running = torch.cat([job.accounts.distance for job in jobs])
            progress.queries = spent + sum(int(job.accounts.spent.sum()) for job in jobs)
            progress.distances = finished + running.tolist()
            report(progress)

        oracle.paid = folder.answer_count()
        spent, finished = progress.queries, list(progress.distances)
        jobs = _jobs(plan, predicted, set(done))
        for job in drive(plan.attack, oracle, jobs, journal=folder, time_limit=time_limit, on_forward=on_forward):
            examples = _finish(plan, folder, job, predicted, scores)
            folder.write_examples(examples)
            spent += sum(e.queries for e in examples.values())
            finished += [e.distance if e.distance is not None else float("inf") for e in examples.values()]
            progress.finished += len(examples)
            progress.queries, progress.distances = spent, list(finished)
            report(progress)
        record["attack_seconds"] = time.monotonic() - attack_began
    finally:
        record |= {
            "seconds": time.monotonic() - began,
            "max_batch": oracle.max_batch,
            "threads": torch.get_num_threads(),
            "ledger": {purpose: asdict(ledger) for purpose, ledger in oracle.books.items()},
        }
        folder.write_session(record, session)
    if isinstance(data, CodeSet):
        everything = data.inputs if plan.pool is None else plan.pool.inputs
        count_names(folder, everything, functions=_functions(plan))
    results = figures(folder)
    folder.write_json("results.json", results)
    if isinstance(data, CodeSet):
        _write_back(data, folder)
    return results


def _write_back(data: CodeSet, folder: RunFolder) -> None:
    """Log the programs as TextAttack does, and write the adversarial ones in the format that the data came in."""
    folder.write_bytes("results.csv", encoded(textattack_csv(folder, data.class_names)))
    found = [(e.index, read_program(folder, "adversarial", e.index)) for e in folder.examples().values() if e.success]
    if data.origin is None or not found:
        return
    path = folder.path / "adversarial-data"
    try:
        data.origin.write(path, found)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; make room and go on with --resume") from error


def _tune(plan: Plan, folder: RunFolder, threads: int | Literal["auto"] | None) -> None:
    """Choose threads and batch size: what an earlier session of the run chose, or a probe if the run is worth one."""
    earlier = next((s for s in reversed(folder.sessions()) if "max_batch" in s), None)
    if isinstance(threads, int):
        torch.set_num_threads(threads)
    elif threads == "auto" and earlier is not None:
        torch.set_num_threads(earlier["threads"])
    elif threads == "auto" and plan.queries_at_most >= _WORTH_THREADS:
        choose_threads(plan.oracle, plan.data.inputs[0])
    elif threads == "auto":
        torch.set_num_threads(1)
    if plan.config.max_batch is None and earlier is not None:
        plan.oracle.max_batch = earlier["max_batch"]
    elif plan.config.max_batch is None and plan.queries_at_most >= _WORTH_BATCH:
        calibrate(plan.oracle, plan.data.inputs[0])


def figures(folder: RunFolder) -> dict[str, Any]:
    """The figures of a run, finished or not, computed from what is on disk."""
    run = folder.run()
    config = Config.from_json(run["config"])
    examples = list(folder.examples().values())
    checkpoints = config.checkpoints or default_checkpoints(config.budget, config.norm)
    code: dict[str, Any] = {}
    if config.norm == "names":
        functions = bool(run["attack"]["functions"])
        code = {"code": code_figures(folder, examples, checkpoints=checkpoints, functions=functions)}
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": len(examples) == run["data"]["examples"],
        "attack": config.attack,
        "target": config.target,
        "data": config.data,
        "norm": config.norm,
        "budget": config.budget,
        "seed": config.seed,
        "summary": summarise(
            examples,
            checkpoints=checkpoints,
            epsilons=config.epsilons or default_epsilons(run["data"]["shape"], config.norm),
        ),
        **code,
        "examples": [e.to_json() for e in examples],
    }


def ask_labels(oracle: Oracle, rows: Batch, purpose: Purpose) -> tuple[Tensor, Tensor | None]:
    """Labels of each row (m, copies), and its mean scores (m, classes) where there are scores.

    It is asked once, of a target that answers at random ``_COPIES`` times: the copies one after another and not side by
    side, so that no detector sees a row twice (``fresh``).
    """
    times = range(1 if oracle.target.deterministic else _COPIES)
    given = [oracle.ask(rows, purpose) for _ in times]
    scores = [answers.scores for answers in given if answers.scores is not None]
    return torch.stack([answers.labels for answers in given], 1), torch.stack(scores).mean(0) if scores else None


def _clean(plan: Plan, folder: RunFolder, progress: Progress, report: Callable[[Progress], None]) -> Tensor:
    """The target's answers to the originals, asked once a run (by vote), on a ledger of their own."""
    known = folder.clean_labels()
    if known is not None:
        return known
    progress.phase = "clean"
    report(progress)
    labels, scores = ask_labels(plan.oracle, plan.data.inputs, "clean")
    if plan.data.labels is None:
        labels = most_frequent(labels, labels != REFUSED)
    else:  # by the vote that verifies files, so that what is right here would not verify as it is
        labels = vote(labels, torch.arange(len(labels)), Goal(plan.data.labels))
    folder.write_clean(labels, scores)
    return labels


def _truth(plan: Plan, predicted: Tensor) -> Tensor:
    """The true labels; for data without labels, what the target says."""
    return predicted if plan.data.labels is None else plan.data.labels


def _goals(plan: Plan, predicted: Tensor) -> Tensor:
    """The class of each example to leave, or to reach."""
    return _truth(plan, predicted) if plan.goals is None else plan.goals


def _skip_wrong(plan: Plan, folder: RunFolder, predicted: Tensor, scores: Tensor | None) -> None:
    """Examples that the target gets wrong (or does not answer) from the start are not attacked.

    A refused original has no clean answer to leave, and its user is turned away without an attack: a false alarm, which
    counts against clean accuracy and not in the attack's figures.
    """
    truth, goals = _truth(plan, predicted), _goals(plan, predicted)
    reasons: dict[int, StopReason] = {UNKNOWN: "target_error", REFUSED: "refused"}
    wrong = ((predicted != truth) | (predicted < 0)).nonzero()[:, 0].tolist()
    saved = saved_for(plan.data, folder)
    for i in wrong:
        saved.keep(int(plan.data.indices[i]), plan.data.inputs[i])
    folder.write_examples(
        {
            i: Example(
                index=int(plan.data.indices[i]),
                id=plan.data.ids[i],
                label=int(truth[i]),
                predicted=int(predicted[i]),
                goal_label=int(goals[i]),
                stop_reason=reasons.get(int(predicted[i]), "already_wrong"),
                score=_score(scores, i, int(goals[i])),
            )
            for i in wrong
        }
    )


def _jobs(plan: Plan, predicted: Tensor, done: set[int]) -> Any:
    positions = torch.tensor([i for i in range(len(plan.data)) if i not in done], dtype=torch.int64)
    if len(positions) == 0:
        return iter(())
    return make_jobs(
        plan.data.inputs[positions],
        Goal(_goals(plan, predicted)[positions], targeted=plan.goals is not None),
        root_keys(plan.config.seed, plan.data.indices[positions]),
        plan.config.budget,
        device=plan.oracle.device,
        examples=positions,
        starts=None if plan.starts is None else plan.starts[positions],
        pool=plan.pool,
        domain=_domain(plan),
        stop_at=plan.config.stop_at,
    )


def _domain(plan: Plan) -> Domain:
    """Where the run's rows lie, and how their distances are measured."""
    if plan.attack.takes == "code":
        return Renaming(_functions(plan))
    norm: Any = plan.config.norm
    if isinstance(plan.data, MotionSet):
        return Tube(norm=norm, radius=plan.config.tube or _TUBE, axes=plan.data.skeleton.axes)
    return Box(norm=norm, levels=255 if plan.config.quantize == "8bit" else 0)


def _functions(plan: Plan) -> bool:
    """Whether an attack on code may rename functions as well."""
    return bool(getattr(plan.attack, "functions", False))


def _score(scores: Tensor | None, row: int, label: int) -> float | None:
    """A row's finite score of a class, ``None`` where there is none."""
    if scores is None or not 0 <= label < scores.shape[1]:
        return None
    value = float(scores[row, label])
    return value if math.isfinite(value) else None


def _finish(plan: Plan, folder: RunFolder, job: Job, predicted: Tensor, scores: Tensor | None) -> dict[int, Example]:
    """Save a finished group's adversarial examples, read them back, ask again, and measure what was read."""
    data, accounts, saved = plan.data, job.accounts, saved_for(plan.data, folder, functions=_functions(plan))
    truth, traces = _truth(plan, predicted), accounts.traces()
    found = torch.isfinite(accounts.distance).nonzero()[:, 0].tolist()
    position = job.examples.tolist()
    indices = data.indices[job.examples].tolist()
    files: dict[int, _Verified] = {}
    eights: dict[int, _Verified] = {}
    for row in set(range(len(accounts))) - set(found):
        saved.keep(indices[row], accounts.originals[row])
    if found:
        for row in found:
            saved.write(indices[row], accounts.originals[row], accounts.best[row])
        names = [indices[row] for row in found]
        originals, pictures = saved.read("originals", names), saved.pictures(names)
        files = _verify(plan, job, found, originals, saved.read("adversarial", names))
        eights = {} if pictures is None else _verify(plan, job, found, originals, pictures)
    examples = {}
    for row, place in enumerate(position):
        file, picture = files.get(row, _Verified()), eights.get(row)
        goal_label = int(accounts.goal.labels[row])
        examples[place] = Example(
            index=indices[row],
            id=data.ids[place],
            label=int(truth[place]),
            predicted=int(predicted[place]),
            goal_label=goal_label,
            stop_reason=accounts.stopped[row] or "interrupted",
            queries=int(accounts.spent[row]),
            success=file.success,
            adversarial_label=file.label,
            distance=file.distance,
            png_success=None if picture is None else picture.success,
            png_distance=None if picture is None else picture.distance,
            trace=tuple(zip(traces[row][0].tolist(), traces[row][1].tolist(), strict=True)),
            first_refused=folder.first_refused(place),
            first_adversarial=int(accounts.first[row]) or None,
            repeats=int(accounts.repeats[row]),
            score=_score(scores, place, goal_label),
            adversarial_score=file.score,
        )
    return examples


@dataclass(frozen=True)
class _Verified:
    """What the target says of a saved file: its label, whether that meets the goal, the score of the goal's class."""

    label: int | None = None
    success: bool = False
    distance: float | None = None
    score: float | None = None


def _verify(plan: Plan, job: Job, found: Sequence[int], originals: Batch, files: Batch) -> dict[int, _Verified]:
    """Ask files as they were read (``verify`` ledger), and measure them in float64. A file outside the domain, which
    has no finite distance, is no success."""
    rows = plan.oracle.admissible(files)
    rows = rows.cpu() if isinstance(rows, Tensor) else rows
    copies, scores = ask_labels(plan.oracle, rows, "verify")
    owner, goal = torch.tensor(found), job.problem.goal
    labels = vote(copies, owner, goal)
    distance = job.accounts.domain.distance(originals, rows)
    met = goal.met(labels, owner) & (labels >= 0) & torch.isfinite(distance)
    return {
        row: _Verified(
            label=int(labels[i]),
            success=bool(met[i]),
            distance=float(distance[i]) if math.isfinite(float(distance[i])) else None,
            score=_score(scores, i, int(goal.labels[row])),
        )
        for i, row in enumerate(found)
    }
