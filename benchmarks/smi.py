"""SMI against plain attacks and baselines that know no gradient, on victims that resist sensor noise.

    python -m benchmarks.smi --data DIR --cache DIR [--seeds 3] [--clips 64]     (DIR: see benchmarks.motion_victims)
    python -m benchmarks.smi --table

Each seed has its own clips, encoders and draws; every row of a seed has the same clips and the same budget (linf).
The encoders learn from the test windows alone, without labels, as the paper's from its test set; no victim saw those.
Rows go into ``benchmarks/results/smi.json`` as they are made; rows that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbox.attacks.smi import BASELINES, SMI, perturb
from bbox.attacks.smi.surrogate import surrogate_of
from bbox.data.base import MotionSet
from bbox.motion.bones import project_bones
from bbox.motion.encoders import MotionEncoder, load_encoder, make_encoder, save_encoder
from bbox.motion.networks import MotionNetwork
from bbox.motion.pretraining import pretrain
from bbox.motion.recipes import RECIPES
from bbox.motion.training import accuracy
from bbox.motion.validity import measure
from bbox.zo import root_keys
from benchmarks.motion_victims import VICTIMS, load_split, victim
from benchmarks.results_file import RESULTS

_FILE = RESULTS / "smi.json"
_ITERATIONS = 40
_PUBLISHED = {"start": "clean", "bandwidth": 0.0}
# encoder, label of the row, options of the attack. ``paper``: the published recipe and encoder.
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("both", "MI, constant, from drift", {"gradient": "constant", "start": "drift"}),
    ("both", "MI, constant", {"gradient": "constant", "start": "clean"}),
    ("both", "MI, smi2", {"gradient": "smi2", "start": "clean"}),
    ("both", "MI, none", {"gradient": "none", "start": "clean"}),
    ("sequence", "MI, constant, from drift", {"gradient": "constant", "start": "drift"}),
    *[
        ("sequence", f"MI, {g}", {"gradient": g, "start": "clean"})
        for g in ("none", "smi1", "smi2", "adjoint:stable", "gaussian:5", "constant")
    ],
    *[("paper", f"MI, {g}", {"gradient": g, **_PUBLISHED}) for g in ("smi2", "none", "smi1")],
    ("paper", "MI, constant", {"gradient": "constant", "start": "clean"}),
    ("both", "MI, constant, views", {"gradient": "constant", "start": "clean", "views": True}),
    ("sequence", "MI, constant, views", {"gradient": "constant", "start": "clean", "views": True}),
    ("both", "MI, constant, views, from drift", {"gradient": "constant", "start": "drift", "views": True}),
    ("both", "MI, smi2, from drift", {"gradient": "smi2", "start": "drift"}),
    ("both", "MI, gaussian:5, from drift", {"gradient": "gaussian:5", "start": "drift"}),
    ("both", "MI, constant, from drift, bones kept", {"gradient": "constant", "start": "drift", "rigid": True}),
    (
        "both",
        "MI, constant, from drift, own features only",
        {"gradient": "constant", "start": "drift", "negatives": "none"},
    ),
    *[("untrained", f"MI, {g}", {"gradient": g, "start": "clean"}) for g in ("smi2", "constant")],
    ("untrained", "MI, constant, from drift", {"gradient": "constant", "start": "drift"}),
    *[("both", f"MI, {g}", {"gradient": g, "start": "clean"}) for g in ("smi1", "adjoint:stable", "gaussian:5")],
    ("both", "I, none", {"update": "ifgsm", "gradient": "none", "start": "clean"}),
    ("both", "I, smi2", {"update": "ifgsm", "gradient": "smi2", "start": "clean"}),
    *[("paper", f"I, {g}", {"update": "ifgsm", "gradient": g, **_PUBLISHED}) for g in ("none", "smi1", "smi2")],
    ("both", "MI, constant, bones kept", {"gradient": "constant", "start": "clean", "rigid": True}),
    *[("graph", f"MI, {g}", {"gradient": g, "start": "clean"}) for g in ("none", "smi2", "constant")],
    *[
        ("both", f"MI, {g}, bones kept", {"gradient": g, "start": "clean", "rigid": True})
        for g in ("none", "smi2", "adjoint:stable")
    ],
]
_AT_A_THIRD = ("MI, smi2", "MI, constant", "MI, constant, from drift")  # also at a third of the size


def encoder_of(kind: str, data: MotionSet, seed: int, cache: Path, facts: dict[str, Any]) -> MotionEncoder:
    """An encoder of this seed, from the cache or learned now."""
    if kind == "untrained":
        return make_encoder("both", data.skeleton, seed=seed)
    if kind in ("graph", "sequence"):  # the parts of both learn side by side, each by itself
        return MotionEncoder({kind: encoder_of("both", data, seed, cache, facts).networks[kind]})
    folder = cache / f"encoder-{kind}-{seed}"
    if not (folder / "facts.json").exists():
        recipe = RECIPES["paper" if kind == "paper" else "small"]
        if (
            kind == "paper"
        ):  # 451 epochs are hours of CPU here; the augmentations, the loss and the rate are the paper's
            recipe = replace(recipe, epochs=facts["paper_epochs"], drops=())
        made = make_encoder("both" if kind == "paper" else kind, data.skeleton, seed=seed)
        began = time.process_time()
        found = pretrain(made, data.inputs, recipe, seed=seed, labels=data.labels, keep="trained")
        save_encoder(folder, found.encoder)
        about = {
            "before": [found.before.instance, found.before.neighbour],
            "after": [found.after.instance, found.after.neighbour],
            "warning": found.warning,
            "epochs": recipe.epochs,
            "cpu_seconds": time.process_time() - began,
        }
        (folder / "facts.json").write_text(json.dumps(about))
    facts[f"{kind}-{seed}"] = json.loads((folder / "facts.json").read_text())
    encoder = load_encoder(folder)
    # The paper keeps the graph encoder and throws the other away.
    return MotionEncoder({"graph": encoder.networks["graph"]}) if kind == "paper" else encoder


def save(path: Path, content: dict[str, Any]) -> None:
    """One line a row, since each holds a number for every clip."""
    rows = ",\n".join(json.dumps(row) for row in content["rows"])
    head = json.dumps({**content, "rows": []}, indent=1)
    path.write_text(head.replace('"rows": []', f'"rows": [\n{rows}\n]') + "\n")


def judge(
    motions: Tensor, clips: MotionSet, victims: dict[str, MotionNetwork], clean: dict[str, Tensor]
) -> dict[str, Any]:
    changed, right, fooled = {}, {}, torch.zeros(len(clips), dtype=torch.int64)
    for name, network in victims.items():
        with torch.inference_mode():
            said = torch.cat([network(part).argmax(1) for part in motions.split(128)])
        moved = said != clean[name]
        changed[name] = int(moved.sum())
        fooled += moved
        right[name] = int(moved[clean[name] == clips.labels].sum())
    return {
        "changed": changed,
        "changed_of_right": right,
        "victims_fooled": fooled.tolist(),
        **measure(motions, clips.inputs, clips.skeleton).summary(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--paper-epochs", type=int, default=6)
    parser.add_argument("--result", type=Path, default=_FILE, help="one a process, where seeds run side by side")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.result.read_text())))
        return
    torch.set_num_threads(1)
    content: dict[str, Any] = {"rows": [], "encoders": {}}
    if args.result.exists():
        content = json.loads(args.result.read_text())
    training, test = load_split(args.data, args.cache)
    victims = {name: victim(name, (training, test), args.cache) for name in VICTIMS}
    content |= {
        "data": test.name.rsplit("/", 3)[-1] if args.data != "zoo" else "zoo",
        "test_windows": len(test),
        "clips": args.clips,
        "iterations": _ITERATIONS,
        "torch": torch.__version__,
        "victims": {
            n: {"parameters": sum(p.numel() for p in v.parameters()), "accuracy": accuracy(v, test)}
            for n, v in victims.items()
        },
    }
    content["encoders"]["paper_epochs"] = args.paper_epochs
    for seed in range(args.first_seed, args.seeds):
        run_seed(seed, test, victims, args, content)


def run_seed(seed: int, test: MotionSet, victims: dict[str, MotionNetwork], args: Any, content: dict[str, Any]) -> None:
    clips = test.select(limit=args.clips, seed=seed)
    index = clips.indices  # rows of the cached test windows are looked up by their own place
    place = {number: row for row, number in enumerate(test.indices.tolist())}
    rows = torch.tensor([place[number] for number in index.tolist()])
    keys = root_keys(seed, index)
    with torch.inference_mode():
        clean = {name: network(clips.inputs).argmax(1) for name, network in victims.items()}
    right = {name: int((said == clips.labels).sum()) for name, said in clean.items()}

    def done(encoder: str, label: str, epsilon: float) -> bool:
        mark = (seed, encoder, label, epsilon)
        return any((r["seed"], r["encoder"], r["label"], r["epsilon"]) == mark for r in content["rows"])

    def keep(encoder: str, label: str, epsilon: float, motions: Tensor, seconds: float) -> None:
        figures = judge(motions, clips, victims, clean)
        row = {"seed": seed, "encoder": encoder, "label": label, "epsilon": epsilon, "clips": len(clips)}
        content["rows"].append({**row, "right": right, "seconds": seconds, **figures})
        save(args.result, content)
        mean = 100 * sum(figures["changed"].values()) / len(clips) / len(victims)
        what = f"seed {seed} eps {epsilon} {encoder:9s} {label:40s}"
        print(f"{what} mean {mean:5.1f}  {figures['changed']} {seconds:.0f} s", flush=True)

    for epsilon in (0.03, 0.01):
        for name in BASELINES:
            if not done("-", name, epsilon):
                made = perturb(name, clips.inputs, keys, epsilon=epsilon, norm="linf", pool=test.inputs)
                keep("-", name, epsilon, made, 0.0)
            if name in ("offset", "drift") and not done("-", f"{name}, bones kept", epsilon):
                made = perturb(name, clips.inputs, keys, epsilon=epsilon, norm="linf", pool=test.inputs)
                kept = project_bones(made, clips.inputs, clips.skeleton, epsilon=epsilon)
                keep("-", f"{name}, bones kept", epsilon, kept, 0.0)
    encoders: dict[str, MotionEncoder] = {}
    for epsilon in (0.03, 0.01):
        for kind, label, options in ROWS:
            few = kind in ("paper", "both") and label in _AT_A_THIRD
            if done(kind, label, epsilon) or (epsilon < 0.03 and not few):
                continue
            if kind not in encoders:
                encoders[kind] = encoder_of(kind, test, seed, args.cache, content["encoders"])
            attack = SMI(epsilon=epsilon, iterations=_ITERATIONS, **options)
            goal = surrogate_of(encoders[kind], {}, test, attack.objective, device=torch.device("cpu"), seed=seed).goal
            began = time.process_time()
            made = attack.craft(clips.inputs, goal, clips.skeleton, keys, index=rows, pool=test.inputs)
            keep(kind, label, epsilon, made, time.process_time() - began)


def table(content: dict[str, Any]) -> str:
    """Markdown: fooling rates in percent, pooled over seeds; of the mean the 95% interval over clips, which all victims
    share."""
    names = list(content["victims"])
    lines = [
        f"| eps | encoder | method | mm | bones % | acceleration | {' | '.join(names)} | mean |",
        "| --- " * (7 + len(names)) + "|",
    ]
    groups: dict[tuple[float, str, str], list[dict[str, Any]]] = {}
    for row in content["rows"]:
        groups.setdefault((row["epsilon"], row["encoder"], row["label"]), []).append(row)
    for (epsilon, encoder, label), rows in groups.items():
        total = sum(r["clips"] for r in rows)
        changed = {n: sum(r["changed"][n] for r in rows) for n in names}
        share = torch.tensor([count for r in rows for count in r["victims_fooled"]]).double() / len(names)
        half = 100 * 1.96 * float(share.std()) / len(share) ** 0.5
        keys = ("mean_displacement", "bone_change", "acceleration_change")
        figures = [sum(r[key] for r in rows) / len(rows) for key in keys]
        cells = [f"{figures[0]:.0f}", f"{figures[1]:.1f}", f"{figures[2]:.2f}"]
        cells += [f"{100 * changed[n] / total:.0f}" for n in names]
        cells.append(f"{100 * float(share.mean()):.1f} +- {half:.1f}")
        lines.append(f"| {epsilon:g} | {encoder} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
