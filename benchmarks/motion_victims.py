"""Victims of the SMI study: six classifiers of motion, trained with sensor noise so that noise alone fools none.

    python -m benchmarks.motion_victims --data DIR --cache DIR [--only NAME]

``--data`` is the folder ``data`` of Bandai-Namco-Research-Motiondataset-2 (BVH, CC BY-NC 4.0, github.com/
BandaiNamcoResearchInc; not shipped). Windows of 48 frames at 30 Hz, 70 content-style classes; every third recording of
a class is for testing, so no recording is on both sides; at most 30 windows a class to train on and 11 to test.
``--data zoo`` takes the embedded motions. Weights go to the cache and are used again.
"""

from __future__ import annotations

import argparse
import re
import time
import zlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from bbox import data as data_module
from bbox.data.base import MotionSet
from bbox.motion.networks import MotionNetwork, make_network
from bbox.motion.training import accuracy

VICTIMS = {"gru": 40, "st-gcn": 15, "agcn": 15, "ctr-gcn": 15, "hcn": 40, "transformer": 60}  # epochs
_BATCH, _NOISE, _TURN, _SCALE = 64, 0.03, 0.3, 0.1


def load_split(source: str, cache: Path) -> tuple[MotionSet, MotionSet]:
    """Training and test windows."""
    if source == "zoo":
        return data_module.load("zoo:motion,split=train"), data_module.load("zoo:motion")
    kept = cache / "windows.pt"
    if kept.exists():
        return torch.load(kept, weights_only=False)  # our own file
    whole = data_module.load(f"motion:{source},frames=48,stride=48,label=content-style")
    number = torch.tensor([int(re.search(r"_(\d+)\.bvh", name).group(1)) for name in whole.ids])
    generator = torch.Generator().manual_seed(0)
    sides = []
    for side, most in (((number % 3 != 0), 30), ((number % 3 == 0), 11)):
        rows = []
        for label in range(len(whole.class_names)):
            mine = (side & (whole.labels == label)).nonzero()[:, 0]
            rows.append(mine[torch.randperm(len(mine), generator=generator)[:most]])
        sides.append(whole.take(torch.cat(rows).sort().values))
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(tuple(sides), kept)
    return sides[0], sides[1]


def train(name: str, data: MotionSet, epochs: int, seed: int) -> MotionNetwork:
    """AdamW, one cycle; white noise of up to 3 cm, turns of up to 17 degrees, sizes within 10%."""
    torch.manual_seed(seed)
    network = make_network(name, data.skeleton, len(data.class_names))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    steps = len(data) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(data))
        total, began = 0.0, time.time()
        for batch in order[: steps * _BATCH].split(_BATCH):
            loss = functional.cross_entropy(
                network(_varied(data.inputs[batch])), data.labels[batch], label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) / steps
        print(f"{name}: epoch {epoch + 1} of {epochs}, loss {total:.3f}, {time.time() - began:.1f} s", flush=True)
    return network


def _varied(motions: Tensor) -> Tensor:
    n = len(motions)
    motions = motions + _NOISE * torch.rand(n, 1, 1, 1, 1) * torch.randn_like(motions)
    angle = (2 * torch.rand(n) - 1) * _TURN
    turn = torch.zeros(n, 3, 3)
    turn[:, 0, 0], turn[:, 0, 2], turn[:, 2, 0], turn[:, 2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    turn[:, 1, 1] = 1
    size = 1 + _SCALE * (2 * torch.rand(n, 1, 1, 1, 1) - 1)
    return torch.einsum("nab,nbtvm->natvm", turn, motions) * size


def victim(name: str, split: tuple[MotionSet, MotionSet], cache: Path) -> MotionNetwork:
    """A victim from the cache, or trained now."""
    path = cache / f"{name}.safetensors"
    training = split[0]
    if path.exists():
        network = make_network(name, training.skeleton, len(training.class_names))
        network.load_state_dict(load_file(path))
        return network.eval()
    network = train(name, training, VICTIMS[name], zlib.crc32(name.encode()) % 1000)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", choices=list(VICTIMS), action="append")
    args = parser.parse_args()
    torch.set_num_threads(1)
    split = load_split(args.data, args.cache)
    for name in args.only or VICTIMS:
        network = victim(name, split, args.cache)
        test = split[1]
        noisy = test.inputs + _NOISE * torch.randn(test.inputs.shape, generator=torch.Generator().manual_seed(0))
        print(
            f"{name}: {sum(p.numel() for p in network.parameters()):,} parameters, accuracy "
            f"{accuracy(network, test):.3f}, under 3 cm of noise "
            f"{accuracy(network, replace(test, inputs=noisy)):.3f} of {len(test)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
