"""Speed of a BlackVIP fit: wall over pure model time, peak memory against inference, decoder back-ends, a GPU.

    python -m benchmarks.blackvip_speed [--sections overhead memory decoders gpu] [--repeats 3]

"Inside" is the time within the model's calls during the fit; "bare" the bare model on as many rows in the same chunks,
mean of two runs after it. CPU seconds of one thread are given as well, which other programs disturb less. Memory is the
peak resident set (Linux's VmHWM) of a process of its own, which does inference alone, or fits. The GPU's victim is
torchvision's ViT-B/16 at 224 pixels with random weights; without a CUDA device the section says so.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbox.defenses.blackvip import BlackVIP
from bbox.defenses.blackvip.decoder import Backend, Decoder
from bbox.oracle import Oracle
from benchmarks.blackvip_cases import load_case
from benchmarks.results_file import write
from benchmarks.timing import TimedTarget

CASES = ("mnist-uci", "usps-mnist", "biased")
_BACKENDS: tuple[Backend, ...] = ("loop", "bmm", "vmap")


class Chunked(TimedTarget):
    """A timed target that remembers the sizes of its chunks; CPU seconds beside the wall's."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__(module, device)
        self.cpu, self.sizes = 0.0, Counter[int]()

    def __call__(self, rows: Tensor) -> Tensor:
        began, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            scores: Tensor = self.module(rows)
        _finish(self.device)
        self.seconds += time.perf_counter() - began
        self.cpu += time.process_time() - cpu
        self.sizes[len(rows)] += 1
        return scores

    def bare(self, images: Tensor) -> tuple[float, float]:
        """(wall, CPU) seconds of the bare model on the same chunks as were asked."""
        block = images.repeat(-(-max(self.sizes) // len(images)), 1, 1, 1).to(self.device)
        began, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for size, count in self.sizes.items():
                for _ in range(count):
                    self.module(block[:size]).cpu()
        return time.perf_counter() - began, time.process_time() - cpu


def fit_times(
    module: nn.Module, images: Tensor, labels: Tensor, device: torch.device, *, budget: int, chunk: int, **options: Any
) -> dict[str, Any]:
    """Times of one fit."""
    BlackVIP(**options).fit(
        Oracle(Chunked(module, device), max_batch=chunk), images, labels, budget=budget // 2
    )  # warm
    target = Chunked(module, device)
    began, cpu = time.perf_counter(), time.process_time()
    BlackVIP(**options).fit(Oracle(target, max_batch=chunk), images, labels, budget=budget)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    bare = [sum(both) / 2 for both in zip(target.bare(images), target.bare(images), strict=True)]
    rows = sum(size * count for size, count in target.sizes.items())
    return {
        "rows": rows,
        "calls": sum(target.sizes.values()),
        "wall s": wall,
        "images a second": rows / wall,
        "bare images a second": rows / bare[0],
        "wall / inside": wall / target.seconds,
        "wall / bare": wall / bare[0],
        "CPU / inside": cpu / target.cpu,
        "CPU / bare": cpu / bare[1],
    }


def overhead(repeats: int, budget: int, chunk: int) -> list[dict[str, Any]]:
    """Fits of k = 5 and 20 on digit networks, as they are loaded and channels last."""
    rows = []
    for case in CASES:
        loaded = load_case(case, 0)
        (images, labels), _ = loaded.pairs()
        for layout in ("channels last", "as loaded"):
            memory = torch.channels_last if layout == "channels last" else torch.contiguous_format
            module = loaded.target.module.to(memory_format=memory)
            spent = budget // 4 if case == "biased" else budget
            for k in (5, 20) * repeats:
                found = fit_times(module, images, labels, torch.device("cpu"), budget=spent, chunk=chunk, k=k)
                rows.append({"case": case, "layout": layout, "k": k, **found})
                print(rows[-1], flush=True)
    return rows


def memory(chunk: int) -> list[dict[str, Any]]:
    """Peak resident memory of a fit, and of inference, each in a process of its own, after loading."""
    rows = []
    for case in CASES:
        peak = {}
        for what in ("inference", "fit"):
            command = [sys.executable, "-m", "benchmarks.blackvip_speed", "--child", what, case, str(chunk)]
            before, most = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            peak[f"{what}, before MiB"], peak[f"{what} MiB"] = int(before) / 1024, int(most) / 1024
        ratio = peak["fit MiB"] / peak["inference MiB"]
        rows.append({"case": case, "chunk": chunk, **peak, "fit / inference": ratio})
        print(rows[-1], flush=True)
    return rows


def child(what: str, case: str, chunk: int) -> None:
    """Print this process's resident memory before and its peak in the work, in KiB."""
    torch.set_num_threads(1)
    loaded = load_case(case, 0)
    (images, labels), _ = loaded.pairs()
    oracle = Oracle(loaded.target, max_batch=chunk)
    # Not getrusage: its peak is that of loading, and a child's begins with its parent's.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    if what == "fit":
        BlackVIP().fit(oracle, images, labels, budget=10_000)
    else:
        block = images.repeat(-(-chunk // len(images)), 1, 1, 1)[:chunk]
        for _ in range(10_000 // chunk):
            oracle.ask(block, "clean")
    print(before, _status("VmHWM"))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def decoders(device: torch.device) -> list[dict[str, Any]]:
    """Ten decoders by each back-end: milliseconds, least of five."""
    rows = []
    for shape, features, batch in (((1, 16, 16), 32, 64), ((1, 28, 28), 32, 64), ((3, 224, 224), 768, 8)):
        for norm in ("group", "none"):
            decoder = Decoder(shape, least=int(1.5 * features), norm=norm)
            generator = torch.Generator().manual_seed(0)
            weights = torch.stack([decoder.start(generator, zero=False) for _ in range(10)]).to(device)
            source = torch.randn(10, batch, decoder.source, generator=generator).to(device)
            row = {"device": str(device), "shape": "x".join(map(str, shape)), "batch": batch}
            row |= {"norm": norm, "parameters": decoder.dim}
            for backend in _BACKENDS:
                row[f"{backend} ms"] = _least(functools.partial(decoder, weights, source, backend=backend), device)
            rows.append(row)
            print(row, flush=True)
    return rows


def _least(run: Callable[[], Tensor], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    taken = []
    for _ in range(6):
        began = clock()
        run()
        _finish(device)
        taken.append(clock() - began)
    return 1000 * min(taken[1:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gpu(budget: int) -> list[dict[str, Any]]:
    """A ViT-B/16 with random weights at 224 pixels; nothing where there is no CUDA device."""
    if not torch.cuda.is_available():
        print("no CUDA device: the GPU section was not run")
        return [{"case": "no CUDA device: not run"}]
    from torchvision.models import vit_b_16

    device = torch.device("cuda")
    torch.manual_seed(0)
    module = vit_b_16(weights=None).eval().to(device)
    images, labels = torch.rand(160, 3, 224, 224), torch.arange(160) % 10
    rows = []
    for k in (5, 20):
        found = fit_times(module, images, labels, device, budget=budget, chunk=256, k=k)
        rows.append({"case": "ViT-B/16", "k": k, **found})
    return rows + decoders(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = ("overhead", "memory", "decoders", "gpu")
    parser.add_argument("--sections", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--budget", type=int, default=12_800)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        child(options.child[0], options.child[1], int(options.child[2]))
        return
    del options.child
    measure: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "overhead": lambda: overhead(options.repeats, options.budget, options.chunk),
        "memory": lambda: memory(options.chunk),
        "decoders": lambda: decoders(torch.device("cpu")),
        "gpu": lambda: gpu(options.budget),
    }
    for section in options.sections:
        write(f"blackvip-{section}", vars(options), measure[section]())


if __name__ == "__main__":
    main()
