"""The figures of a run on code, computed from the saved sources and the examples' records.

Every saved example is checked for validity again here, from its two files, whatever the attack or the record says.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bbox.code.equivalence import Verdict
from bbox.code.site import site_of
from bbox.results.code_names import names_figures
from bbox.results.records import Example
from bbox.results.saved import read_program, verdict_of
from bbox.results.store import RunFolder

__all__ = ["code_figures", "textattack_csv"]

_TOKEN = re.compile(r"\w+|[^\w\s]")


def code_figures(
    folder: RunFolder, examples: Sequence[Example], *, checkpoints: Sequence[int], functions: bool
) -> dict[str, Any]:
    """What the figures of images do not say of programs.

    The denominator of both success rates is the programs that the target gets right, those without an identifier to
    rename included. ``raw``: the target was fooled, by a program that means the same or not. ``valid``: the saved file
    fools it and is equivalent to the original. Queries to success count up to the first valid adversarial program, and
    queries of all up to the end of the search (pruning included). Rates run over the valid successes: identifiers that
    were renamed over those that may be, tokens that changed over all (a token is a word or one other character), and
    the edit distance in characters (Levenshtein, of every occurrence). ``names_in_use`` is the share of the different
    new names that at least ``IN_USE`` programs of the data hold, ``None`` before the run has counted them;
    ``same_style`` the share of the renames whose new name is written like the old one (snake case, camel case). A
    checkpoint's ``median_names`` runs over the valid programs found until then: how many names each had changed.
    """
    attacked = [e for e in examples if e.attacked]
    verdicts = {e.index: verdict_of(folder, e.index, functions=functions) for e in attacked if e.distance is not None}
    valid = [e for e in attacked if e.success and verdicts[e.index].equivalent]
    raw = [e for e in attacked if e.first_adversarial is not None]
    nameless = [e.stop_reason for e in attacked].count("no_identifiers")
    spent = [e.queries for e in attacked]
    first = [e.trace[0][0] for e in valid]
    changes = [_changes(folder, e.index, verdicts[e.index], functions) for e in valid]
    rate = _share(len(valid), len(attacked))
    checks = Counter(check for e in valid for check in verdicts[e.index].checks)
    return {
        "attacked": len(attacked),
        "no_identifiers": nameless,
        "valid": len(valid),
        "valid_asr": rate,
        "valid_asr_with_identifiers": _share(len(valid), len(attacked) - nameless),
        "raw": len(raw),
        "raw_asr": _share(len(raw), len(attacked)),
        "invalid_files": sum(not verdict.equivalent for verdict in verdicts.values()),
        "checks": dict(sorted(checks.items())),
        "queries_mean": _mean(spent),
        "queries_median": _median(spent),
        "queries_to_success_mean": _mean(first),
        "queries_to_success_median": _median(first),
        "repeats": sum(e.repeats for e in attacked),
        "asr_per_query": rate / float(np.mean(spent)) if rate is not None and any(spent) else None,
        "identifier_change_rate": _mean([identifiers for identifiers, _, _ in changes]),
        "token_change_rate": _mean([tokens for _, tokens, _ in changes]),
        "edit_distance": _mean([edits for _, _, edits in changes]),
        **names_figures(folder, [(rename.old, rename.new) for e in valid for rename in verdicts[e.index].renames]),
        "checkpoints": [
            {
                "queries": q,
                "valid_asr": _share(sum(int(n <= q) for n in first), len(attacked)),
                "raw_asr": _share(sum(int((e.first_adversarial or 0) <= q) for e in raw), len(attacked)),
                "found": sum(int(n <= q) for n in first),
                "median_names": _median([e.distance_at(q) for e, n in zip(valid, first, strict=True) if n <= q]),
            }
            for q in checkpoints
        ],
    }


def textattack_csv(folder: RunFolder, class_names: Sequence[str] | None) -> str:
    """The examples as TextAttack logs them: the same columns, the same result types.

    Scores are TextAttack's goal scores: one minus the score of the class to leave, or the score of the class to reach.
    """
    targeted = folder.run()["config"].get("target_class") is not None

    def named(label: int | None) -> str:
        if label is None or label < 0:
            return ""
        return class_names[label] if class_names and label < len(class_names) else str(label)

    def goal(score: float | None) -> str:
        return "" if score is None else f"{score if targeted else 1 - score:.6g}"

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for e in folder.examples().values():
        original = read_program(folder, "originals", e.index).code
        kind = "Skipped" if not e.attacked else "Successful" if e.success else "Failed"
        found = read_program(folder, "adversarial", e.index).code if e.success else original
        after = e.adversarial_label if e.success else e.predicted
        rows.writerow(
            [
                original,
                found,
                goal(e.score),
                goal(e.adversarial_score if e.success else e.score),
                named(e.predicted),
                named(after),
                named(e.label),
                e.queries,
                kind,
            ]
        )
    return text.getvalue()


_COLUMNS = (
    "original_text",
    "perturbed_text",
    "original_score",
    "perturbed_score",
    "original_output",
    "perturbed_output",
    "ground_truth_output",
    "num_queries",
    "result_type",
)


def _changes(folder: RunFolder, index: int, verdict: Verdict, functions: bool) -> tuple[float, float, float]:
    """Share of identifiers renamed, share of tokens changed, characters edited."""
    original = read_program(folder, "originals", index)
    identifiers = len(site_of(original, functions=functions).identifiers)
    tokens = sum(rename.occurrences for rename in verdict.renames)
    edits = sum(rename.occurrences * _levenshtein(rename.old, rename.new) for rename in verdict.renames)
    return len(verdict.identifiers) / identifiers, tokens / len(_TOKEN.findall(original.code)), edits


def _levenshtein(one: str, other: str) -> int:
    """Insertions, deletions and substitutions of characters from one word to the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
