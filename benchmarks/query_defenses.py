"""What defenses against query attacks cost on the zoo's digits, and what the detectors refuse: docs/query-defenses.md.

``python -m benchmarks.query_defenses``: ten minutes on one busy core. Times are CPU time, the best of 7, with and
without the defense in turn, in batches of 125.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

import bbox
from bbox.defenses import DEFENSES, make_defense
from bbox.oracle import Oracle
from bbox.targets import Target

CHOICES: list[tuple[str, dict[str, object]]] = [
    ("noise", {}),
    ("noise", {"gate": 0.97}),
    ("boundary-noise", {}),
    ("aaa", {}),
    ("aaa", {"kind": "sine", "interval": 6, "strength": 0.7}),
    ("coarsen", {}),
    ("coarsen", {"top": 1}),
    ("jpeg", {}),
    ("bit-depth", {}),
    ("random-resize", {}),
    ("vote", {}),
    ("blacklight", {}),
    ("delta-similarity", {}),
]
ATTACKS: list[tuple[str, dict[str, object]]] = [("cgba", {}), ("cgba", {"step": 0.3})]


def main() -> None:
    torch.set_num_threads(1)
    digits = bbox.data.load("zoo:digits")
    target = bbox.targets.load("zoo:digits", device="cpu")
    print(f"undefended: accuracy {accuracy(target, digits.inputs, digits.labels):.3f}")
    for attack, options in ATTACKS:
        print(f"  {attack} {options}: {run(target, digits, attack, options)}")
    for name, options in CHOICES:
        wrapped = make_defense(name, options).wrap(target)
        times = [(seconds(target, digits.inputs), seconds(wrapped, digits.inputs)) for _ in range(7)]
        speed = min(plain for plain, _ in times) / min(defended for _, defended in times)
        print(f"{name} {options}: accuracy {accuracy(wrapped, digits.inputs, digits.labels):.3f} speed {speed:.2f}")
        for attack, how in ATTACKS:
            print(f"  {attack} {how}: {run(make_defense(name, options).wrap(target), digits, attack, how)}")
    for name in [name for name in DEFENSES.names() if name in ("blacklight", "delta-similarity")]:
        print(f"{name}: " + alarms(make_defense(name).wrap(target), digits.inputs))


def accuracy(target: Target, rows: Tensor, labels: Tensor) -> float:
    return float((Oracle(target.fresh(), max_batch=500).ask(rows).labels == labels).float().mean())


def seconds(target: Target, rows: Tensor) -> float:
    twin, start = target.fresh(), time.process_time()
    for part in rows.split(125):
        twin(part)
    return time.process_time() - start


def run(target: Target, digits: bbox.data.Dataset, attack: str, options: dict[str, object]) -> str:
    """64 images side by side, 500 queries each."""
    few = digits.select(limit=64)
    if target.rows_per_query > 4:
        return "left out: too many rows a query"
    result = bbox.attack(target, few.inputs, few.labels, attack, budget=500, options=options)
    ledger = result.ledgers["attack"]
    verified = int(result.success.sum())
    closest = torch.tensor([example.trace[-1][1] if example.trace else torch.inf for example in result.examples])
    first = f"refused {ledger.refused / ledger.queries:.3f}"
    return f"{first}, verified {verified}/64, median distance {closest.median():.2f}"


def alarms(detector: Target, rows: Tensor) -> str:
    """Refused of distinct images, then of one more copy of each."""
    generator = torch.Generator().manual_seed(1)
    copies = {"clean": rows}
    for sigma in (0.005, 0.02, 0.1):
        copies[f"noise {sigma}"] = (rows + sigma * torch.randn(rows.shape, generator=generator)).clamp(0, 1)
    copies |= {"moved right": rows.roll(1, 3), "moved down": rows.roll(1, 2), "again": rows}
    parts = []
    for kind, traffic in copies.items():
        answers = torch.cat([detector(part) for part in traffic.split(125)])
        parts.append(f"{kind} {float(answers.isnan().all(1).float().mean()):.3f}")
    return ", ".join(parts) + f"; {detector.state_bytes / detector.remembered:.0f} bytes a query"  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
