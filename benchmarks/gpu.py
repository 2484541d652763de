"""GPU: rows per second through the attack over those of the bare model at its best batch size.

    python -m benchmarks.gpu [--device cuda] [--size 224] [--images 64 256] [--budget 500]

A ResNet-50 with random weights (enough for speed). Also counts, from a profile of one run, the host's synchronisations
and device-to-host copies a forward. Not run on a GPU yet: results/gpu.json is written by whoever has one.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torchvision.models import resnet50

from benchmarks.results_file import write
from benchmarks.timing import TimedTarget, attack, bare_seconds

SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def best_batch(target: TimedTarget, images: Tensor, sizes: list[int]) -> tuple[int, float]:
    """The batch size of the best bare rate, and rows a second."""
    rates = {size: 8 * size / bare_seconds(target, images, rows=8 * size, batch=size) for size in sizes}
    best = max(rates, key=lambda size: rates[size])
    return best, rates[best]


def syncs(target: TimedTarget, images: Tensor, labels: Tensor, budget: int, batch: int) -> dict[str, float]:
    """Synchronising calls a forward, from a profile."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if target.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        run = attack(target, images, labels, budget=budget, max_batch=batch)
    counts = {event.key: event.count for event in profile.key_averages()}
    return {
        "syncs a forward": sum(counts.get(name, 0) for name in SYNCS) / run.calls,
        "copies to host a forward": sum(n for key, n in counts.items() if "Memcpy DtoH" in key) / run.calls,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    target = TimedTarget(resnet50(num_classes=1000), device)
    images = torch.rand(max(options.images), 3, options.size, options.size)
    labels = target(images[:1].to(device)).argmax(1).cpu().expand(len(images)).clone()
    batch, rate = best_batch(target, images, options.batches)
    rows = []
    for count in options.images:
        run = attack(target, images[:count], labels[:count], budget=options.budget, max_batch=batch)
        found = syncs(target, images[:count], labels[:count], min(options.budget, 100), batch)
        rows.append(
            {
                "images": count,
                "best batch": batch,
                "bare rows/s": rate,
                "attack rows/s": run.rows / run.wall,
                "attack / bare": run.rows / run.wall / rate,
                "calls": run.calls,
                **found,
            }
        )
    write("gpu" if device.type == "cuda" else "gpu-on-cpu", vars(options), rows)


if __name__ == "__main__":
    main()
