"""A target behind HTTP: rows are cut into requests, sent side by side, and their answers put together."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bbox.batch import Batch
from bbox.errors import RequestLimitError, TargetError
from bbox.targets.account import Bill, Terms, account
from bbox.targets.base import Target
from bbox.targets.http.client import Client, Message, Reply, RowsRefusedError
from bbox.targets.http.link import Places
from bbox.targets.http.settings import Settings

__all__ = ["HttpTarget", "read_json"]

_T = TypeVar("_T")
_REQUESTS_A_CALL = 4
_REFUSED_ROW = -1  # a row that the server refused has no label: the oracle books it as invalid


class HttpTarget(Target):
    """A classifier behind HTTP.

    Calls may come from several threads. A row that the server refuses by itself (400, 413, 422), after it has answered
    others, is answered NaN or -1, which the oracle books as invalid. Where it takes each row of a request that it has
    refused, the rows were too many, and later requests hold half as many.

    Args:
        settings: where it is and how hard it may be asked.
        name: what the user would type to load it again.
        identity: what the fingerprint is made of, without secrets.
    """

    in_process = False

    def __init__(self, settings: Settings, *, name: str, identity: Mapping[str, object]) -> None:
        self.name = name
        self.settings = settings
        self.client = Client(settings)
        # A call costs three switches of threads, so it holds several requests; and twice as many as may be in flight
        # wait their turn, so that a request which is tried again holds up few others.
        together = min(_REQUESTS_A_CALL, settings.in_flight)
        self.batch = together * settings.batch
        self.concurrency = -(-2 * settings.in_flight // together) if settings.in_flight > 1 else 1
        self.answered = False
        self._most = settings.batch
        self._identity = dict(identity)

    @abstractmethod
    def encode(self, rows: Batch) -> Message:
        """The request that asks these rows. Called on the loop, one at a time."""

    @abstractmethod
    def decode(self, reply: Reply, count: int) -> Tensor:
        """The answers to ``count`` rows.

        Shapes:
            returns: (count, classes) float32 scores, or (count,) int64 labels, as ``access`` says.

        Raises:
            TargetError: the answer is none to these rows.
        """

    def __call__(self, rows: Any) -> Tensor:
        """Classify rows.

        Shapes:
            rows: (n, channels, height, width), float32 in [0, 1]; or n programs.
            returns: (n, classes) scores, or (n,) int64 labels where ``access`` is ``"labels"``.

        Raises:
            TargetError: the server does not answer, or refuses; ``RequestLimitError`` at the run's limit.
        """
        bill, terms = account()
        size = self._most
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]

        async def work(places: Places) -> list[Tensor | None]:
            return await _all([self._ask(places, part, bill, terms) for part in parts])

        return self._together(self.client.run(work, terms), [len(part) for part in parts])

    def fingerprint(self) -> str:
        """SHA-256 over the URL, the options and what the server says of its model. It cannot see the weights: a server
        that was given others under the same name and version has the same fingerprint."""
        return hashlib.sha256(json.dumps(self._identity, sort_keys=True, default=str).encode()).hexdigest()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self.client.close()

    async def _ask(self, places: Places, rows: Batch, bill: Bill, terms: Terms) -> Tensor | None:
        """The answers to the rows of one request; ``None`` for a single row that the server refuses."""
        try:
            reply = await self.client.send(places, self.encode(rows), bill, terms)
        except RowsRefusedError:
            if not self.answered:
                raise
            if len(rows) == 1:
                return None
            alone = [rows[place : place + 1] for place in range(len(rows))]
            found = await _all([self._ask(places, row, bill, terms) for row in alone])
            if all(answer is not None for answer in found):  # no row is at fault: they were too many
                self._most = min(self._most, len(rows) // 2)
            return self._together(found, [1] * len(alone))
        answer = self.decode(reply, len(rows))
        self.answered = True
        if self.access == "scores":
            self._width = answer.shape[1]
        return answer

    _width = 1

    def _together(self, found: Sequence[Tensor | None], counts: Sequence[int]) -> Tensor:
        return torch.cat(
            [self._none(count) if answer is None else answer for answer, count in zip(found, counts, strict=True)]
            or [self._none(0)]
        )

    def _none(self, count: int) -> Tensor:
        if self.access == "labels":
            return torch.full((count,), _REFUSED_ROW, dtype=torch.int64)
        return torch.full((count, self._width), math.nan)

    def fault(self, text: str) -> TargetError:
        """An error that names the server. What the text quotes of an answer may hold secrets that were sent."""
        return TargetError(f"{self.settings.where} {self.settings.headers.redact(text)}")

    def named(self, labels: Sequence[object], names: Sequence[str] | None) -> Tensor:
        """Labels by index or by name, as indices; a name that is not among ``names`` is -1.

        Shapes:
            returns: (len(labels),) int64.
        """
        if any(isinstance(label, str) for label in labels):
            if names is None:
                raise self.fault(
                    f"answers class names, such as {str(labels[0])[:40]!r}: give them in order, as classes"
                )
            index = {name: place for place, name in enumerate(names)}
            return torch.tensor([index.get(str(label), _REFUSED_ROW) for label in labels], dtype=torch.int64)
        try:
            numbers = np.asarray(labels, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self.fault(f"answers no labels: {str(labels[:1])[:60]}") from error
        if numbers.ndim != 1:
            raise self.fault(f"answers labels of shape {numbers.shape}, expected one a row")
        whole = np.isfinite(numbers) & (numbers == np.rint(numbers)) & (np.abs(numbers) < 2**53)
        return torch.from_numpy(np.where(whole, numbers, _REFUSED_ROW).astype(np.int64))

    def scored(self, values: object, count: int) -> Tensor:
        """Scores as (count, classes) float32; ``null`` is NaN."""
        try:
            scores = np.array(values, dtype=np.float32)  # a copy: bytes of a reply cannot be written to
        except (TypeError, ValueError) as error:
            raise self.fault("answers scores that are no table of numbers") from error
        if scores.ndim != 2 or len(scores) != count or scores.shape[1] < 1:
            raise self.fault(f"answers scores of shape {scores.shape} for {count} rows, expected ({count}, classes)")
        known = self.num_classes or (self._width if self.answered else None)
        if known is not None and scores.shape[1] != known:
            raise self.fault(f"answers {scores.shape[1]} scores a row, expected {known}")
        return torch.from_numpy(scores)


def read_json(body: bytes) -> Any:
    """JSON, or ``None`` for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None


async def _all(work: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """All results in order; at the first failure the others are cancelled, unless a limit on requests is reached."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    except RequestLimitError:
        # What is under way is paid for, and the bill is to say what the server got; nothing more is sent.
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
