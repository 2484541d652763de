"""Fooling rates as the report shows them: a table, and a drawing for each target with the baselines in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from bbox.report.page import percent
from bbox.results.craft_folder import ADVERSARIAL

__all__ = ["describe_fooling"]

_DASH = "\N{EN DASH}"
_OFFSET = "offset"  # the baseline to beat: the strongest of the pilot, and it knows nothing


def describe_fooling(targets: Sequence[dict[str, Any]], methods: Mapping[str, str]) -> dict[str, Any] | None:
    """The table of fooling rates and a drawing for each target; ``None`` where no target was asked."""
    if not targets:
        return None
    labelled = any(target["correct"] is not None for target in targets)
    return {
        "labelled": labelled,
        "targets": [
            {
                "name": target["target"],
                "accuracy": percent(target["clean_accuracy"]),
                "plot": [
                    _dot(name, target["methods"][m]["all"]) for m, name in methods.items() if m in target["methods"]
                ],
                "offset": _rate(target, _OFFSET),
                "against": _against(target),
            }
            for target in targets
        ],
        "rows": [
            {
                "name": name,
                "mine": method == ADVERSARIAL,
                "cells": [
                    _cell(target["methods"].get(method, {}).get(among))
                    for target in targets
                    for among in (("all", "correct") if labelled else ("all",))
                ],
                "mean": _mean([_rate(target, method) for target in targets]),
            }
            for method, name in methods.items()
        ],
    }


def _rate(target: dict[str, Any], method: str) -> float | None:
    value: float | None = target["methods"].get(method, {}).get("all", {}).get("value")
    return value


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return percent(sum(known) / len(known) if len(known) == len(values) else None)


def _cell(figures: dict[str, Any] | None) -> dict[str, str]:
    if figures is None or figures["value"] is None:
        return {"value": _DASH, "of": "", "interval": ""}
    low, high = figures["interval"]
    return {
        "value": percent(figures["value"]),
        "of": f"{figures['changed']:,} of {figures['of']:,}",
        "interval": f"{100 * low:.1f} to {100 * high:.1f}",
    }


def _dot(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    low, high = figures["interval"]
    return {"name": name, "value": figures["value"], "low": low, "high": high, "text": percent(figures["value"])}


def _against(target: dict[str, Any]) -> dict[str, Any] | None:
    """The attack and the constant offset on the same motions: an exact sign test (McNemar) of where they differ."""
    answers, clean = target["answers"], target["clean"]
    if ADVERSARIAL not in answers or _OFFSET not in answers:
        return None
    fooled = [
        (mine != before, its != before)
        for mine, its, before in zip(answers[ADVERSARIAL], answers[_OFFSET], clean, strict=True)
    ]
    mine, its = fooled.count((True, False)), fooled.count((False, True))
    chance = float(stats.binomtest(mine, mine + its).pvalue) if mine + its else 1.0
    verdict = (
        "no clear difference" if chance >= 0.05 else "the attack is better" if mine > its else "the attack is worse"
    )
    return {
        "mine": f"{mine:,}",
        "its": f"{its:,}",
        "both": f"{fooled.count((True, True)):,}",
        "p": f"{chance:.2g}",
        "verdict": verdict,
        "tone": "good" if verdict.endswith("better") else "bad" if verdict.endswith("worse") else "",
    }
