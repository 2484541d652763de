"""What the report of a run on code says: its figures with their definitions, and programs side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from bbox.code.equivalence import Verdict
from bbox.code.program import Program
from bbox.errors import InputError
from bbox.report.code_plots import names_plot, success_plot
from bbox.report.diff import TINTS, Part, shown, side_by_side, size_of
from bbox.report.gallery import choose
from bbox.report.page import attacked_figures, class_name, frame, percent
from bbox.results.code_names import IN_USE
from bbox.results.records import Config, Example
from bbox.results.run import figures
from bbox.results.saved import read_program, verdict_of
from bbox.results.store import RunFolder

__all__ = ["describe"]

_MOST = 24
_OPEN = 4  # cards that are unfolded from the start
_CARD_CHARACTERS = 120_000
_CHARACTERS = 2_000_000  # of all cards together
_DASH = "\N{EN DASH}"

_REASONS = {
    "start_not_found": "the search ended by itself, and nothing that it asked was adversarial and valid",
    "success": "a valid adversarial program was found, and the attack was done with it",
}

_CHECKS = {
    "positions": "parsed anew; every token that is no name is the same, and each name belongs to the same variable",
    "bytecode": "compiled by Python; the same instructions, but for the names of local variables",
}


def describe(folder: RunFolder) -> dict[str, Any]:
    """The variables of the template, for a run on code."""
    run, results = folder.run(), figures(folder)
    config = Config.from_json(run["config"])
    code = results["code"]
    examples = list(folder.examples().values())
    functions = bool(run["attack"]["functions"])
    saved = [e.index for e in examples if e.attacked and e.distance is not None]
    verdicts = {index: verdict_of(folder, index, functions=functions) for index in saved}
    common = frame(folder, results, _size(folder, int(run["data"]["examples"])))
    for row in common["stop_reasons"]:
        row["meaning"] = _REASONS.get(row["reason"], row["meaning"])
    may = "functions and methods too" if functions else "parameters and local variables"
    common["facts"] = [("Renames", may, "") if fact[0] == "Norm" else fact for fact in common["facts"]]
    return {
        **common,
        "key_figures": [*attacked_figures(results["summary"]), *_key_figures(code)],
        "checks": [(name, f"{count:,}", _CHECKS.get(name, "")) for name, count in code["checks"].items()],
        "valid": f"{code['valid']:,}",
        "invalid_files": f"{code['invalid_files']:,}" if code["invalid_files"] else "",
        "plots": _plots(code, examples, verdicts, config.budget),
        "checkpoints": [
            {
                "queries": f"{row['queries']:,}",
                "found": f"{row['found']:,}",
                "valid": percent(row["valid_asr"]),
                "raw": percent(row["raw_asr"]),
                "names": _number(row["median_names"]),
            }
            for row in code["checkpoints"]
        ],
        "figures": _figures(code),
        "cards": _cards(folder, run, config, examples, verdicts),
    }


def _size(folder: RunFolder, planned: int) -> str:
    pairs = any((folder.path / "originals").glob("*.partner.*"))
    noun = "pair" if pairs else "program"
    return f"{planned:,} {noun}{'' if planned == 1 else 's'}" + (" of programs" if pairs else "")


def _key_figures(code: dict[str, Any]) -> list[dict[str, Any]]:
    def card(name: str, value: str, detail: str) -> dict[str, Any]:
        return {"name": name, "value": value, "of": "", "detail": detail}

    attacked = f"of {code['attacked']:,} attacked"
    return [
        card("Valid ASR", percent(code["valid_asr"]), f"{code['valid']:,} {attacked}: fooled, and means the same"),
        card("Raw ASR", percent(code["raw_asr"]), f"{code['raw']:,} {attacked}: fooled, whatever it means"),
        card(
            "Queries to success",
            _number(code["queries_to_success_median"]),
            f"median; mean {_number(code['queries_to_success_mean'])}",
        ),
        card("Identifiers renamed", percent(code["identifier_change_rate"]), "of those that may be, mean"),
        card("Tokens changed", percent(code["token_change_rate"]), "of all tokens, mean"),
        card("Names in use", percent(code["names_in_use"]), f"of the new names, in {IN_USE} or more of the data"),
    ]


def _figures(code: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, what it is and of what)."""
    attacked, valid = f"{code['attacked']:,} attacked programs", f"{code['valid']:,} valid successes"
    per_query = code["asr_per_query"]
    return [
        (
            "valid ASR",
            percent(code["valid_asr"]),
            f"share of the {attacked}: the saved file, read back and asked again, fools the target, and it is "
            "equivalent to its original by the checks below",
        ),
        (
            "raw ASR",
            percent(code["raw_asr"]),
            f"share of the {attacked}: some program that was asked fooled the target, equivalent or not",
        ),
        (
            "valid ASR, where there are names",
            percent(code["valid_asr_with_identifiers"]),
            f"valid successes over the attacked programs without the {code['no_identifiers']:,} that have no "
            "identifier to rename; these count as not broken everywhere else",
        ),
        (
            "queries, all",
            f"{_number(code['queries_median'])} ({_number(code['queries_mean'])})",
            f"median (mean) over the {attacked}, up to the end of the search, with what was asked to rename less",
        ),
        (
            "queries to success",
            f"{_number(code['queries_to_success_median'])} ({_number(code['queries_to_success_mean'])})",
            f"median (mean) over the {valid}, up to the first equivalent program that fooled the target",
        ),
        (
            "ASR per query",
            _DASH if per_query is None else f"{100 * per_query:.3g}%",
            "valid ASR over the mean number of queries of all",
        ),
        (
            "repeats",
            f"{code['repeats']:,}",
            "programs that the search had asked before: answered from memory, not asked again, no queries",
        ),
        (
            "identifiers renamed",
            percent(code["identifier_change_rate"]),
            f"identifiers with another name over those that may be renamed, mean over the {valid}",
        ),
        (
            "tokens changed",
            percent(code["token_change_rate"]),
            f"tokens that changed over all, a token being a word or one other character, mean over the {valid}",
        ),
        (
            "edit distance",
            _number(code["edit_distance"]),
            f"characters edited (Levenshtein, at every occurrence), mean over the {valid}",
        ),
        (
            "names in use",
            percent(code["names_in_use"]),
            f"share of the {len(code['names']):,} different new names of the valid successes that are names in at "
            f"least {IN_USE} of the data's {code['names_counted_in'] or 0:,} programs, attacked or not",
        ),
        (
            "same style",
            percent(code["same_style"]),
            "share of the renames whose new name is written like the old one (lower, snake, camel, upper case)",
        ),
    ]


def _plots(
    code: dict[str, Any], examples: Sequence[Example], verdicts: Mapping[int, Verdict], budget: int
) -> dict[str, Any]:
    """The two drawings, ``None`` where there is nothing to draw. The text of the drawings holds numbers only."""
    raw = [e.first_adversarial for e in examples if e.attacked and e.first_adversarial is not None]
    valid = [e for e in examples if e.attacked and e.success and verdicts[e.index].equivalent]
    renamed = [len(verdicts[e.index].identifiers) for e in valid]
    rates = ", ".join(f"{percent(row['valid_asr'])} at {row['queries']:,} queries" for row in code["checkpoints"])
    checkpoints = [row["queries"] for row in code["checkpoints"]]
    steps = None
    if raw:
        first = [e.trace[0][0] for e in valid]
        steps = success_plot(first, raw, code["attacked"], budget, checkpoints, f"Valid ASR: {rates}.")
    bars = None
    if renamed:
        bars = names_plot(renamed, f"Identifiers renamed in {len(renamed):,} successes: median {median(renamed):g}.")
    # Markup: the SVG is our own, and no text of the user's is in it.
    return {"success": None if steps is None else Markup(steps), "names": None if bars is None else Markup(bars)}


def _cards(
    folder: RunFolder, run: dict[str, Any], config: Config, examples: Sequence[Example], verdicts: Mapping[int, Verdict]
) -> list[dict[str, Any]]:
    """As many programs as fit, spread evenly from the fewest renames to the most, then files that are no success."""
    cards: list[dict[str, Any]] = []
    room = _CHARACTERS
    for example in choose([e for e in examples if e.attacked], _MOST):
        try:
            original, adversarial = (read_program(folder, kind, example.index) for kind in ("originals", "adversarial"))
        except InputError:
            continue
        verdict = verdicts[example.index]
        parts: list[Part] | None = side_by_side(original, adversarial, equivalent=verdict.equivalent)
        size = size_of(parts or ())
        if size > min(_CARD_CHARACTERS, room):
            parts, size = None, 0
        room -= size
        cards.append(
            {
                "id": example.id,
                "index": example.index,
                "open": len(cards) < _OPEN,
                "before": class_name(run, example.predicted),
                "after": class_name(run, example.adversarial_label),
                "goal": None if config.target_class is None else class_name(run, example.goal_label),
                "scores": _scores(run, example),
                "success": example.success and verdict.equivalent,
                "verified": example.success,
                "to_success": f"{example.trace[0][0]:,}" if example.trace else _DASH,
                "queries": f"{example.queries:,}",
                "reason": example.stop_reason,
                "renames": _renames(verdict),
                "checks": ", ".join(verdict.checks),
                "refusal": verdict.reason,
                "parts": parts,
                "partner": _partner(original),
            }
        )
    return cards


def _renames(verdict: Verdict) -> list[dict[str, Any]]:
    """Old name, new name, occurrences of all variables of that name, and the tint that the lines show it in."""
    counts: Counter[tuple[str, str]] = Counter()
    for rename in verdict.renames:
        counts[rename.old, rename.new] += rename.occurrences
    return [
        {"old": old, "new": new, "occurrences": f"{count:,}", "tint": number % TINTS}
        for number, ((old, new), count) in enumerate(counts.items())
    ]


def _partner(program: Program) -> str | None:
    """The second program of a pair, ``None`` where there is none or it is too long to show."""
    if program.partner is None or len(program.partner) > _CARD_CHARACTERS:
        return None
    return shown(program.partner)


def _scores(run: dict[str, Any], example: Example) -> str:
    if example.score is None or example.adversarial_score is None:
        return ""
    name = class_name(run, example.goal_label)
    return f"score of {name}: {example.score:.3f} \N{RIGHTWARDS ARROW} {example.adversarial_score:.3f}"


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:,.1f}".removesuffix(".0")
