"""Query efficiency: the l2 that each attack reaches within so many queries, read by one independent meter.

    python -m benchmarks.efficiency --case digits32 --goal untargeted --images 16 --budget 2000 \
        --attacks cgba-h foolbox-hsj --cgba-repo PATH

runs the attacks one after another, stores a JSON file for each in ``benchmarks/results`` and prints the table
of everything stored for that case. Without ``--attacks`` it prints the table only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cases import CASES, Case, Item, load_case
from benchmarks.meter import Meter, Spent, distance_at
from benchmarks.peers import ATTACKS, load_attack
from benchmarks.table import format_table, read_results, write_result

CHECKPOINTS = (100, 250, 500, 1000, 2000)
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "foolbox",
    "adversarial-robustness-toolbox",
    "scikit-learn",
    "bbox-toolkit",
)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": name or platform.machine(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
    }


def _seed_everything(seed: int) -> None:
    """Most peers draw from global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def run_item(case: Case, item: Item, attack: Any, *, budget: int, seed: int) -> dict[str, Any]:
    """One attack on one image; whatever it does, what the meter saw stands."""
    meter = Meter(
        case.model,
        item.image,
        item.label,
        budget=budget,
        start=item.start,
        target=item.target,
        num_classes=case.num_classes,
        quantize=case.name.endswith("-8bit"),
    )
    _seed_everything(seed)
    began = time.perf_counter()
    try:
        attack(meter, item.image.clone(), item.label, item.start.clone(), item.target, seed)
        ended = "finished"
    except Spent:
        ended = "spent"
    except NotImplementedError:
        raise
    except Exception as error:  # a peer that breaks keeps what it had reached, and the table says so
        ended = f"{type(error).__name__}: {error}"[:200]
    return {
        "key": item.key,
        "id": item.id,
        "label": item.label,
        "target": item.target,
        "seed": seed,
        "start_l2": meter.trace[0][1],
        "l2": {str(c): distance_at(meter.trace, c) for c in CHECKPOINTS if c <= budget},
        "queries": meter.used,
        "calls": meter.calls,
        "outside": meter.outside,
        "ended": ended,
        "seconds": round(time.perf_counter() - began, 3),
        "model_seconds": round(meter.model_seconds, 3),
    }


def run_attack(case: Case, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One attack on all of a case's items, stored as it goes."""
    attack, facts = load_attack(name, options)
    result: dict[str, Any] = {
        "case": case.name,
        "goal": case.goal,
        "attack": name,
        "budget": options.budget,
        "seed": options.seed,
        "checkpoints": [c for c in CHECKPOINTS if c <= options.budget],
        "model": {"fingerprint": case.fingerprint, **case.facts},
        "facts": facts,
        "versions": _versions(),
        "machine": _machine(),
        "images": [],
    }
    for number, item in enumerate(case.items):
        image = run_item(case, item, attack, budget=options.budget, seed=options.seed * 100_003 + number)
        result["images"].append(image)
        write_result(options.results, result)
        reached = " ".join(f"{value:.2f}" for value in image["l2"].values())
        print(
            f"{name} {number + 1}/{len(case.items)} {item.id}: {reached} ({image['ended']})",
            file=sys.stderr,
            flush=True,
        )
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--goal", choices=("untargeted", "targeted"), default="untargeted")
    parser.add_argument("--attacks", nargs="*", choices=ATTACKS, default=[], metavar="NAME", help=", ".join(ATTACKS))
    parser.add_argument("--images", type=int, default=16, help="images, or pairs where the goal is targeted")
    parser.add_argument("--budget", type=int, default=2000, help="queries an image, exact")
    parser.add_argument("--seed", type=int, default=0, help="of the attacks; images and starts have a fixed one")
    parser.add_argument("--quantize", action="store_true", help="the model takes 8-bit pixels")
    parser.add_argument("--cgba-repo", type=Path, help="checkout of the public CGBA code")
    parser.add_argument(
        "--imagenet-dir", type=Path, help="folder with ImageNet validation JPEGs, val.txt in or above it"
    )
    parser.add_argument("--cache-dir", type=Path, default=Path(tempfile.gettempdir()) / "bbox-benchmarks")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    # More threads are slower on small batches when the machine is shared, and results depend on their number.
    torch.set_num_threads(1)
    if options.attacks:
        case = load_case(
            options.case,
            options.goal,
            options.images,
            cache=options.cache_dir,
            imagenet_dir=options.imagenet_dir,
            quantize=options.quantize,
        )
        print(f"{case.name} {case.goal}: {len(case.items)} items, {case.facts}", file=sys.stderr)
        for name in options.attacks:
            run_attack(case, name, options)
    name = f"{options.case}-8bit" if options.quantize else options.case
    print(format_table(read_results(options.results, name, options.goal)))


if __name__ == "__main__":
    main()
