"""How fast `alert` is: programs a second, and wall time over the time inside victim and language model.

``python -m benchmarks.alert_speed [--models DIR]``; DIR is what ``python -m bbox.zoo.make_code_models`` wrote. A row
is one run on one thread: the clock runs around ``bbox.attack``, and around each call of the victim and of the model.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bbox
from bbox.attacks.alert import Alert
from bbox.code.program import Programs
from bbox.code.substitutes.mlm import MaskedLMNames
from bbox.data.base import CodeSet
from bbox.targets import Target
from benchmarks.results_file import write


class Timed(Target):
    """A target of code, and the seconds inside it."""

    takes = "code"

    def __init__(self, inner: Target) -> None:
        self.inner, self.seconds = inner, 0.0
        self.name, self.num_classes, self.class_names = inner.name, inner.num_classes, inner.class_names

    def __call__(self, rows: Programs) -> Tensor:
        start = time.perf_counter()
        scores: Tensor = self.inner(rows)
        self.seconds += time.perf_counter() - start
        return scores

    def fingerprint(self) -> str:
        return self.inner.fingerprint()


class Clock:
    """Adds up the seconds inside a module's forward."""

    def __init__(self, module: nn.Module) -> None:
        self.seconds = self._start = 0.0
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._start


def measure(spec: str, data: CodeSet, substitutes: str, budget: int) -> dict[str, Any]:
    target = Timed(bbox.targets.load(spec, device="cpu"))
    attack = Alert(substitutes=substitutes)
    target(data.inputs[:2])
    target.seconds = 0.0
    start, cpu = time.perf_counter(), time.process_time()
    clocks: list[Clock] = []
    ready = attack.ready

    def timed_ready(*args: Any) -> None:
        ready(*args)
        provider: Any = attack._provider
        if isinstance(provider, MaskedLMNames):
            clocks.append(Clock(provider.model.base))

    object.__setattr__(attack, "ready", timed_ready)
    result = bbox.attack(target, data.inputs, data.labels, attack, budget=budget, norm="names")
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    inside = target.seconds + sum(clock.seconds for clock in clocks)
    queries = int(result.queries.sum())
    return {
        "target": spec,
        "substitutes": substitutes.split(":")[0],
        "programs": len(data),
        "queries": queries,
        "programs/s": len(data) / wall,
        "queries/s": queries / wall,
        "wall/(victim + model)": wall / inside,
        "cpu/wall": cpu / wall,
        "own ms a query": 1000 * (wall - inside) / queries,
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path)
    given = parser.parse_args()
    data = bbox.data.load("zoo:python-projects").take(range(60))
    rows = [measure("zoo:python-projects", data, "corpus", 200)]
    samples = bbox.data.load("zoo:code-samples")
    magika = bbox.targets.load("magika")
    places = torch.tensor([magika.class_names.index(name) for name in samples.class_names])
    samples = CodeSet("samples", samples.inputs, places[samples.labels], samples.indices, samples.ids)
    rows.append(measure("magika", samples, "corpus", 200))
    if given.models is not None:
        rows.append(measure(f"hf-code:{given.models / 'classifier'}", data, "corpus", 200))
        rows.append(
            measure(f"hf-code:{given.models / 'classifier'}", data.take(range(8)), f"mlm:{given.models / 'mlm'}", 200)
        )
    write("alert-speed", {"budget": 200}, rows)


if __name__ == "__main__":
    main()
