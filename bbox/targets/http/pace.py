"""A steady pace: amounts pass at a rate, without bursts."""

from __future__ import annotations

import asyncio
import time

__all__ = ["Pace"]


class Pace:
    """Lets amounts pass one behind the other, each as long after the one before as that one's size asks for.

    Args:
        rate: units a second, ``inf`` for no limit.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._next = 0.0

    async def wait(self, amount: float, share: float = 1.0) -> None:
        """Wait for the turn of ``amount`` units. ``share`` is the part of the rate that is ours, in (0, 1]."""
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + amount / (self.rate * share)
        if turn > now:
            await asyncio.sleep(turn - now)
