"""The outcome of a check (``check.json``) as text: for tables, Markdown pages and JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any
from xml.etree import ElementTree

__all__ = ["HEADS", "NOTE", "blind", "cells", "fallen_lines", "junit", "label", "markdown", "title"]

HEADS = ("figure", "before", "now", "change [95%]", "p (Holm)", "verdict", "shows", "needs")
NOTE = (
    "change: points of accuracy, or the median of the paired ratios; shows: the smallest fall that is seen with power "
    "80%; needs: how many examples it takes to tell a fall by the tolerance from none"
)
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LISTED = 20  # fallen examples that are named; check.json has all


def title(check: dict[str, Any]) -> str:
    """One line: what was held against what, and how it ended."""
    fell, all_ = sum(figure["fell"] for figure in check["figures"]), len(check["figures"])
    same = ", which has not changed" if check["same_target"] else ""
    ended = "holds" if check["holds"] else f"{fell} of {all_} figures fell"
    return f"{ended}: {check['target']}{same}, against {check['baseline']} on {check['examples']} examples"


def label(figure: dict[str, Any]) -> str:
    """What a figure is called, such as ``cgba: robust accuracy at 500 queries, epsilon 1.5``."""
    if figure["attack"] is None:
        return str(figure["name"])
    text = f"{figure['attack']}: {figure['name']} at {figure['queries']:,} queries"
    return text if figure["epsilon"] is None else f"{text}, epsilon {figure['epsilon']:.4g}"


def cells(figure: dict[str, Any]) -> list[str]:
    """A row of the table, as ``HEADS`` names it."""
    ratio = _is_ratio(figure)
    show = _number if ratio else _percent
    low, high = (_change(end, ratio) if end is not None else "-" for end in figure["interval"])
    return [
        label(figure),
        show(figure["before"]),
        show(figure["now"]),
        f"{_change(figure['effect'], ratio)} [{low}, {high}]",
        f"{figure['p_adjusted']:.3g}",
        "FELL" if figure["fell"] else "holds",
        _percent(figure["detectable"]),
        "-" if figure["examples_needed"] is None else f"{figure['examples_needed']:,}",
    ]


def fallen_lines(figure: dict[str, Any], folder: PurePath | None = None) -> Iterator[str]:
    """The examples that are worse now, with their files, the first ones.

    Args:
        folder: files are given relative to it, where they lie in it.
    """
    for example in figure["fallen"][:_LISTED]:
        text = f"example {example['index']} ({example['id']})"
        if figure["attack"] is not None:
            text += f": distance {_number(example['before'])} -> {_number(example['now'])}"
        else:
            text += ": was right, is wrong"
        if example["file"] is not None:
            file = PurePath(example["file"])
            text += f"  {file.relative_to(folder) if folder and file.is_relative_to(folder) else file}"
        yield text
    if len(figure["fallen"]) > _LISTED:
        yield f"and {len(figure['fallen']) - _LISTED} more, in check.json"


def blind(figures: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line where there are figures of which no fall, however large, is likely to be seen."""
    count = sum(figure["detectable"] is None and not figure["fell"] for figure in figures)
    if count:
        yield (
            f"too few examples: of {count} of {len(figures)} figures no fall would be seen; take more examples, an "
            "epsilon and a budget that more of them withstand, or fewer epsilons, checkpoints and attacks, which share "
            "alpha"
        )


def markdown(check: dict[str, Any]) -> str:
    """GitHub-flavoured Markdown, for a job's summary."""
    lines = [f"## bbox check: {_escape(title(check))}", "", _row(HEADS), _row(["---"] * len(HEADS))]
    lines += [_row(map(_escape, cells(figure))) for figure in check["figures"]]
    for line in (*blind(check["figures"]), _gates(check) + "; " + NOTE):
        lines += ["", _escape(line) + "."]
    for figure in check["figures"]:
        if figure["fell"]:
            lines += ["", f"**{_escape(label(figure))}**: {len(figure['fallen'])} examples are worse", ""]
            lines += [f"- {_escape(line)}" for line in fallen_lines(figure)]
    return "\n".join(lines) + "\n"


def junit(check: dict[str, Any]) -> str:
    """JUnit XML: one test case a figure; what fell is a failure that names the examples."""
    figures = check["figures"]
    counts = {"tests": str(len(figures)), "failures": str(sum(figure["fell"] for figure in figures))}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "bbox check", "errors": "0", **counts})
    for figure in figures:
        name = {"classname": "bbox." + (figure["attack"] or "model"), "name": label(figure)}
        case = ElementTree.SubElement(suite, "testcase", {key: _clean(text) for key, text in name.items()})
        told = ", ".join(f"{head} {cell}" for head, cell in zip(HEADS[1:], cells(figure)[1:], strict=True))
        if figure["fell"]:
            failure = ElementTree.SubElement(case, "failure", {"type": "fell", "message": _clean(told)})
            failure.text = _clean("\n".join([told, *fallen_lines(figure)]))
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(told)
    ElementTree.indent(suites, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _gates(check: dict[str, Any]) -> str:
    return (
        f"tolerance {_percent(check['tolerance'])} of accuracy, {_percent(check['distance_tolerance'])} of distance; "
        f"exact paired tests, family-wise alpha {check['alpha']:g}; seed {check['seed']}"
    )


def _is_ratio(figure: dict[str, Any]) -> bool:
    return str(figure["name"]).startswith("median")


def _change(value: float | None, ratio: bool) -> str:
    if value is None:
        return "-"
    return f"x{value:.3f}" if ratio else f"{100 * value:+.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _row(texts: Any) -> str:
    return "| " + " | ".join(texts) + " |"


def _escape(text: str) -> str:
    """Text that GitHub's Markdown shows as it is; it takes $ for mathematics."""
    return re.sub(r"([\\|<>`*_\[\]~$&])", r"\\\1", text.replace("\n", " "))


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
