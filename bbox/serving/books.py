"""The server's own count, for a client's ledger to be held against."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Books"]


@dataclass
class Books:
    """What the server itself has counted, whatever a client believes.

    Attributes:
        requests: requests to infer that arrived.
        rows: rows in those that could be read.
        answered: rows whose answer was sent.
        refused: requests answered 400: no request of the protocol, or rows that do not fit.
        failed: requests answered 500 because the target failed.
        faults: requests that a fault struck, by its name.
        most_at_once: the most requests that were in hand at a time.
    """

    requests: int = 0
    rows: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    faults: dict[str, int] = field(default_factory=lambda: {"429": 0, "500": 0, "drop": 0, "died": 0})
    most_at_once: int = 0
