"""BlackVIP under corruptions and under attack, with and without the prompt: mnist net on UCI digits.

    python -m benchmarks.blackvip_robust [--images 200] [--attack-budget 500]
    python -m benchmarks.blackvip_robust --table           # Markdown of what is stored, no run

The prompt is fitted on clean shots and never sees a corruption. The attack is CGBA (l2) on the whole prompted target,
prompt and encoder included, as an attacker would ask it. Robust accuracy is over all images: one that is wrong before
the attack counts as not robust.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as images_of

import bbox
from bbox.defenses.blackvip import BlackVIP
from bbox.oracle import Oracle
from bbox.targets.base import Target
from benchmarks.blackvip_cases import BUDGET, Store, load_case, rounded

EPSILONS = (0.25, 0.5, 1.0, 1.5, 2.0)


def noise(rows: Tensor, deviation: float) -> Tensor:
    return rows + deviation * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))


def blur(rows: Tensor, sigma: float) -> Tensor:
    changed: Tensor = images_of.gaussian_blur(rows, [2 * round(3 * sigma) + 1] * 2, [sigma, sigma])
    return changed


def contrast(rows: Tensor, share: float) -> Tensor:
    middle = rows.mean((1, 2, 3), keepdim=True)
    return middle + share * (rows - middle)


def rotation(rows: Tensor, degrees: float) -> Tensor:
    changed: Tensor = images_of.rotate(rows, degrees, images_of.InterpolationMode.BILINEAR)
    return changed


def shift(rows: Tensor, pixels: float) -> Tensor:
    move = [int(pixels), int(pixels)]
    changed: Tensor = images_of.affine(rows, 0.0, move, 1.0, [0.0, 0.0], images_of.InterpolationMode.BILINEAR)
    return changed


def jpeg(rows: Tensor, quality: float) -> Tensor:
    coded = torch.empty_like(rows)
    for row, out in zip((rows * 255).round().byte(), coded, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(row[0].numpy()).save(buffer, "JPEG", quality=int(quality))
        out[0] = torch.from_numpy(np.array(Image.open(buffer))) / 255
    return coded


# Kinds of ImageNet-C (Hendrycks, Dietterich 2019) and, where a digit's position is in question, of MNIST-C; two
# severities each, chosen for 28 pixels.
CORRUPTIONS: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, float]]] = {
    "Gaussian noise": (noise, (0.1, 0.25)),
    "blur": (blur, (1.0, 2.0)),
    "contrast": (contrast, (0.6, 0.3)),
    "rotation": (rotation, (10.0, 25.0)),
    "shift": (shift, (2.0, 4.0)),
    "JPEG": (jpeg, (25.0, 8.0)),
}


def corruptions(targets: dict[str, Target], rows: Tensor, labels: Tensor, store: Store) -> None:
    """Accuracy of each target on clean and on corrupted images."""
    cases: list[tuple[str, float, Tensor]] = [("none", 0.0, rows)]
    for name, (corrupt, severities) in CORRUPTIONS.items():
        cases += [(name, severity, corrupt(rows, severity).clamp(0, 1)) for severity in severities]
    for name, severity, corrupted in cases:
        record: dict[str, Any] = {"kind": "corruption", "name": f"{name} {severity:g}" if severity else name}
        for who, target in targets.items():
            answers = Oracle(target, max_batch=256).ask(corrupted, "evaluate").labels
            record[who] = float((answers == labels).float().mean())
        store.add(rounded({**record, "images": len(rows)}))


def attacks(targets: dict[str, Target], rows: Tensor, labels: Tensor, budget: int, store: Store) -> None:
    """CGBA on each target."""
    for who, target in targets.items():
        found = bbox.attack(target, rows, labels, "cgba", budget=budget, epsilons=EPSILONS, max_batch=256)
        last = found.summary["checkpoints"][-1]
        record = {
            "kind": "cgba",
            "name": who,
            "images": len(rows),
            "budget": budget,
            "clean_accuracy": found.summary["clean_accuracy"],
            "median_l2_of_those_right": last["median_distance"],
            "robust_accuracy": {f"{entry['epsilon']:g}": entry["value"] for entry in last["robust_accuracy"]},
            "queries": {purpose: ledger.queries for purpose, ledger in found.ledgers.items()},
        }
        store.add(rounded(record))
        print(record, flush=True)


def table(store: Store) -> str:
    lines = ["| corruption | no prompt | prompt |", "|---|---|---|"]
    for record in store.find(kind="corruption"):
        lines.append(f"| {record['name']} | {100 * record['no prompt']:.1f} | {100 * record['prompt']:.1f} |")
    heads = " | ".join(f"robust at {epsilon:g}" for epsilon in EPSILONS)
    lines += ["", f"| CGBA | clean | median l2 | {heads} |", "|---" * (3 + len(EPSILONS)) + "|"]
    for record in store.find(kind="cgba"):
        robust = " | ".join(f"{100 * record['robust_accuracy'][f'{e:g}']:.1f}" for e in EPSILONS)
        median = record["median_l2_of_those_right"]
        lines.append(f"| {record['name']} | {100 * record['clean_accuracy']:.1f} | {median:.2f} | {robust} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="mnist-uci")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--images", type=int, default=200, help="to attack")
    parser.add_argument("--attack-budget", type=int, default=500, help="queries an image")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="another file than results/blackvip-robust.json")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    store = Store("blackvip-robust", "kind", "name", path=options.out)
    if not options.table:
        loaded = load_case(options.case, options.seed)
        training, (rows, labels) = loaded.pairs()
        defense = BlackVIP()
        oracle = Oracle(loaded.target, max_batch=256)
        fit = defense.fit(oracle, *training, budget=options.budget, seed=options.seed)
        store.add({"kind": "fit", "name": defense.describe(), "seed": options.seed, "identity": fit["identity"]})
        targets = {"no prompt": loaded.target, "prompt": defense.wrap(loaded.target)}
        corruptions(targets, rows, labels, store)
        attacks(targets, rows[: options.images], labels[: options.images], options.attack_budget, store)
    print(table(store))


if __name__ == "__main__":
    main()
