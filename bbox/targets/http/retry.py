"""When a request is sent again, after what wait, and when it is given up. tenacity does the repeating."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
from tenacity import RetryCallState, wait_random_exponential

__all__ = ["AGAIN", "AgainError", "Heard", "Policy", "retry_after"]

_T = TypeVar("_T")
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_BACKOFF = wait_random_exponential(multiplier=0.1, max=10)  # full jitter
_SILENT = 2.0  # seconds without a good answer after which the user is told


class AgainError(Exception):
    """An attempt failed in a way that may pass.

    Attributes:
        wait: seconds that the server asked to wait, 0 where it did not.
    """

    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


class Heard:
    """When a target last gave a good answer, over all requests."""

    def __init__(self) -> None:
        self.last: float | None = None
        self._cause = ""
        self._failing: float | None = None
        self._told = False

    def good(self) -> None:
        self.last = time.monotonic()
        self._failing, self._told = None, False

    def bad(self, cause: str) -> None:
        self._cause = cause
        if self._failing is None:
            self._failing = time.monotonic()

    def outage(self) -> str:
        """What fails, once an outage, when it has lasted; else nothing."""
        if self._told or self._failing is None or time.monotonic() - self._failing < _SILENT:
            return ""
        self._told = True
        return self._cause


class Policy:
    """Whether one request is tried again: a ``stop`` and a ``wait`` of tenacity.

    A request is tried again while the target was heard within ``patience`` seconds; and at most ``tries`` times
    between which the target answered others.
    """

    def __init__(self, heard: Heard, patience: float, tries: int) -> None:
        self.heard = heard
        self.patience = patience
        self.tries = tries
        self._begun = self._failed = time.monotonic()
        self._strikes = 0

    @property
    def silent(self) -> float:
        """Seconds since the last good answer or since this request began, whichever is later."""
        return time.monotonic() - max(self._begun, self.heard.last or 0.0)

    def stop(self, state: RetryCallState) -> bool:
        if (self.heard.last or 0.0) > self._failed:
            self._strikes += 1
        self._failed = time.monotonic()
        left = self.patience - self.silent
        return self._strikes >= self.tries or left <= 0 or _asked(state) > left

    def wait(self, state: RetryCallState) -> float:
        # The last try is made when patience ends, not before.
        return max(min(_BACKOFF(state), max(self.patience - self.silent, 0.0)), _asked(state))


def retry_after(answer: httpx.Response, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float:
    """Seconds that a 429 or a 503 asks to wait (``Retry-After``: seconds or a date), 0 where it does not."""
    text = answer.headers.get("Retry-After", "").strip()
    if answer.status_code not in (429, 503) or not text:
        return 0.0
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    return max((then.replace(tzinfo=then.tzinfo or UTC) - clock()).total_seconds(), 0.0)


def _asked(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    return error.wait if isinstance(error, AgainError) else 0.0
