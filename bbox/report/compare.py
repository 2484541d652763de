"""The page of a comparison: one offline file with tables, curves and the examples on which the runs differ most."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bbox.errors import UsageError
from bbox.files import refuse_taken, write_whole
from bbox.report import fill
from bbox.report.compare_plots import STYLES, plots
from bbox.report.compare_tables import DASH, grids, notes, value_text
from bbox.report.gallery import Entry, gallery, is_picture
from bbox.report.page import MOTION_NORMS, class_name, distance_text
from bbox.results.compared import Compared
from bbox.results.store import RunFolder, StorageError

__all__ = ["comparison_page", "refuse_other", "write_comparison"]

_TITLE = "bbox compare: "  # a page that begins so may be written over
_PICTURES = 24  # adversarial ones in all


def write_comparison(path: Path, comparison: dict[str, Any], runs: Sequence[Compared]) -> None:
    """Write the page, whole or not at all. An earlier comparison is written over, nothing else is.

    Raises:
        UsageError: the path is taken, or its folder does not exist.
        StorageError: it cannot be written.
    """
    refuse_other(path)
    try:
        write_whole(path, comparison_page(comparison, runs))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}; make room, or choose another") from error


def refuse_other(path: Path) -> None:
    """Refuse a place for the page that holds anything but an earlier comparison.

    Raises:
        UsageError: it does, or there is no folder for it.
    """
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; name a file, such as {path / 'compare.html'}")
    if path.exists():
        with path.open("rb") as file:
            head = file.read(1000)
        if f"<title>{_TITLE}".encode() not in head:
            refuse_taken(path, resumes=False)


def comparison_page(comparison: dict[str, Any], runs: Sequence[Compared]) -> str:
    """The page as HTML. Every name, id and command in it is escaped; it holds no script."""
    shape, norm = runs[0].run["data"]["shape"], comparison["norm"]
    return fill(
        "compare.html.j2",
        {
            "title": _TITLE + ", ".join(run.label for run in runs),
            "player": None,
            "kind": comparison["kind"],
            "data": comparison["data"],
            "examples": f"{comparison['examples']:,}",
            "norm": norm,
            "measures": MOTION_NORMS.get(norm, "") if comparison["kind"] == "motions" else "",
            "styles": STYLES,
            "labels": [run.label for run in runs],
            "runs": [_run(content) for content in comparison["runs"]],
            "differences": [(row["name"], list(map(value_text, row["values"]))) for row in comparison["differences"]],
            "grids": grids(comparison),
            "notes": notes(comparison),
            # Markup: the SVG is our own, and the only text of the user's in it is a number.
            "plots": [(title, Markup(svg), note) for title, svg, note in plots(comparison, runs)],
            "cards": _cards(comparison, runs) if is_picture(shape) else [],
            "picture": is_picture(shape),
            "command": shlex.join(["bbox", "compare", *(str(run.path) for run in runs)]),
            "commands": _commands(runs),
            "versions": _joined([run.run.get("versions", {}) for run in runs]),
            "hardware": _joined([run.run.get("hardware", {}) for run in runs]),
            "fingerprints": [
                ("data", comparison["fingerprint"]),
                *_joined([{"target": run.run["target"]["fingerprint"]} for run in runs]),
            ],
            "seed": " / ".join(dict.fromkeys(str(run.config.seed) for run in runs)),
        },
    )


def _run(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": content["label"],
        "path": content["run"],
        "what": f"{content['attack']} on {content['target']}",
        "complete": content["complete"],
    }


def _commands(runs: Sequence[Compared]) -> list[tuple[str, str]]:
    """Each command once, and the runs that it made."""
    made: dict[str, list[str]] = {}
    for run in runs:
        made.setdefault(str(run.run.get("command", "")), []).append(run.label)
    return [(", ".join(labels), command) for command, labels in made.items()]


def _joined(parts: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """By name, the different values of the runs."""
    names = dict.fromkeys(name for part in parts for name in part)
    return [(name, " / ".join(dict.fromkeys(str(part.get(name, DASH)) for part in parts))) for name in names]


def _cards(comparison: dict[str, Any], runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """The examples on which the runs differ most, with the pictures that can be read."""
    places = _most_different(comparison, max(3, _PICTURES // len(runs)))
    found: list[dict[int, Entry]] = []
    for run in runs:
        with RunFolder.open(run.path) as folder:
            chosen = [run.examples[place] for place in places if run.examples[place].success]
            found.append({entry.example.index: entry for entry in gallery(folder, chosen)})
    cards = []
    for place in places:
        each = comparison["each"][place]
        entries = [entries.get(each["index"]) for entries in found]
        shown = next((entry for entry in entries if entry is not None), None)
        if shown is not None:
            pictures = [
                _picture(number, run, seen, entry)
                for number, (run, seen, entry) in enumerate(zip(runs, each["runs"], entries, strict=True))
            ]
            names = dict.fromkeys(class_name(runs[0].run, seen["predicted"]) for seen in each["runs"])
            cards.append(
                {
                    "id": each["id"],
                    "index": each["index"],
                    "original": shown.original,
                    "label": " / ".join(names),
                    "pixelated": shown.pixelated,
                    "pictures": pictures,
                }
            )
    return cards


def _picture(number: int, run: Compared, seen: dict[str, Any], entry: Entry | None) -> dict[str, Any]:
    if not seen["attacked"]:
        return {"number": number, "run": run.label, "address": None, "text": "wrong from the start", "label": ""}
    if not seen["success"]:
        return {"number": number, "run": run.label, "address": None, "text": "not found", "label": ""}
    return {
        "number": number,
        "run": run.label,
        "address": None if entry is None else entry.adversarial,
        "text": f"{run.config.norm} {distance_text(seen['distance'])}",
        "label": class_name(run.run, seen["adversarial_label"]),
    }


def _most_different(comparison: dict[str, Any], most: int) -> list[int]:
    """Places of examples that all runs attacked: half of those shown only some runs broke, where there are so many;
    then the largest ratios between the farthest and the closest."""
    spread: dict[int, float] = {}
    for place, each in enumerate(comparison["each"]):
        distances = [math.inf if seen["distance"] is None else seen["distance"] for seen in each["runs"]]
        if all(seen["attacked"] for seen in each["runs"]) and np.isfinite(min(distances)):
            spread[place] = max(distances) / max(min(distances), 1e-12)
    order = sorted(spread, key=lambda place: (-spread[place], place))
    some = [place for place in order if math.isinf(spread[place])]
    both = [place for place in order if math.isfinite(spread[place])]
    kept = some[: max(most // 2, most - len(both))]
    return kept + both[: most - len(kept)]
