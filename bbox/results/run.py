"""One attack run, from a target and data to verified examples on disk. Killed at any moment, it can go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from bbox.calibrate import calibrate, choose_threads
from bbox.code.bindings import encoded
from bbox.data.base import CodeSet
from bbox.engine import Job, drive
from bbox.goal import Goal
from bbox.oracle import UNKNOWN, StopReason
from bbox.problem import Done
from bbox.results.code_figures import code_figures, textattack_csv
from bbox.results.code_names import count_names
from bbox.results.metrics import default_checkpoints, default_epsilons, summarise
from bbox.results.outcome import ask_labels, finish, functions, goal_labels, score, true_labels
from bbox.results.plan import Plan
from bbox.results.records import SCHEMA_VERSION, Config, Example
from bbox.results.saved import read_program, saved_for
from bbox.results.shard import Shard
from bbox.results.store import RunFolder, StorageError
from bbox.targets.base import REFUSED
from bbox.votes import most_frequent, vote

__all__ = ["Progress", "execute", "figures"]

_WRITE_SECONDS = 5.0  # between two records of what the session has cost: of a killed one at most so much is not known
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
    record: dict[str, Any] = {"ended": False}
    began = time.monotonic()
    session = folder.write_session({"seconds": 0.0})
    written = began
    if plan.purse is not None:
        plan.purse.kept_by(folder.write_requests)

    def write() -> None:
        record.update(
            seconds=time.monotonic() - began,
            max_batch=oracle.max_batch,
            threads=torch.get_num_threads(),
            ledger={purpose: asdict(ledger) for purpose, ledger in oracle.books.items()},
            price_per_1k=plan.config.price_per_1k,
        )
        folder.write_session(record, session)

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
            nonlocal written
            if time.monotonic() - written > _WRITE_SECONDS:
                write()
                written = time.monotonic()
            running = torch.cat([job.accounts.distance for job in jobs])
            progress.queries = spent + sum(int(job.accounts.spent.sum()) for job in jobs)
            progress.distances = finished + running.tolist()
            report(progress)

        def on_answers(count: int) -> None:
            progress.queries += count
            report(progress)

        oracle.paid = folder.answer_count()
        spent, finished = progress.queries, list(progress.distances)
        shard = _remaining(plan, predicted, done)
        running: Iterator[Done]
        if plan.config.engine == "ray":
            from bbox.results.ray_engine import drive_sharded

            running = drive_sharded(plan, folder, shard, time_limit=time_limit, on_answers=on_answers)
        else:
            jobs = shard.jobs(oracle.device, plan.pool)
            running = drive(plan.attack, oracle, jobs, journal=folder, time_limit=time_limit, on_forward=on_forward)
        for job in running:
            examples = finish(plan, folder, job, predicted, scores)
            folder.write_examples(examples)
            spent += sum(e.queries for e in examples.values())
            finished += [e.distance if e.distance is not None else float("inf") for e in examples.values()]
            progress.finished += len(examples)
            progress.queries, progress.distances = max(spent, progress.queries), list(finished)
            report(progress)
        record["attack_seconds"] = time.monotonic() - attack_began
    finally:
        oracle.terms.settle()
        if oracle.cache is not None:
            oracle.cache.close()
        record["ended"] = True
        write()
    if isinstance(data, CodeSet):
        everything = data.inputs if plan.pool is None else plan.pool.inputs
        count_names(folder, everything, functions=functions(plan))
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


def _skip_wrong(plan: Plan, folder: RunFolder, predicted: Tensor, scores: Tensor | None) -> None:
    """Examples that the target gets wrong (or does not answer) from the start are not attacked.

    A refused original has no clean answer to leave, and its user is turned away without an attack: a false alarm, which
    counts against clean accuracy and not in the attack's figures.
    """
    truth, goals = true_labels(plan, predicted), goal_labels(plan, predicted)
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
                score=score(scores, i, int(goals[i])),
            )
            for i in wrong
        }
    )


def _remaining(plan: Plan, predicted: Tensor, done: Collection[int]) -> Shard:
    """The examples that are not finished."""
    positions = torch.tensor([i for i in range(len(plan.data)) if i not in done], dtype=torch.int64)
    return Shard.of(plan, predicted, positions)
