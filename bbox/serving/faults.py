"""Faults that a server plays on its clients, drawn by a seeded generator in the order in which requests arrive."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from bbox.errors import UsageError

__all__ = ["Draw", "Fault", "Faults"]

Fault = Literal["429", "500", "drop"]
_RATES: tuple[tuple[Fault, str], ...] = (("429", "rate_429"), ("500", "rate_500"), ("drop", "rate_drop"))


@dataclass(frozen=True)
class Draw:
    """What befalls one request.

    Attributes:
        fault: the answer that it gets in place of the model's, ``None`` for the model's.
        delay: seconds that it waits first.
        seed: of the noise on its scores.
    """

    fault: Fault | None
    delay: float
    seed: int


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often. Faults strike before the model is asked.

    Attributes:
        latency: milliseconds that every request waits.
        latency_jitter: milliseconds at most that a request waits besides, uniform.
        rate_429: the share of requests that is answered 429 (too many requests).
        retry_after: seconds that the 429 tells the client to wait, ``None`` to say nothing.
        rate_500: the share that is answered 500.
        rate_drop: the share whose connection is closed without an answer, after the request was read.
        noise: standard deviation of normal noise on scores; repeats then differ.
        labels_only: answer labels where the model has scores.
        die_after: rows after which the server stops by itself; not one more is answered.
        seed: of all draws.

    Raises:
        UsageError: a number is out of its range.
    """

    latency: float = 0.0
    latency_jitter: float = 0.0
    rate_429: float = 0.0
    retry_after: float | None = None
    rate_500: float = 0.0
    rate_drop: float = 0.0
    noise: float = 0.0
    labels_only: bool = False
    die_after: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("latency", "latency_jitter", "retry_after", "noise", "seed"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError(f"{_flag(name)} is {value}, expected a number of at least 0")
        rates = {name: getattr(self, name) for _, name in _RATES}
        for name, value in rates.items():
            if not 0 <= value <= 1:
                raise UsageError(f"{_flag(name)} is {value}, expected a share from 0 to 1")
        if sum(rates.values()) > 1:
            raise UsageError(f"{', '.join(map(_flag, rates))} sum to {sum(rates.values()):g}, expected at most 1")
        if self.retry_after is not None and self.rate_429 == 0:
            raise UsageError(f"--retry-after {self.retry_after:g} says when to come back after a 429; give --rate-429")
        if self.die_after is not None and self.die_after < 1:
            raise UsageError(f"--die-after is {self.die_after}, expected at least 1 row")

    def draw(self, request: int) -> Draw:
        """What befalls the request with this number, from 0: always the same for the same seed."""
        generator = random.Random(f"{self.seed} {request}")
        delay = (self.latency + self.latency_jitter * generator.random()) / 1000
        share = generator.random()
        seed = generator.getrandbits(63)
        for fault, name in _RATES:
            share -= getattr(self, name)
            if share < 0:
                return Draw(fault, delay, seed)
        return Draw(None, delay, seed)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
