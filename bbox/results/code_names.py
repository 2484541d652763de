"""How natural the new names of a run are: whether its data use them, and how a masked language model takes them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from bbox.code.bindings import resolve
from bbox.code.naturalness import known_share, pseudo_perplexity, same_style_share, vocabulary
from bbox.code.program import Program
from bbox.errors import UsageError
from bbox.results.saved import read_program, verdict_of
from bbox.results.store import RunFolder

__all__ = ["IN_USE", "count_names", "judge_names", "names_figures"]

IN_USE = 3  # programs of the data that hold a name which is in use

_FILE = "names.json"


def count_names(folder: RunFolder, programs: Iterable[Program], *, functions: bool) -> None:
    """Count how many of the data's programs hold each new name of the run, into ``names.json``.

    Args:
        programs: all of the data, not only what was attacked.
    """
    saved = (e.index for e in folder.examples().values() if e.distance is not None)
    new = {r.new for index in saved for r in verdict_of(folder, index, functions=functions).renames}
    everything = list(programs)
    known = vocabulary(everything)
    counts = {name: known[name] for name in sorted(new)}
    folder.write_json(_FILE, {"programs": len(everything), "in_programs": counts})


def names_figures(folder: RunFolder, renames: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The figures of names from what is on disk: what is not known yet is ``None``.

    Args:
        renames: (old, new) of every rename of the valid successes.
    """
    names = sorted({new for _, new in renames})
    path = folder.path / _FILE
    counted = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return {
        "names": names,
        "names_in_use": known_share(names, counted["in_programs"], least=IN_USE) if names and counted else None,
        "names_counted_in": counted["programs"] if counted else None,
        "same_style": same_style_share(renames) if renames else None,
    }


def judge_names(folder: RunFolder, reference: str) -> dict[str, Any]:
    """Pseudo-perplexity of the new names where they stand, and of the old ones, by a masked language model.

    Returns the median over the renames of the valid successes, and over the same ones in their originals; ``None``
    where the model reads none of them.

    Args:
        reference: a folder or a hub id, as transformers load it.

    Raises:
        UsageError: the run is none on code, or see ``bbox.code.substitutes.masked_lm.MaskedLM``.
    """
    run = folder.run()
    if run["config"].get("norm") != "names":
        raise UsageError(f"--mlm judges the names of a run on code, and {folder.path} attacked images")
    from bbox.code.substitutes.masked_lm import MaskedLM

    model = MaskedLM(reference, spec=f"--mlm {reference}")
    new: list[float] = []
    old: list[float] = []
    for index in [e.index for e in folder.examples().values() if e.success]:
        verdict = verdict_of(folder, index, functions=bool(run["attack"]["functions"]))
        if not verdict.equivalent:
            continue
        original, adversarial = (read_program(folder, kind, index) for kind in ("originals", "adversarial"))
        before, after = (resolve(program.code, program.language).bindings for program in (original, adversarial))
        changed = [place for place, pair in enumerate(zip(before, after, strict=True)) if pair[0].name != pair[1].name]
        old += pseudo_perplexity(model, original, [before[place] for place in changed])
        new += pseudo_perplexity(model, adversarial, [after[place] for place in changed])
    return {"model": reference, "new_names": _median(new), "old_names": _median(old), "rows": model.rows_read}


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return median(known) if known else None
