"""What calls to a live target cost, and what their run allows them.

Both travel in the context of the call, so that they reach a live target through any wrapper around it (a defense), and
two runs over one target do not mix. The oracle opens an account (``on_account``); a live target reads it (``account``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from bbox.errors import RequestLimitError

__all__ = ["Bill", "Meter", "Purse", "Terms", "account", "on_account"]

_PATIENCE = 60.0
_LEASE = 64  # most requests reserved at a time: a killed run counts at most so many that it never sent
_LEASES = 20  # and at most this part of its limit


@dataclass
class Bill:
    """What was sent, whether or not an answer came back.

    Attributes:
        requests: requests sent, retries among them.
        rows: rows sent in them, each as often as it was sent: what a provider may charge for.
        retried: rows sent again after a request that brought no answer.
    """

    requests: int = 0
    rows: int = 0
    retried: int = 0


class Purse:
    """What is left of a run's limit on requests.

    Args:
        limit: requests of all sessions together.
        used: requests that were reserved before.
        keep: writes down how many are used, where a crash cannot undo it.
    """

    def __init__(self, limit: int, used: int = 0, keep: Callable[[int], None] | None = None) -> None:
        self.limit = limit
        self.used = used
        self.keep = keep
        self._lock = threading.Lock()

    def kept_by(self, keep: Callable[[int], None]) -> None:
        """Write down from here on how many are used, and at once what was reserved before."""
        self.keep = keep
        self.lease(0)

    def lease(self, wanted: int) -> int:
        """Reserve requests, or hand them back (a negative number); how many were granted."""
        with self._lock:
            granted = min(wanted, self.limit - self.used) if wanted > 0 else wanted
            self.used += granted
            if self.keep is not None:
                self.keep(self.used)
            return granted


class Meter:
    """A hard limit on the requests of a run, retries and probes among them; may be shared by threads.

    Requests are reserved some at a time before they are sent: a twentieth of the limit, and at most 64. So a run that
    is killed never sends more than its limit in all; what was reserved and not sent counts as sent, unless
    ``give_back`` was reached.

    Args:
        lease: takes the number of requests wanted (negative: handed back), and returns how many are granted
            (``Purse.lease``).
        limit: the limit, for the error's text.
    """

    def __init__(self, lease: Callable[[int], int], limit: int) -> None:
        self.limit = limit
        self._lease = lease
        self._left = 0
        self._lock = threading.Lock()

    def take(self) -> None:
        """Reserve one request.

        Raises:
            RequestLimitError: the limit is reached.
        """
        with self._lock:
            if self._left == 0:
                self._left = self._lease(min(_LEASE, max(1, self.limit // _LEASES)))
            if self._left == 0:
                raise RequestLimitError(
                    f"the limit of {self.limit:,} requests is reached; what was answered is kept: go on with --resume "
                    "and a higher --max-requests"
                )
            self._left -= 1

    def give_back(self) -> None:
        """Hand back what was reserved and not used."""
        with self._lock:
            if self._left:
                self._lease(-self._left)
            self._left = 0


@dataclass
class Terms:
    """What a run allows a live target.

    Attributes:
        patience: seconds that the target may be silent before the run stops.
        meter: the run's limit on requests, ``None`` without one.
        share: the part of the target's rate limits that this process may use (one of n workers: 1/n).
        abandoned: set when nobody waits for answers any more; calls that wait for a retry end.
    """

    patience: float = _PATIENCE
    meter: Meter | None = None
    share: float = 1.0
    abandoned: threading.Event = field(default_factory=threading.Event)

    def settle(self) -> None:
        """Hand back the requests that were reserved and not sent."""
        if self.meter is not None:
            self.meter.give_back()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """``settle`` at the end of the block, however that is reached."""
        try:
            yield
        finally:
            self.settle()


_ACCOUNT: ContextVar[tuple[Bill, Terms] | None] = ContextVar("bbox account", default=None)


@contextmanager
def on_account(terms: Terms) -> Iterator[Bill]:
    """Put what the calls inside cost on a new bill. Threads that are started inside do not inherit it."""
    bill = Bill()
    token = _ACCOUNT.set((bill, terms))
    try:
        yield bill
    finally:
        _ACCOUNT.reset(token)


def account() -> tuple[Bill, Terms]:
    """The bill and the terms of the call under way; outside of an oracle, ones that nobody reads."""
    return _ACCOUNT.get() or (Bill(), Terms())
