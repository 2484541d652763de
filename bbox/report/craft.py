"""What the report of a no-box run says: whom its motions fool, what was done to them, and the motions themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from bbox.attacks import make_attack
from bbox.motion.skeleton import Skeleton
from bbox.report.motion import MOST, Shown, joint_bars, player
from bbox.report.motion_fooling import describe_fooling
from bbox.report.page import MOTION_NORMS, class_name, percent
from bbox.results.craft_config import CraftConfig
from bbox.results.craft_folder import ADVERSARIAL, CraftFolder

__all__ = ["describe"]

_DASH = "\N{EN DASH}"
_TIMES = "\N{MULTIPLICATION SIGN}"
_CHUNK = 64  # motions read at once

# Measure of bbox.motion.validity, head, decimals.
_MEASURES = (
    ("mean_displacement", "mean displacement, mm", 1),
    ("max_displacement", "largest displacement, mm", 1),
    ("bone_change", "bone length, %", 2),
    ("velocity_change", "velocity, mm/frame", 1),
    ("acceleration_change", "acceleration, mm/frame²", 1),
    ("acceleration_ratio", f"acceleration, {_TIMES} clean", 2),
    ("hinges_outside", "angles out of range, %", 1),
)


def describe(folder: CraftFolder) -> dict[str, Any]:
    """The variables of ``craft.html.j2``. A run that is not complete has its head and its command alone."""
    run, results, config = folder.run(), folder.read("results.json"), folder.config()
    methods = _methods(folder, results)
    targets = (folder.read("evaluation.json") or {}).get("targets", [])
    encoder = _encoder((results or {}).get("encoder") or {})
    return {
        "title": f"{config.attack} on {run['data']['name']}",
        "attack": config.attack,
        "data": run["data"]["name"],
        "complete": results is not None,
        "facts": _facts(run, config, encoder),
        "encoder": encoder,
        "fooling": describe_fooling(targets, methods),
        "measures": _measures(results, methods),
        **_motions(folder, methods, targets),
        "costs": _costs((results or {}).get("seconds", {}), methods, int(run["data"]["examples"])),
        "asked": _asked(targets),
        "command": str(run.get("command", "")),
        "versions": [(name, str(version)) for name, version in run.get("versions", {}).items()],
        "hardware": [(name, str(value)) for name, value in run.get("hardware", {}).items()],
        "fingerprints": [
            ("attacked data", str(run["data"].get("fingerprint", _DASH))),
            ("all of the data", str(run["data"].get("whole", _DASH))),
            *((str(target["target"]), str(target.get("fingerprint", _DASH))) for target in targets),
        ],
        "seed": config.seed,
    }


def _methods(folder: CraftFolder, results: dict[str, Any] | None) -> dict[str, str]:
    """Key and name of each method with figures: the attack, then the baselines as they were asked for."""
    config = folder.config()
    done = list((results or {}).get("methods", {}))
    order = [ADVERSARIAL, *config.baselines, *done]
    names = {method: method for method in dict.fromkeys(order) if method in done}
    return {**names, ADVERSARIAL: config.attack} if ADVERSARIAL in names else names


def _facts(run: dict[str, Any], config: CraftConfig, encoder: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, detail) for the head of the page."""
    data = run["data"]
    attack: Any = make_attack(config.attack, config.attack_options)
    _, frames, joints, bodies = data["shape"]
    options = ", ".join(f"{name} {value}" for name, value in config.attack_options.items())
    size = f"{frames} frames at {data['frame_rate']:g}/s, {joints} joints" + (
        f", {bodies} bodies" if bodies > 1 else ""
    )
    return [
        ("Attack", config.attack, options or "default options"),
        ("Queries", "0", "no target was asked"),
        ("Motions", f"{data['examples']:,}", f"{data['name']}, {size}"),
        ("Epsilon", f"{attack.epsilon:g} m", f"{config.norm}: {MOTION_NORMS[config.norm].removesuffix(', metres')}"),
        ("Encoder", encoder["name"] or str(attack.encoder), encoder["learned"]),
        ("Seed", str(config.seed), ""),
    ]


def _encoder(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is on record of the encoder; one that was at hand has no training."""
    before, after = (facts.get(when) or {} for when in ("before", "after"))
    losses = facts.get("losses") or []
    words = {
        "instance": "instance discrimination: of two random views of a motion, the second is nearest to the first",
        "neighbour": "neighbour agreement: the nearest other motion has its label (read for this alone)",
    }
    return {
        "name": str(facts.get("encoder", "")),
        "learned": f"learned from {facts['motions']:,} motions without labels" if "motions" in facts else "",
        "warning": facts.get("warning") or "",
        "quality": [
            (meaning, percent(before.get(key)), percent(after.get(key)))
            for key, meaning in words.items()
            if before.get(key) is not None or after.get(key) is not None
        ],
        "losses": f"{losses[0]:.3f} to {losses[-1]:.3f}, epochs 1 to {len(losses)}" if losses else "",
        "kept": str(facts.get("kept") or ""),
    }


# --- what was done to the motions ------------------------------------------------------------------------------------


def _measures(results: dict[str, Any] | None, methods: Mapping[str, str]) -> dict[str, Any] | None:
    """The table of measures, of those that the run has."""
    if results is None:
        return None
    found = results["methods"]
    columns = [c for c in _MEASURES if any(found[method].get(c[0]) is not None for method in methods)]
    return {
        "heads": [head for _, head, _ in columns],
        "rows": [
            {
                "name": name,
                "mine": method == ADVERSARIAL,
                "cells": [_number(found[method].get(key), key, digits) for key, _, digits in columns],
            }
            for method, name in methods.items()
        ],
    }


def _number(value: float | None, key: str, digits: int) -> str:
    if value is None:
        return _DASH
    return f"{100 * value if key == 'hinges_outside' else value:,.{digits}f}"


def _motions(folder: CraftFolder, methods: Mapping[str, str], targets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The skeleton player and the mean over joints."""
    run = folder.run()
    listed, data = folder.examples(), run["data"]
    if ADVERSARIAL not in methods:
        return {"player": None, "motions": "", "motions_are": "", "joint_bars": None}
    skeleton = Skeleton.from_json(data["skeleton"])
    fooled = [
        sum(t["answers"][ADVERSARIAL][p] != t["clean"][p] for t in _with(targets, ADVERSARIAL))
        for p in range(len(listed))
    ]
    order = sorted(range(len(listed)), key=lambda place: (-fooled[place], place))[:MOST]
    shown = [_shown(folder, methods, targets, place, fooled[place]) for place in order]
    names = [str(target["target"]) for target in targets]

    def chunks() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        indices = [int(example["index"]) for example in listed]
        for start in range(0, len(indices), _CHUNK):
            part = indices[start : start + _CHUNK]
            yield folder.motions("originals", part), {method: folder.motions(method, part) for method in methods}

    first = "in the order of the data" if not targets else "those that fool most targets first"
    return {
        "player": player(skeleton, float(data["frame_rate"]), methods, shown, targets=names),
        "motions": f"{len(listed):,}",
        "motions_are": f"{'motion' if len(listed) == 1 else 'motions'}, {first}",
        "joint_bars": joint_bars(skeleton, methods, chunks(), f"all {len(listed):,} motions"),
    }


def _with(targets: Sequence[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [target for target in targets if method in target["answers"]]


def _shown(
    folder: CraftFolder, methods: Mapping[str, str], targets: Sequence[dict[str, Any]], place: int, fooled: int
) -> Shown:
    example = folder.examples()[place]
    index = int(example["index"])
    counted = f": fools {fooled} of {len(targets)}" if targets else ""
    return Shown(
        title=f"{example['id']}{counted}",
        original=folder.motions("originals", [index])[0],
        changed={method: folder.motions(method, [index])[0] for method in methods},
        details=[] if example["label"] is None else [f"labelled {class_name(folder.run(), example['label'])}"],
        clean=[_class(folder, target, target["clean"][place]) for target in targets],
        answers={
            method: [_answer(folder, target, method, place) for target in targets] for method in methods if targets
        },
    )


def _answer(folder: CraftFolder, target: dict[str, Any], method: str, place: int) -> tuple[str, bool]:
    if method not in target["answers"]:
        return "not asked", False
    label = target["answers"][method][place]
    return _class(folder, target, label), label != target["clean"][place]


def _class(folder: CraftFolder, target: dict[str, Any], label: int) -> str:
    """What a target's answer is called: it numbers classes in its own way."""
    names = target.get("class_names") or folder.run()["data"]["class_names"]
    return class_name({"data": {"class_names": names}}, label)


# --- costs -----------------------------------------------------------------------------------------------------------


def _costs(seconds: Mapping[str, float], methods: Mapping[str, str], count: int) -> list[tuple[str, str, str]]:
    """(what, seconds, seconds a motion)."""
    rows = [("encoder, learned once", f"{seconds['encoder']:,.1f} s", _DASH)] if "encoder" in seconds else []
    return rows + [
        (name, f"{seconds[method]:,.1f} s", f"{seconds[method] / max(count, 1):.3f} s")
        for method, name in methods.items()
        if method in seconds
    ]


def _asked(targets: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(target, ledger, queries) of the evaluation."""
    return [
        (str(target["target"]), purpose, f"{ledger['queries']:,}")
        for target in targets
        for purpose, ledger in target["ledger"].items()
        if ledger["queries"]
    ]
