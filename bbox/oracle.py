"""The oracle: the only door to a target. It delivers rows and counts every one (``Ledger``); it knows no attack."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor

from bbox.batch import Batch, pick
from bbox.cache import AnswerCache
from bbox.code.program import Programs
from bbox.errors import BudgetError, InputError, TargetError
from bbox.targets.account import Bill, Terms, on_account
from bbox.targets.base import REFUSED, Target

__all__ = ["UNKNOWN", "Answers", "Ledger", "Oracle", "Purpose", "StopReason"]

Purpose = Literal["attack", "probe", "clean", "verify", "fit", "select", "certify", "baseline", "evaluate", "serve"]
StopReason = Literal[
    "budget",
    "converged",
    "success",
    "start_not_found",
    "no_identifiers",
    "already_wrong",
    "refused",
    "target_error",
    "interrupted",
    "time_limit",
]

_B = TypeVar("_B", bound=Batch)

UNKNOWN = -1  # the label of a row that the target answered with something that is no answer (NaN, out of range)


@dataclass
class Ledger:
    """What one purpose has cost.

    Attributes:
        queries: rows delivered by the target. Repeats count.
        calls: forwards (batches) that delivered them.
        replayed: rows answered from a journal on resume; they count in an example's budget and were paid before.
        invalid: delivered rows whose answer was not usable (not finite, not a class).
        refused: delivered rows that the target refused to answer (a stateful defense).
        cached: rows answered from the query cache: no queries, but they count in an example's budget.
        requests: live targets: requests sent, retries among them.
        billed: live targets: rows sent in them, each as often as it was sent.
        retried: live targets: rows sent again after a request that brought no answer.
    """

    queries: int = 0
    calls: int = 0
    replayed: int = 0
    invalid: int = 0
    refused: int = 0
    cached: int = 0
    requests: int = 0
    billed: int = 0
    retried: int = 0


@dataclass(frozen=True)
class Answers:
    """A target's answers, on the CPU (one transfer a call).

    Shapes:
        labels: (m,) int64, the top-1 class, -1 where the answer was not usable, -2 where the target refused.
        scores: (m, classes) float32, or ``None`` where the target gives labels only.
    """

    labels: Tensor
    scores: Tensor | None


class Oracle:
    """Asks a target and counts.

    Args:
        target: anything that classifies (``bbox.targets``).
        max_batch: rows a forward; halved for good when CUDA runs out of memory.
        quantize: ``"8bit"`` answers for the image as it is after rounding to 8 bits.
        limit: rows that all attacks together may ask, ``None`` for no limit.
        paid: rows of the limit that earlier sessions of the run have asked.
        terms: what a live target is allowed (patience, requests).
        cache: answers on disk, for a target that answers a row always alike; ``None`` for none.

    Raises (from ``ask``):
        TargetError: the target raised, or answered with the wrong number or kind of answers.
    """

    def __init__(
        self,
        target: Target,
        *,
        max_batch: int = 128,
        quantize: Literal["8bit"] | None = None,
        limit: int | None = None,
        paid: int = 0,
        terms: Terms | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self.target = target
        self.terms = terms or Terms()
        self.cache = cache
        self.max_batch = max_batch
        self.quantize = quantize
        self.limit = limit
        self.paid = paid
        self.books: defaultdict[Purpose, Ledger] = defaultdict(Ledger)
        # The engine asks from threads of its own while finished examples are verified: no more calls than the target
        # bears at a time.
        self._places = threading.BoundedSemaphore(target.concurrency)
        self._writing = threading.Lock()

    @property
    def device(self) -> torch.device:
        return self.target.device

    def admissible(self, rows: _B) -> _B:
        """The rows as the target will see them: float32 on its device, on the 8-bit grid if that was asked for."""
        if isinstance(rows, Programs):
            return rows
        moved = rows.to(self.device, torch.float32)
        if self.quantize == "8bit":
            moved = torch.round(moved * 255.0) / 255.0
        return cast("_B", moved)

    def left(self) -> int | None:
        """Rows that the run-wide limit still allows, ``None`` without one."""
        if self.limit is None:
            return None
        book = self.books["attack"]
        return self.limit - self.paid - book.queries - book.cached

    def ask(self, rows: Batch, purpose: Purpose = "attack") -> Answers:
        """Deliver rows in forwards of at most ``max_batch``, and count them under ``purpose``.

        Shapes:
            rows: (m, *shape) in the target's range, or m programs.
        """
        left = self.left()
        if purpose == "attack" and left is not None and len(rows) > left:
            raise BudgetError(f"{len(rows)} rows asked, but the run's limit of {self.limit} leaves {left}")
        rows = self.admissible(rows)
        if self.target.concurrency > 1 and len(rows) > self.max_batch:
            return _together(self._side_by_side(rows, purpose))
        parts: list[Answers] = []
        start = 0
        while start < len(rows):
            part = rows[start : start + self.max_batch]
            try:
                parts.append(self._deliver(part, purpose))
            except torch.cuda.OutOfMemoryError as error:
                # Nothing was delivered, so nothing was counted: halve and ask the same rows again.
                if len(part) == 1:
                    raise TargetError(f"{self.target.name}: one row does not fit in GPU memory") from error
                torch.cuda.empty_cache()
                self.max_batch = len(part) // 2
                continue
            start += len(part)
        return _together(parts)

    def _side_by_side(self, rows: Batch, purpose: Purpose) -> list[Answers]:
        parts = [rows[start : start + self.max_batch] for start in range(0, len(rows), self.max_batch)]
        with ThreadPoolExecutor(self.target.concurrency, "bbox-ask") as pool:
            waiting = [pool.submit(self._deliver, part, purpose) for part in parts]
            try:
                return [answers.result() for answers in waiting]
            except BaseException:
                with self.abandoning():
                    pool.shutdown(cancel_futures=True)
                raise

    @contextmanager
    def abandoning(self) -> Iterator[None]:
        """Inside, calls under way that wait for a retry end at once: nobody waits for their answers any more."""
        self.terms.abandoned.set()
        try:
            yield
        finally:
            self.terms.abandoned.clear()

    def _deliver(self, rows: Batch, purpose: Purpose) -> Answers:
        if self.cache is None or purpose == "probe":  # a probe measures the target
            return self._forward(rows, purpose)
        # A saved file is verified by the target itself, whatever the attack has asked before: by names of its own.
        keys = self.cache.keys(rows, self.fingerprint, "verify" if purpose == "verify" else "")
        known = self.cache.find(keys)
        new = [place for place, key in enumerate(keys) if key not in known]
        if new:
            asked = self._forward(pick(rows, torch.tensor(new)), purpose)
            fresh = dict(zip([keys[place] for place in new], _rows_of(asked), strict=True))
            self.cache.keep(fresh)
            known |= fresh
        with self._writing:
            self.books[purpose].cached += len(rows) - len(new)
        labels = torch.tensor([known[key][0] for key in keys], dtype=torch.int64)
        scores = [known[key][1] for key in keys]
        return Answers(labels, None if scores[0] is None else torch.stack([s for s in scores if s is not None]))

    @cached_property
    def fingerprint(self) -> str:
        """The target's, computed once: of a large model it is a hash of all weights."""
        return self.target.fingerprint()

    def _forward(self, rows: Batch, purpose: Purpose) -> Answers:
        # A target that remembers what it was asked must see the attack's traffic alone.
        target = self.target if purpose in ("attack", "serve") else self.target.fresh()
        with self._places, on_account(self.terms) as bill:
            try:
                raw = target(rows)
            except (torch.cuda.OutOfMemoryError, TargetError, BudgetError, InputError):
                self._charge(purpose, bill)
                raise
            except Exception as error:
                self._charge(purpose, bill)
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                raise TargetError(
                    f"{self.target.name} failed on rows of shape {tuple(rows.shape)}: {reason}"
                ) from error
        self._charge(purpose, bill)
        answers = self._read(raw, len(rows))
        with self._writing:
            ledger = self.books[purpose]
            ledger.queries += len(rows)
            ledger.calls += 1
            ledger.invalid += int((answers.labels == UNKNOWN).sum())
            ledger.refused += int((answers.labels == REFUSED).sum())
        return answers

    def _charge(self, purpose: Purpose, bill: Bill) -> None:
        """Enter a call's bill, also that of a call which brought no answers."""
        with self._writing:
            ledger = self.books[purpose]
            ledger.requests += bill.requests
            ledger.billed += bill.rows
            ledger.retried += bill.retried

    def _read(self, raw: object, count: int) -> Answers:
        """Check an answer and bring it to the CPU."""
        name = self.target.name
        if not isinstance(raw, Tensor):
            raise TargetError(f"{name} answered a {type(raw).__name__}, expected a tensor of scores or labels")
        if self.target.access == "labels":
            if raw.shape != (count,):
                raise TargetError(f"{name} answered {tuple(raw.shape)} for {count} rows, expected ({count},) labels")
            labels = raw.detach().to("cpu")
            if labels.is_floating_point():
                whole = torch.isfinite(labels) & (labels == labels.round())
                labels = torch.where(whole, labels, torch.full_like(labels, UNKNOWN))
            labels = labels.to(torch.int64)
            beyond = labels < 0
            if self.target.refuses:
                beyond &= labels != REFUSED
            if self.target.num_classes is not None:
                beyond |= labels >= self.target.num_classes
            return Answers(labels.masked_fill(beyond, UNKNOWN), None)
        if raw.ndim != 2 or len(raw) != count or raw.shape[1] < 1:
            raise TargetError(
                f"{name} answered {tuple(raw.shape)} for {count} rows, expected ({count}, classes) scores"
            )
        scores = raw.detach().to("cpu", torch.float32)
        labels = scores.argmax(1)
        # A class masked with -inf is an answer; NaN, or an infinite best score, is none (NaN counts as the maximum).
        labels = labels.masked_fill(~torch.isfinite(scores.amax(1)), UNKNOWN)
        if self.target.refuses:
            labels = labels.masked_fill(scores.isnan().all(1), REFUSED)
        return Answers(labels, scores)


def _together(parts: Sequence[Answers]) -> Answers:
    if not parts:
        return Answers(torch.empty(0, dtype=torch.int64), None)
    scores = None if parts[0].scores is None else torch.cat([p.scores for p in parts if p.scores is not None])
    return Answers(torch.cat([p.labels for p in parts]), scores)


def _rows_of(answers: Answers) -> list[tuple[int, Tensor | None]]:
    """Each row's label and scores."""
    scores: Sequence[Tensor | None] = [None] * len(answers.labels) if answers.scores is None else list(answers.scores)
    return list(zip(answers.labels.tolist(), scores, strict=True))
