"""Workers that are processes of this machine, each with a target and a replica of the training: only scalars travel.

A replica runs ``train`` itself and is told the values of each step, so that its weights stay those of the lead's to the
last bit without being sent. Per evaluation a number and a key go out and a float64 comes back; per step, the values.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, MutableSequence
from contextlib import suppress
from dataclasses import astuple, fields
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from bbox.batch import Batch
from bbox.defenses.blackvip.objective import Objective
from bbox.defenses.blackvip.train import Course, Fused, train
from bbox.defenses.blackvip.workers import Step, keys_of
from bbox.defenses.books import Books
from bbox.defenses.label_mapping import LabelMapping
from bbox.errors import BboxError, InternalError, TargetError, UsageError
from bbox.oracle import Answers, Ledger, Oracle, Purpose
from bbox.targets.account import Terms, on_account
from bbox.targets.base import Target

__all__ = ["ProcessWorker", "Replica", "processes"]

_PATIENCE = 10.0  # seconds that a process gets to end by itself


def processes(fused: Fused, course: Course, load: Callable[[], Target], count: int) -> list[ProcessWorker]:
    """Start processes (spawned, so a script needs its ``if __name__ == "__main__"``), and send each the data once.

    They compute with as many threads as this process: rounding may depend on that, and must not differ. Where they
    share its cores set OMP_NUM_THREADS=1: threads that wait for each other's cores are many times slower.

    Args:
        course: what ``train`` is given here.
        load: makes a worker's target, for example ``partial(bbox.targets.load, "zoo:digits")``.

    Raises:
        UsageError: the target, the encoder or the data cannot be sent to a process; or a limit on requests, which
            processes would not share.
    """
    objective, oracle = fused.objective, fused.objective.books.oracle
    if oracle.terms.meter is not None:
        raise UsageError(
            f"max_requests is {oracle.terms.meter.limit}, and processes do not share a limit on requests; take threads "
            "(workers of blackvip), or leave the limit out"
        )
    allowed = oracle.terms.patience, oracle.terms.share / max(1, count)
    options = {"max_batch": oracle.max_batch, "quantize": oracle.quantize}
    replica = (fused.prompter, fused.data, fused.spsa, fused.seed, fused.purpose)
    try:
        # By value: torch's own way keeps a file open for each tensor.
        setup = pickle.dumps(
            (torch.get_num_threads(), load, options, allowed, objective.kind, objective.mapping, replica, course)
        )
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"workers in processes need what can be pickled: {reason}") from error
    crew = [ProcessWorker(objective.mapping) for _ in range(count)]
    for worker in crew:
        worker.send(setup)  # now that all are starting
    return crew


class ProcessWorker:
    """The lead's end of a process.

    Attributes:
        pid: of the process.
        sent, received: bytes on the pipe, the setup included.
    """

    def __init__(self, mapping: LabelMapping | None) -> None:
        context = multiprocessing.get_context("spawn")
        # In shared memory: what a process was delivered stays known when it dies.
        self._counts = context.Array("q", len(fields(Ledger)), lock=False)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._counts), daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid
        self.sent = self.received = 0
        self._mapping = mapping
        self._settled = Ledger()

    def send(self, message: bytes) -> None:
        """One that is gone is found out by its silence."""
        with suppress(OSError):
            self._pipe.send_bytes(message)
            self.sent += len(message)

    def evaluate(self, step: Step, number: int) -> float:
        mapping = None if step.mapping == self._mapping else step.mapping
        self._mapping = step.mapping
        self.send(pickle.dumps((number, step.keys[number], mapping)))
        try:
            message = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise TargetError(f"worker process {self.pid} is gone") from error
        self.received += len(message)
        reply = pickle.loads(message)
        if isinstance(reply, str):
            raise TargetError(reply)
        return float(reply)

    def tell(self, values: Tensor) -> None:
        self.send(pickle.dumps(values.numpy().tobytes()))

    def delivered(self) -> Ledger:
        before, self._settled = self._settled, Ledger(*self._counts)
        return Ledger(*(now - then for now, then in zip(astuple(self._settled), astuple(before), strict=True)))

    def close(self) -> None:
        self._pipe.close()
        self._process.join(_PATIENCE)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()


class _Counted(Oracle):
    """Shows what it has counted to the lead, before it gives the answers back."""

    def __init__(self, target: Target, counts: MutableSequence[int], **options: Any) -> None:
        super().__init__(target, **options)
        self._counts = counts

    def _deliver(self, rows: Batch, purpose: Purpose) -> Answers:
        try:
            return super()._deliver(rows, purpose)
        finally:  # what brought no answer may have been sent
            self._counts[:] = astuple(self.books[purpose])


class Replica:
    """The ``Evaluator`` of a process: it does what it is asked until it is told the values."""

    def __init__(self, fused: Fused, pipe: Connection) -> None:
        self._fused, self._pipe = fused, pipe

    def calls(self, evaluations: int, batch: int) -> int:
        return self._fused.calls(evaluations, batch)

    def values(self, step: int, weights: Tensor, batch: Tensor, width: float) -> Tensor:
        points = self._fused.points(step, weights, width)
        keys = keys_of(points, batch)
        while True:
            message = pickle.loads(self._pipe.recv_bytes())
            if isinstance(message, bytes):
                return torch.frombuffer(bytearray(message), dtype=torch.float64)
            number, key, mapping = message
            if keys[number] != key:
                raise InternalError(f"the weights of a worker differ from the lead's in step {step}")
            if mapping is not None:
                self._fused.objective.mapping = mapping
            loss = float(self._fused.at(points[number : number + 1], batch))
            self._pipe.send_bytes(pickle.dumps(loss))


def _serve(pipe: Connection, counts: MutableSequence[int]) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the lead is interrupted too, and ends this one
    with suppress(EOFError, OSError):  # the lead is done, or gone
        try:
            threads, load, options, allowed, kind, mapping, replica, course = pickle.loads(pipe.recv_bytes())
            torch.set_num_threads(threads)
            terms = Terms(allowed[0], share=allowed[1])
            with on_account(terms):
                target = load()
            objective = Objective(Books(_Counted(target, counts, terms=terms, **options), {}), kind, mapping)
            prompter, data, spsa, seed, purpose = replica
            fused = Fused(prompter, data, objective, spsa, seed, purpose)
            train(prompter, Replica(fused, pipe), **course)
        except BboxError as error:
            pipe.send_bytes(pickle.dumps(str(error)))
