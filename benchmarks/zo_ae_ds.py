"""Defenses by queries at equal budgets: accuracy under noise, certified accuracy, ACR.

    python -m benchmarks.zo_ae_ds --case mnist5k --seeds 0 1 2            # every row, stored as it finishes
    python -m benchmarks.zo_ae_ds --case mnist5k --rows ours --certify 500
    python -m benchmarks.zo_ae_ds --case mnist5k --table                  # what is stored, no run

Everything is measured on 1,000 images that nothing was trained or chosen on. The query-free parts (autoencoder,
denoiser on the squared error) depend on the seed alone and are trained once a seed for all rows of it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bbox
from bbox.defenses import certify, noise_accuracy
from bbox.defenses.zo_ae_ds import ZOAEDS, fit
from bbox.oracle import Oracle
from bbox.targets.base import Target
from bbox.targets.torch_module import TorchTarget

RESULTS = Path(__file__).with_name("results") / "zo-ae-ds.json"
BUDGET = 600_000
_SMALL: dict[str, Any] = {"denoiser": "dncnn"}
_SCRATCH: dict[str, Any] = {**_SMALL, "gradient": "zo", "init": "scratch", "screen": -1.0, "anchor": 0.0}
# name: (budget, options); None for the bare black box.
ROWS: dict[str, tuple[int, dict[str, Any] | None]] = {
    "undefended": (0, None),
    "MSE DnCNN": (BUDGET, {**_SMALL, "gradient": "none", "space": "image"}),
    "MSE U-Net": (BUDGET, {"gradient": "none", "space": "image"}),
    "MSE DnCNN + AE32": (BUDGET, {**_SMALL, "gradient": "none", "space": "ae"}),
    "MSE U-Net + AE32": (BUDGET, {"gradient": "none", "space": "ae"}),
    "first order DnCNN, scratch (white box)": (
        BUDGET,
        {**_SMALL, "gradient": "first-order", "space": "image", "init": "scratch", "anchor": 0.0},
    ),
    "first order U-Net, MSE start (white box)": (BUDGET, {"gradient": "first-order", "space": "image"}),
    "ZO-DS sphere q=20": (BUDGET, {**_SCRATCH, "space": "image", "estimator": "sphere", "q": 20, "batch": 128}),
    "ZO-AE192-DS CGE central (paper)": (
        BUDGET,
        {**_SCRATCH, "dim": 192, "estimator": "cge", "side": "central", "batch": 64, "step": 0.005},
    ),
    "ZO-AE192-DS CGE forward": (BUDGET, {**_SCRATCH, "dim": 192, "estimator": "cge", "batch": 64}),
    "ZO-AE192-DS sphere q=20": (BUDGET, {**_SCRATCH, "dim": 192, "estimator": "sphere", "q": 20, "batch": 128}),
    "ZO-AE32-DS CGE forward": (BUDGET, {**_SCRATCH, "estimator": "cge", "batch": 128}),
    "ZO-AE32-DS orthogonal q=4, MSE start": (BUDGET, {**_SCRATCH, "init": "mse", "batch": 256}),
    "screened ZO-AE32-DS, DnCNN": (BUDGET, {**_SMALL, "gradient": "zo"}),
    "surrogate-AE32, DnCNN, 44 k": (44_000, {**_SMALL, "gradient": "surrogate", "space": "ae", "first": 400}),
    "surrogate-AE32, U-Net, 44 k": (44_000, {"gradient": "surrogate", "space": "ae", "first": 400}),
    "surrogate, U-Net, 44 k": (44_000, {}),
    "ours (defaults)": (BUDGET, {}),
}


class Classifier(nn.Module):
    """The black box of the study that this follows: two convolutions, 52,180 parameters on 1x28x28."""

    def __init__(self, shape: tuple[int, ...], classes: int = 10) -> None:
        super().__init__()
        side = shape[1] // 4
        self.body = nn.Sequential(
            nn.Conv2d(shape[0], 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * side * side, 30),
            nn.ReLU(),
            nn.Linear(30, classes),
        )

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.body(rows.contiguous(memory_format=torch.channels_last))
        return logits


def load_case(name: str) -> tuple[Target, Tensor, Tensor, Tensor]:
    """Black box, training images, test images, test labels; 4000 and 1000 images, stratified, seed 0."""
    data = bbox.data.load({"mnist5k": "zoo:mnist-5k", "photo-digits": "zoo:photo-digits"}[name])
    assert data.labels is not None
    generator = torch.Generator().manual_seed(0)
    test = torch.zeros(len(data), dtype=torch.bool)
    for label in range(10):
        rows = (data.labels == label).nonzero()[:, 0]
        test[rows[torch.randperm(len(rows), generator=generator)[: len(rows) // 5]]] = True
    images, labels = data.inputs[~test], data.labels[~test]
    torch.manual_seed(0)
    model = Classifier(tuple(images.shape[1:])).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range({"mnist5k": 6, "photo-digits": 40}[name]):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return TorchTarget(model.eval(), name=name, num_classes=10), images, data.inputs[test], data.labels[test]


def share_starts(folder: Path, case: str) -> None:
    """Keep what a seed trains without queries: the rows of a seed begin at the same weights."""

    def kept(kind: str, train: Callable[..., None]) -> Callable[..., None]:
        def run(module: Any, *rest: Any, **options: Any) -> None:
            part = module.denoiser if kind == "denoiser" else module
            shapes = "-".join(str(len(p)) for p in part.parameters())
            path = folder / f"{case}-{kind}-{torch.initial_seed()}-{hash(shapes) & 0xFFFFFF:x}.pt"
            if path.exists():
                part.load_state_dict(torch.load(path, weights_only=True))
            else:
                train(module, *rest, **options)
                folder.mkdir(parents=True, exist_ok=True)
                torch.save(part.state_dict(), path)

        return run

    fit.train_denoiser = kept("denoiser", fit.train_denoiser)  # type: ignore[assignment]
    fit.train_autoencoder = kept("autoencoder", fit.train_autoencoder)  # type: ignore[assignment]


def run_row(case: str, name: str, seed: int, sigma: float, certified: int, loaded: Any) -> dict[str, Any]:
    """Fit one row and measure it."""
    target, images, tests, truth = loaded
    budget, options = ROWS[name]
    oracle = Oracle(target, max_batch=256)
    record: dict[str, Any] = {"case": case, "row": name, "seed": seed, "sigma": sigma, "budget": budget}
    defended: Target = target
    began = time.process_time()
    if options is not None:
        defense = ZOAEDS(sigma=sigma, **options)
        record["fit"] = defense.fit(oracle, images, budget=budget, seed=seed)
        defended = defense.wrap(target)
    record["cpu_seconds"] = round(time.process_time() - began, 1)
    record["queries"] = {purpose: ledger.queries for purpose, ledger in oracle.books.items()}
    record["training_queries"] = sum(record["queries"].values())
    judge = Oracle(defended, max_batch=256)
    found = noise_accuracy(judge, tests, truth, sigma=sigma, draws=3, seed=1)
    record["noise_accuracy"], record["standard_error"] = found.value, found.standard_error
    record["clean_accuracy"] = float((judge.ask(tests, "clean").labels == truth).float().mean())
    if certified:
        rows = torch.arange(0, len(tests), len(tests) // certified)[:certified]
        certificate = certify(
            judge,
            tests[rows],
            truth[rows],
            sigma=sigma,
            n0=100,
            n=1000,
            radii=None,
            method="fixed",
            seed=1,
            indices=rows,
        )
        shares = certificate.certified_accuracy((0.0, 0.25, 0.5, 0.75, 1.0))
        record["acr"] = certificate.acr
        record["certified_accuracy"] = {f"{share.radius:g}": share.value for share in shares}
        record["certified_images"] = certified
    return record


def store(record: dict[str, Any], path: Path) -> None:
    """Add a record, or put it in the place of an older one of the same row and seed."""
    old = json.loads(path.read_text()) if path.exists() else []
    same = [r for r in old if all(r[k] == record[k] for k in ("case", "row", "seed"))]
    if same and "acr" in same[0] and "acr" not in record:
        record = {**{k: same[0][k] for k in ("acr", "certified_accuracy", "certified_images")}, **record}
    path.write_text(json.dumps([r for r in old if r not in same] + [record], indent=1) + "\n")


def table(case: str, path: Path) -> None:
    """Print what is stored: mean over seeds, and their deviation."""
    records = [r for r in json.loads(path.read_text()) if r["case"] == case]
    print(f"{'row':44} {'queries':>9} {'noise accuracy':>16} {'clean':>6} {'ACR':>6}  CA at 0 / .25 / .5 / .75 / 1")
    for name in ROWS:
        rows = [r for r in records if r["row"] == name]
        if not rows:
            continue
        gradient = (ROWS[name][1] or {}).get("gradient")
        # Query-free and white-box rows ask only to fill their own table.
        asked = 0 if gradient in ("none", "first-order") else max(r["training_queries"] for r in rows)
        values = [100 * r["noise_accuracy"] for r in rows]
        spread = f"+-{stdev(values):.1f} ({len(values)})" if len(values) > 1 else "(1)"
        acr = [r["acr"] for r in rows if "acr" in r]
        shares = [r["certified_accuracy"] for r in rows if "acr" in r]
        certified = " / ".join(f"{100 * mean(s[k] for s in shares):.1f}" for k in shares[0]) if shares else ""
        print(
            f"{name:44} {asked:9,} {mean(values):7.1f} {spread:>8} "
            f"{100 * mean(r['clean_accuracy'] for r in rows):6.1f} {f'{mean(acr):.3f}' if acr else '':>6}  {certified}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("mnist5k", "photo-digits"), default="mnist5k")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--certify", type=int, default=0, help="test images to certify, n0 = 100, n = 1,000")
    parser.add_argument("--cache-dir", type=Path, default=Path("/tmp/bbox-zo-ae-ds"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        torch.set_num_threads(1)
        share_starts(options.cache_dir, options.case)
        loaded = load_case(options.case)
        for seed in options.seeds:
            for name in options.rows:
                record = run_row(options.case, name, seed, options.sigma, options.certify, loaded)
                store(record, options.out)
                print(
                    name,
                    seed,
                    f"{100 * record['noise_accuracy']:.1f}",
                    record.get("acr"),
                    record["cpu_seconds"],
                    flush=True,
                )
    table(options.case, options.out)


if __name__ == "__main__":
    main()
