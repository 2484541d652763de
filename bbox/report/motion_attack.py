"""What the report of an attack on motion says: the figures of every attack, and the motions in the skeleton player."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bbox.motion.skeleton import Skeleton
from bbox.report import page
from bbox.report.gallery import choose
from bbox.report.motion import MOST, Shown, joint_bars, player
from bbox.report.page import class_name, distance_text
from bbox.results.records import Config, Example
from bbox.results.store import RunFolder

__all__ = ["describe"]


def describe(folder: RunFolder) -> dict[str, Any]:
    """The variables of the template, for a run on motions."""
    run = folder.run()
    config = Config.from_json(run["config"])
    shown = list(_shown(folder, run, config, choose(list(folder.examples().values()), MOST)))
    methods = {config.attack: config.attack}
    skeleton, rate = Skeleton.from_json(run["data"]["skeleton"]), float(run["data"]["frame_rate"])
    described = page.describe(folder)
    rows = ((each.original[None], {name: motion[None] for name, motion in each.changed.items()}) for each in shown)
    return {
        **described,
        "player": player(skeleton, rate, methods, shown, targets=[str(run["target"]["name"])]),
        "motions": f"{described['with_files']:,}",
        "motions_are": f"with an adversarial file, spread evenly from the smallest {config.norm} to the largest",
        "joint_bars": joint_bars(skeleton, methods, rows, f"{len(shown)} of these motions, spread in the same way"),
        "values": "in metres",
    }


def _shown(folder: RunFolder, run: dict[str, Any], config: Config, examples: Sequence[Example]) -> Iterator[Shown]:
    """The motions to choose from. One whose files are gone is left out."""
    for example in examples:
        try:
            original, adversarial = (folder.read_array(kind, example.index) for kind in ("originals", "adversarial"))
        except (OSError, ValueError):
            continue
        if original.shape != adversarial.shape:
            continue
        before, after = class_name(run, example.predicted), class_name(run, example.adversarial_label)
        details = [f"{config.norm} {distance_text(example.distance)} m", f"{example.queries:,} queries"]
        yield Shown(
            title=f"{example.id}: {before} \N{RIGHTWARDS ARROW} {after}",
            original=original,
            changed={config.attack: adversarial},
            details=details if example.success else [*details, "the saved file does not verify; no success"],
            clean=[before],
            answers={config.attack: [(after, example.success)]},
        )
