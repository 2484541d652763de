"""What a live target was sent and charges for, in one line: for the terminal and for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbox.results.costs import bill_line, last_price, total_ledger

if TYPE_CHECKING:
    from bbox.results.store import RunFolder

__all__ = ["bill", "matrix_bill"]


def bill(folder: RunFolder) -> str:
    """What all sessions sent to a live target or took from the query cache, in one line; empty for other targets."""
    return _line(folder.sessions(), folder.run()["config"].get("price_per_1k"))


def matrix_bill(path: Path) -> str:
    """The same of a whole matrix: of its cells, and of what its rows cost on clean traffic."""
    from bbox.results.matrix_figures import read_matrix
    from bbox.results.matrix_plan import Row
    from bbox.results.store import RunFolder

    run = read_matrix(path)
    sessions: list[dict[str, Any]] = []
    for row in map(Row.from_json, run["rows"]):
        sessions.append(json.loads((path / row.folder / "row.json").read_text(encoding="utf-8")))
        for cell in row.cells:
            if not cell.reason:
                with RunFolder.open(path / cell.path) as folder:
                    sessions += folder.sessions()
    return _line(sessions, run["config"].get("price_per_1k"))


def _line(sessions: Sequence[Mapping[str, Any]], price: float | None) -> str:
    return bill_line(total_ledger(sessions), last_price(sessions, price))
