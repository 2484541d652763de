"""What the benchmarks of BlackVIP share: real networks on real digits that they were not trained on, and a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import bbox
from bbox.data.base import Dataset
from bbox.targets.torch_module import TorchTarget
from bbox.zoo.ccexam_nets import NormalisedNet, load_ccexam_usps
from benchmarks.results_file import RESULTS, machine

__all__ = ["BUDGET", "CASES", "PAPER", "Case", "Loaded", "SlidingWindow", "Store", "load_case", "rounded"]

BUDGET = 51_200
SHOTS = 16
TESTS = 1000
# Oh et al. 2023, 16 shots, CLIP ViT-B/16: numbers recalled from the paper, not read again.
PAPER = {
    "biased": {"zero-shot": 37.6, "BAR": 53.3, "VP with SPSA-GC": 60.3, "BlackVIP": 66.2, "VP, white box": 57.9},
    "loc-1": {"zero-shot": 29.7, "BAR": 34.0, "VP with SPSA-GC": 16.2, "BlackVIP": 69.1, "VP, white box": 86.8},
    "loc-4": {"zero-shot": 22.7, "BAR": 26.1, "VP with SPSA-GC": 25.7, "BlackVIP": 60.9, "VP, white box": 86.5},
}


@dataclass(frozen=True)
class Case:
    """A network and data it was not made for.

    Attributes:
        target: the zoo's name, or ``loc`` for ``SlidingWindow``.
        data: shots are drawn from it; test: what is measured on, ``None`` for the rest of the data.
        size: pixels a side, where the data is made to fit.
    """

    target: str
    data: str
    test: str | None = None
    size: int | None = None


CASES = {
    "mnist-uci": Case("zoo:ccexam-mnist", "zoo:uci-digits"),
    "usps-mnist": Case("zoo:ccexam-usps", "zoo:mnist-5k", size=16),
    "control-inverted": Case("zoo:ccexam-mnist", "zoo:inverted-mnist"),
    "control-none": Case("zoo:ccexam-mnist", "zoo:mnist-5k"),
    "biased": Case("zoo:ccexam-svhn", "zoo:biased-mnist", "zoo:biased-mnist,split=test", 32),
    "loc-1": Case("loc", "zoo:loc-mnist,ratio=1", "zoo:loc-mnist,ratio=1,split=test", 96),
    "loc-4": Case("loc", "zoo:loc-mnist,ratio=4", "zoo:loc-mnist,ratio=4,split=test", 96),
}


@dataclass(frozen=True)
class Loaded:
    """A case with its shots drawn."""

    target: TorchTarget
    training: Dataset
    test: Dataset

    def pairs(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(images, labels) of the training and of the test."""
        assert self.training.labels is not None and self.test.labels is not None
        return (self.training.inputs, self.training.labels), (self.test.inputs, self.test.labels)


def load_case(name: str, seed: int, *, tests: int = TESTS) -> Loaded:
    """Shots and test images of a seed, as ``bbox defend --shots 16`` draws them."""
    case = CASES[name]
    training, rest = bbox.data.load(case.data, size=case.size).few_shot(SHOTS, seed)
    if case.test is not None:
        rest = bbox.data.load(case.test, size=case.size)
    return Loaded(load_target(case.target), training, rest.select(limit=tests, seed=seed))


def load_target(name: str) -> TorchTarget:
    """The network, its layers stored channels last: the same answers to 1e-5, and 2 to 3 times as fast on a CPU."""
    if name == "loc":
        target = TorchTarget(SlidingWindow(load_ccexam_usps()), name="sliding ccexam-usps", num_classes=10)
    else:
        found = bbox.targets.load(name)
        assert isinstance(found, TorchTarget)
        target = found
    target.module.to(memory_format=torch.channels_last)
    return target


class SlidingWindow(nn.Module):
    """ccexam's USPS network read over a canvas: its convolutions once, its classifier at every window.

    A window has 16 pixels, the next one lies 8 further. The answer is the largest over windows of the logits minus
    those of the same window of an empty canvas, so that no window votes where there is nothing.

    Shapes:
        rows: (n, 1, side, side) in [0, 1], side a multiple of 8; returns: (n, 10).
    """

    empty: Tensor

    def __init__(self, net: nn.Module, side: int = 96) -> None:
        super().__init__()
        assert isinstance(net, NormalisedNet)
        self.net = net
        features: Any = net.network.get_submodule("features")
        linear = [layer for layer in net.network.get_submodule("classifier").modules() if isinstance(layer, nn.Linear)]
        # The same answers to 1e-4, nearly twice as fast: norms in the convolutions, ReLU on what the pooling kept.
        first, norm, relu, pool, second, other = list(features)[:6]
        self.features = nn.Sequential(
            fuse_conv_bn_eval(first, norm), pool, relu, fuse_conv_bn_eval(second, other), pool, relu
        )
        self.hidden, self.last = linear
        self.register_buffer("empty", torch.zeros(()))
        with torch.no_grad():
            self.empty = self._windows(torch.zeros(1, 1, side, side))

    def forward(self, rows: Tensor) -> Tensor:
        # A canvas of 96 has 1.2 MB behind the first convolution: more than a few at once leave the cache.
        found = [(self._windows(part) - self.empty).amax((2, 3)) for part in torch.split(rows, 8)]
        return torch.cat(found)

    def _windows(self, rows: Tensor) -> Tensor:
        """Logits of each window: (n, 10, windows, windows)."""
        maps = self.features((rows - self.net.mean) / self.net.std)  # a cell has 4 pixels, a window 4 cells
        kernel = self.hidden.weight.reshape(len(self.hidden.weight), -1, 4, 4)
        inside = F.relu(F.conv2d(maps, kernel, self.hidden.bias, stride=2))
        return F.conv2d(inside, self.last.weight[:, :, None, None], self.last.bias)


class Store:
    """Records in ``results/NAME.json``, written after each, so that a run that is cut loses none.

    Args:
        keys: the fields that tell a record from others.
    """

    def __init__(self, name: str, *keys: str, path: Path | None = None) -> None:
        self.path = path or RESULTS / f"{name}.json"
        self.keys = keys
        self.records: list[dict[str, Any]] = []
        if self.path.exists():
            self.records = json.loads(self.path.read_text(encoding="utf-8"))["records"]

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """The records with these fields."""
        return [record for record in self.records if all(record.get(k) == v for k, v in wanted.items())]

    def add(self, record: Mapping[str, Any]) -> None:
        """Store a record, in the place of an older one of the same keys."""
        same = self.find(**{key: record[key] for key in self.keys})
        self.records = [old for old in self.records if old not in same] + [dict(record)]
        text = json.dumps({"machine": machine(), "records": self.records}, indent=1)
        part = self.path.with_suffix(".part")
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(self.path)


def rounded(value: Any, digits: int = 4) -> Any:
    """A JSON value with its floats rounded."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, Mapping):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value
