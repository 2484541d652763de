"""What the sessions of a run have cost, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SENT", "bill_line", "cost", "last_price", "sums", "total_ledger"]

SENT = ("replayed", "cached", "requests", "billed", "retried")  # counts of a ledger beside its queries


def total_ledger(sessions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """The ledgers of all sessions by purpose; one from before a count existed has none of it."""
    total: dict[str, dict[str, int]] = {}
    for session in sessions:
        for purpose, ledger in session.get("ledger", {}).items():
            mine = total.setdefault(purpose, {})
            for name, count in ledger.items():
                mine[name] = mine.get(name, 0) + int(count)
    return total


def sums(ledger: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Queries, and the counts of ``SENT``, over all purposes."""
    return {name: sum(book.get(name, 0) for book in ledger.values()) for name in ("queries", *SENT)}


def cost(counts: Mapping[str, int], price_per_1k: float | None) -> float | None:
    """The price of the rows that were sent (``sums``); of the queries, where the target is no live one."""
    rows = counts["billed"] or counts["queries"]
    return None if price_per_1k is None else rows * price_per_1k / 1000


def last_price(sessions: Sequence[Mapping[str, Any]], price: float | None = None) -> float | None:
    """The price of 1,000 rows that a session was last told (``--resume`` may have named another), else ``price``."""
    told = [session["price_per_1k"] for session in sessions if session.get("price_per_1k") is not None]
    return float(told[-1]) if told else price


def bill_line(ledger: Mapping[str, Mapping[str, int]], price_per_1k: float | None) -> str:
    """What was sent to a live target or taken from the query cache, and its price; empty where there is none."""
    counts = sums(ledger)
    parts = []
    if counts["billed"]:
        sent = f"{counts['billed']:,} rows sent in {counts['requests']:,} requests"
        parts.append(f"bill: {sent}, {counts['retried']:,} of them again")
    if counts["cached"]:
        parts.append(f"{counts['cached']:,} rows known from before, not asked again")
    if price_per_1k is not None:
        parts.append(f"cost {cost(counts, price_per_1k):,.2f} at {price_per_1k:g} per 1,000 rows")
    return "; ".join(parts)
