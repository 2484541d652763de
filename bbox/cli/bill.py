"""What a run sent to a live target, in the last lines of its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bbox.cli.console import say

__all__ = ["say_bill"]


def say_bill(results: Mapping[str, Any]) -> None:
    """The bill of ``results.json``, if its target was a live one or a price was named."""
    from bbox.results.costs import bill_line

    line = bill_line(results["ledger"], results.get("price_per_1k"))
    if line:
        say(line)
