"""What the report says: every text and number of the page, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from bbox.oracle import StopReason
from bbox.report.bill import bill
from bbox.report.gallery import Entry, gallery, is_picture
from bbox.report.plots import distance_curves, distance_plot, robustness_plot
from bbox.results.costs import total_ledger
from bbox.results.metrics import default_checkpoints, default_epsilons
from bbox.results.records import Config, Example
from bbox.results.run import figures
from bbox.results.store import RunFolder

__all__ = ["MOTION_NORMS", "attacked_figures", "class_name", "describe", "distance_text", "frame", "percent"]

_LISTED = 20  # examples without an adversarial one that are named
_DASH = "\N{EN DASH}"
_TIMES = "\N{MULTIPLICATION SIGN}"

_REASONS: dict[StopReason, str] = {
    "budget": "all queries of the example were spent",
    "converged": "the attack ended by itself before the budget did",
    "success": "what was asked for was found: this distance, or an adversarial example within the attack's epsilon",
    "start_not_found": "no adversarial starting point was found",
    "no_identifiers": "the program has no identifier that may be renamed; it counts as not broken",
    "already_wrong": "the target was wrong on the original; not attacked",
    "refused": "the target refused to answer the original; not attacked",
    "target_error": "the target gave no valid answer to the original; not attacked",
    "interrupted": "the run was interrupted during the search",
    "time_limit": "the time limit ended the search",
}

_NORMS = {
    "l2": "Euclidean distance",
    "linf": "largest change of a value",
    "names": "identifiers that have another name",
}
MOTION_NORMS = {
    "l2": "root mean square displacement of a joint, metres",
    "linf": "largest displacement of a coordinate, metres",
}

_LEDGERS = {
    "attack": "asked by the attack, within the budget of each example",
    "clean": "the originals, asked once for clean accuracy",
    "probe": "asked at load, to learn the classes and the fastest batch",
    "verify": "saved files, read back and asked again",
    "fit": "asked while a defense was fitted",
}


def describe(folder: RunFolder) -> dict[str, Any]:
    """The variables of the template, for a run on images or motions."""
    run, results = folder.run(), figures(folder)
    config = Config.from_json(run["config"])
    examples = list(folder.examples().values())
    summary = results["summary"]
    planned = int(run["data"]["examples"])
    epsilons = config.epsilons or default_epsilons(run["data"]["shape"], config.norm)
    entries = gallery(folder, examples) if is_picture(run["data"]["shape"]) else []
    return {
        **frame(folder, results, f"{planned:,} example{'' if planned == 1 else 's'}, {_shape(run['data']['shape'])}"),
        "key_figures": [*attacked_figures(summary), *_key_figures(summary, config.norm)],
        "plots": _plots(summary, examples, config, epsilons),
        "checkpoints": _table(summary),
        "norm": config.norm,
        "values": "over values between 0 and 1",
        "epsilons": [f"{eps:.4g}" for eps in epsilons],
        "picture": is_picture(run["data"]["shape"]),
        "shape": _shape(run["data"]["shape"]),
        "entries": [_card(entry, run, config) for entry in entries],
        "reduced": next((f"{w} {_TIMES} {h}" for w, h in (e.reduced for e in entries if e.reduced)), None),
        "unverified": any(not entry.example.success for entry in entries),
    }


def frame(folder: RunFolder, results: dict[str, Any], size: str) -> dict[str, Any]:
    """The variables that every run has. ``size``: of the data, in a few words."""
    run = folder.run()
    config = Config.from_json(run["config"])
    examples = list(folder.examples().values())
    summary = results["summary"]
    planned = int(run["data"]["examples"])
    return {
        "title": f"{config.attack} on {run['target']['name']}",
        "player": None,
        "attack": config.attack,
        "target": run["target"]["name"],
        "complete": results["complete"],
        "cut_short": _cut_short(summary["stop_reasons"]),
        "finished": f"{summary['examples']:,} of {planned:,}",
        "facts": _facts(run, config, size),
        "targeted": config.target_class is not None,
        "with_files": sum(e.distance is not None for e in examples),
        "without": _without(examples),
        "stop_reasons": [
            {"reason": reason, "count": f"{count:,}", "meaning": _REASONS.get(reason, "")}
            for reason, count in sorted(summary["stop_reasons"].items(), key=lambda item: (-item[1], item[0]))
        ],
        **_costs(folder.sessions()),
        "bill": bill(folder),
        "attack_queries": f"{summary['attack_queries']:,}",
        "command": str(run.get("command", "")),
        "versions": [(name, str(version)) for name, version in run.get("versions", {}).items()],
        "hardware": [(name, str(value)) for name, value in run.get("hardware", {}).items()],
        "fingerprints": [
            ("target", str(run["target"].get("fingerprint", _DASH))),
            ("data", str(run["data"].get("fingerprint", _DASH))),
        ],
        "budget": f"{config.budget:,}",
        "seed": config.seed,
    }


def _facts(run: dict[str, Any], config: Config, size: str) -> list[tuple[str, str, str]]:
    """(name, value, detail) for the head of the page."""
    target = run["target"]
    options = ", ".join(f"{name} {value}" for name, value in config.attack_options.items())
    classes = target.get("num_classes")
    answers = "label only" if target.get("access") == "labels" else str(target.get("access") or "")
    if isinstance(config.target_class, int):
        goal = f"class {class_name(run, config.target_class)}"
    else:
        goal = {None: "any wrong class", "next": "the next class"}.get(config.target_class, "a random other class")
    limits = [f"at most {config.max_queries:,} in all"] if config.max_queries is not None else []
    limits += [f"stop at {config.norm} {config.stop_at:g}"] if config.stop_at is not None else []
    motions = run["data"].get("kind") == "motions"
    limits += [f"coordinates move at most {config.tube:g} m"] if motions and config.tube else []
    limits += [f"queries on the {config.quantize} grid"] if config.quantize else []
    about = [f"{classes:,} classes" if classes else "", f"answers {answers}" if answers else ""]
    return [
        ("Attack", config.attack, options or "default options"),
        ("Target", str(target["name"]), ", ".join(part for part in about if part)),
        ("Data", str(run["data"]["name"]), size),
        ("Goal", goal, "untargeted" if config.target_class is None else "targeted"),
        ("Query budget", f"{config.budget:,} an example", "; ".join(limits)),
        ("Norm", config.norm, (MOTION_NORMS if motions else _NORMS)[config.norm]),
        ("Seed", str(config.seed), ""),
    ]


def attacked_figures(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The key figures that every run has: how many were attacked, and clean accuracy."""
    wrong = summary["already_wrong"]
    return [
        {
            "name": "Attacked",
            "value": f"{summary['attacked']:,}",
            "of": f"of {summary['examples']:,}",
            "detail": f"{wrong:,} wrong from the start, left out" if wrong else "none wrong from the start",
        },
        {
            "name": "Clean accuracy",
            "value": percent(summary["clean_accuracy"]),
            "of": "",
            "detail": "right answers to the originals",
        },
    ]


def _key_figures(summary: dict[str, Any], norm: str) -> list[dict[str, Any]]:
    last = summary["checkpoints"][-1]
    png = summary["png"]
    cards: list[dict[str, Any]] = [
        {
            "name": "Adversarial found",
            "value": f"{summary['succeeded']:,}",
            "of": f"of {summary['attacked']:,}",
            "detail": "verified on the saved file, at any distance",
        },
        {
            "name": f"Median {norm}",
            "value": distance_text(last["median_distance"]),
            "of": "",
            "detail": _interval(last["median_distance_interval"], "95% interval ") or "over the attacked examples",
        },
    ]
    cards.append({"name": "ASR", "rows": [(f"ε {c['epsilon']:.4g}", percent(c["value"])) for c in last["asr"]]})
    robust = [(f"ε {c['epsilon']:.4g}", percent(c["value"])) for c in last["robust_accuracy"]]
    cards.append({"name": "Robust accuracy", "rows": robust})
    if png["written"]:
        median = distance_text(png["median_distance"])
        cards.append(
            {
                "name": "As 8-bit PNG",
                "value": f"{png['succeeded']:,}",
                "of": f"of {png['written']:,}",
                "detail": f"still adversarial, median {norm} {median}" if png["succeeded"] else "still adversarial",
            }
        )
    return cards


def _plots(
    summary: dict[str, Any], examples: Sequence[Example], config: Config, epsilons: Sequence[float]
) -> dict[str, Any]:
    """The two drawings, ``None`` where there is nothing to draw, and which bands are in the first.

    The text of the drawings holds numbers only.
    """
    checkpoints = config.checkpoints or default_checkpoints(config.budget, config.norm)
    curves = distance_curves(examples, config.budget, checkpoints)
    reached = [
        f"{distance_text(row['median_distance'])} at {row['queries']:,} queries"
        for row in summary["checkpoints"]
        if row["median_distance"] is not None
    ]
    left = [
        f"{percent(c['value'])} at epsilon {c['epsilon']:.4g}" for c in summary["checkpoints"][-1]["robust_accuracy"]
    ]
    fell = (
        f"Median {config.norm} distance against queries: "
        + (", ".join(reached) or "infinite at every checkpoint")
        + "."
    )
    kept = f"Robust accuracy against epsilon at {config.budget:,} queries: {', '.join(left)}."
    if curves is None:
        return {"distance": None, "robust": None, "bands": []}
    half = bool(np.isfinite(curves.median).any())
    drawn = [bool(np.isfinite(high).any()) for _, high in curves.bands]
    return {
        "bands": [name for name, seen in zip(("outer", "inner"), drawn, strict=False) if seen][::-1],
        # Markup: the SVG is our own, and no text of the user's is in it.
        "distance": Markup(distance_plot(curves, checkpoints, fell, config.norm)) if half else None,
        "robust": Markup(robustness_plot(examples, config.budget, epsilons, kept, config.norm)),
    }


def _table(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "queries": f"{row['queries']:,}",
            "found": f"{row['found']:,}",
            "median": (distance_text(row["median_distance"]), _interval(row["median_distance_interval"])),
            "mean": (distance_text(row["mean_distance"]), _interval(row["mean_distance_interval"])),
            "asr": [percent(cell["value"]) for cell in row["asr"]],
            "robust": [percent(cell["value"]) for cell in row["robust_accuracy"]],
        }
        for row in summary["checkpoints"]
    ]


def _cut_short(reasons: dict[str, int]) -> str | None:
    """Which searches ended before their budget for a reason that is not the attack's, ``None`` if none did."""
    count = reasons.get("time_limit", 0) + reasons.get("interrupted", 0)
    if not count:
        return None
    return f"{count:,} search was" if count == 1 else f"{count:,} searches were"


def _card(entry: Entry, run: dict[str, Any], config: Config) -> dict[str, Any]:
    example = entry.example
    goal = None if config.target_class is None else class_name(run, example.goal_label)
    png = None
    if example.png_success is not None:
        png = "still adversarial" if example.png_success else "no longer adversarial"
    return {
        "id": example.id,
        "index": example.index,
        "images": [
            ("original", entry.original),
            (f"change {_TIMES} {entry.factor:g}", entry.perturbation),
            ("adversarial", entry.adversarial),
        ],
        "pixelated": entry.pixelated,
        "before": class_name(run, example.predicted),
        "after": class_name(run, example.adversarial_label),
        "goal": goal,
        "success": example.success,
        "distance": distance_text(example.distance),
        "queries": f"{example.queries:,}",
        "reason": example.stop_reason,
        "png": png,
        "png_success": bool(example.png_success),
    }


def _without(examples: Sequence[Example]) -> dict[str, Any]:
    """The attacked examples that were searched and gave no adversarial file."""
    nothing = [e for e in examples if e.attacked and e.distance is None]
    rows = [
        {"id": e.id, "queries": f"{e.queries:,}", "reason": e.stop_reason, "fooled": e.first_adversarial}
        for e in nothing[:_LISTED]
    ]
    return {"count": f"{len(nothing):,}", "rows": rows, "more": f"{max(0, len(nothing) - _LISTED):,}"}


_COUNTS = ("queries", "calls", "replayed", "invalid", "cached", "requests", "billed", "retried")


def _costs(sessions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sessions one by one, and their ledgers together."""
    total = total_ledger(sessions)
    rows = []
    for number, session in enumerate(sessions, start=1):
        closed = "ledger" in session
        ended = session.get("ended", closed)
        rows.append(
            {
                "number": number,
                "seconds": f"{session.get('seconds', 0.0):,.1f} s" if closed else _DASH,
                "attack_seconds": f"{session['attack_seconds']:,.1f} s" if "attack_seconds" in session else _DASH,
                "queries": f"{session['ledger'].get('attack', {}).get('queries', 0):,}" if closed else _DASH,
                "threads": session.get("threads", _DASH),
                "max_batch": session.get("max_batch", _DASH),
                "ended": "" if ended else "killed",
            }
        )
    ledgers = [
        {
            "purpose": purpose,
            "meaning": _LEDGERS.get(purpose, ""),
            **{name: f"{sums.get(name, 0):,}" for name in _COUNTS},
        }
        for purpose, sums in total.items()
    ]
    return {
        "sessions": rows,
        "ledgers": ledgers,
        "killed": any(row["ended"] for row in rows),
        "live": any(sums.get("billed") or sums.get("cached") for sums in total.values()),
    }


def class_name(run: dict[str, Any], label: int | str | None) -> str:
    """A class's name where the data gives one, else its number."""
    if label is None or label == -1:
        return "no valid answer"
    names = run["data"].get("class_names")
    return str(names[label]) if names and isinstance(label, int) and 0 <= label < len(names) else str(label)


def _shape(shape: Sequence[int]) -> str:
    return f" {_TIMES} ".join(str(size) for size in shape)


def distance_text(value: float | None) -> str:
    """A distance, to three places or two digits."""
    if value is None:
        return _DASH
    return f"{value:.3f}" if value >= 0.01 or value == 0 else f"{value:.2g}"


def _interval(bounds: Sequence[float | None], before: str = "") -> str:
    low, high = bounds
    return "" if low is None or high is None else f"{before}{distance_text(low)} to {distance_text(high)}"


def percent(value: float | None) -> str:
    return _DASH if value is None else f"{100 * value:.1f}%"
