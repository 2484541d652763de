"""Small folders of runs on motion, for tests of their reports."""

from __future__ import annotations

import torch
from torch import Tensor

from bbox.motion.presence import present
from bbox.motion.skeleton import Skeleton
from bbox.results.craft_config import CraftConfig
from bbox.results.craft_folder import ADVERSARIAL, CraftFolder
from bbox.results.evaluate_run import fooling
from bbox.results.records import Config, Example
from bbox.results.store import RunFolder

BODY = Skeleton(
    "body9",
    ("hips", "chest", "head", "hand_left", "hand_right", "knee_left", "foot_left", "knee_right", "foot_right"),
    (-1, 0, 1, 1, 1, 0, 5, 0, 7),
    ((3, 4), (5, 7), (6, 8)),
)
_POSE = (
    (0, 0.9, 0), (0, 1.3, 0), (0, 1.6, 0), (0.4, 1.0, 0.1), (-0.4, 1.0, 0.1),
    (0.1, 0.5, 0), (0.1, 0, 0.05), (-0.1, 0.5, 0), (-0.1, 0, 0.05),
)  # fmt: skip
METHODS = (ADVERSARIAL, "noise", "smooth-noise", "offset", "low-pass")
MEASURES = ("mean_displacement", "bone_change", "acceleration_change", "acceleration_ratio", "hinges_outside")


def walks(count: int, *, frames: int = 20, bodies: int = 1, seed: int = 0) -> Tensor:
    """A body that swings its limbs and walks along x: (count, 3, frames, 9, bodies)."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(frames) / 30
    swing = torch.randn((count, 3, 1, 9, bodies), generator=generator) * 0.1
    pose = torch.tensor(_POSE).T[None, :, None, :, None]
    motions = pose + swing * torch.sin(6 * time)[:, None, None]
    motions[:, 0] += time[:, None, None] + torch.arange(bodies)
    return motions.float()


def changed(motions: Tensor, method: str) -> Tensor:
    """A perturbation of 30 mm in linf, absent bodies left alone."""
    generator = torch.Generator().manual_seed(METHODS.index(method))
    sign = torch.randn(motions.shape, generator=generator).sign()
    sign = sign[:, :, :1] if method == "offset" else sign
    return motions + 0.03 * sign * (0.8 if method == ADVERSARIAL else 1.0) * present(motions)


def results(methods=METHODS, **changes):
    """What ``execute_craft`` writes, with a different number in every cell."""
    cells = {m: {key: 1.5 + 10 * i + j / 7 for j, key in enumerate(MEASURES)} for i, m in enumerate(methods)}
    for figures in cells.values():
        figures["hinges_outside"] /= 100
    before, after = ({"instance": value, "neighbour": None, "clips": 40} for value in (0.525, 0.871))
    return {
        "schema_version": 1,
        "complete": True,
        "methods": cells,
        "examples": [],
        "encoder": {
            "encoder": "both",
            "motions": 400,
            "before": before,
            "after": after,
            "losses": [3.21, 2.0, 1.125],
            "warning": None,
            "kept": "trained",
        },
        "seconds": {"encoder": 12.5, **{m: 1.25 * (i + 1) for i, m in enumerate(methods)}},
        "queries": 0,
        **changes,
    }


def judged(name: str, labels: list[int], clean: list[int], answers: dict[str, list[int]]):
    """What ``evaluate_target`` gives for one target."""
    truth, before = torch.tensor(labels), torch.tensor(clean)
    right = truth == before
    moved = {m: torch.tensor(said) != before for m, said in answers.items()}
    return {
        "target": name,
        "fingerprint": "c" * 64,
        "clean_accuracy": float(right.double().mean()),
        "correct": int(right.sum()),
        "ledger": {"evaluate": {"queries": 321, "calls": 9, "replayed": 0, "invalid": 0}},
        "methods": {m: {"all": fooling(each), "correct": fooling(each[right])} for m, each in moved.items()},
        "clean": clean,
        "answers": answers,
    }


def craft_run(
    path, motions=None, *, skeleton=BODY, names=("walk", "run", "jump"), ids=None, data="zoo:motion", methods=METHODS,
    made=None, evaluation=(), finished=True, command="bbox attack smi --epsilon 0.03", rate=30.0, **changes
) -> CraftFolder:  # fmt: skip
    """The folder of a no-box run, written as ``execute_craft`` writes it."""
    motions = walks(4) if motions is None else motions
    count = len(motions)
    config = CraftConfig(attack_options={"epsilon": 0.03}, baselines=tuple(m for m in methods if m != ADVERSARIAL))
    ids = [f"clip-{i}" for i in range(count)] if ids is None else ids
    run = {
        "kind": CraftFolder.kind,
        "schema_version": 1,
        "command": command,
        "config": config.to_json(),
        "data": {
            "name": data,
            "kind": "motions",
            "fingerprint": "d" * 16,
            "whole": "e" * 16,
            "pool": 400,
            "examples": count,
            "shape": list(motions.shape[1:]),
            "class_names": list(names),
            "skeleton": skeleton.to_json(),
            "frame_rate": rate,
        },
        "examples": [{"index": 3 * i, "id": ids[i], "label": i % len(names)} for i in range(count)],
        "versions": {"bbox": "0.1.0", "torch": "2.99"},
        "hardware": {"machine": "x86_64", "device": "cpu"},
    }
    folder = CraftFolder.create(path, run)
    for method in ("originals", *methods):
        rows = motions if method == "originals" else changed(motions, method) if made is None else made[method]
        for place in range(count):
            folder.save(method, 3 * place, rows[place])
    if finished:
        folder.write("results.json", results(methods, **changes))
    if evaluation:
        folder.write("evaluation.json", {"schema_version": 1, "targets": list(evaluation)})
    return folder


def attack_run(path, motions=None, *, ids=None, names=("walk", "run", "jump")) -> RunFolder:
    """The folder of a run of ``bbox attack cgba`` on motion, in which every motion was broken."""
    motions = walks(3) if motions is None else motions
    run = {
        "schema_version": 2,
        "command": "bbox attack cgba --data zoo:motion",
        "config": Config(budget=300, tube=0.1).to_json(),
        "target": {"name": "zoo:st-gcn", "fingerprint": "f" * 64, "access": "labels", "num_classes": 3},
        "attack": {"takes": "images", "functions": False},
        "data": {
            "name": "zoo:motion",
            "kind": "motions",
            "fingerprint": "d" * 16,
            "examples": len(motions),
            "shape": list(motions.shape[1:]),
            "class_names": list(names),
            "skeleton": BODY.to_json(),
            "frame_rate": 30.0,
        },
        "versions": {"bbox": "0.1.0"},
        "hardware": {"device": "cpu"},
    }
    folder = RunFolder.create(path, run)
    rows = changed(motions, ADVERSARIAL)
    examples = {}
    for i in range(len(motions)):
        folder.write_array("originals", i, motions[i])
        folder.write_array("adversarial", i, rows[i])
        examples[i] = Example(
            index=i, id=f"clip-{i}" if ids is None else ids[i], label=i % 3, predicted=i % 3, goal_label=i % 3,
            stop_reason="budget", queries=300, success=True, adversarial_label=(i + 1) % 3, distance=0.02 + 0.01 * i,
            png_success=None, png_distance=None, trace=((7, 0.09), (240, 0.02 + 0.01 * i)),
        )  # fmt: skip
    folder.write_examples(examples)
    return folder
