"""How many rows a forward should hold, and how many threads should work: measured, in a short probe on the books."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor

from bbox.batch import Batch
from bbox.code.program import Program, Programs
from bbox.oracle import Oracle

__all__ = ["calibrate", "choose_threads", "usable_cores"]

# On a CPU the rate peaks at 64 to 256 rows and falls beyond 512 (cache), so nothing larger is tried there.
_SIZES = {"cpu": (8, 32, 128, 256, 512), "cuda": (32, 128, 256, 512, 1024, 2048, 4096)}
_REMOTE = 64  # rows a call where forwards are not run on this machine and cannot be timed for free
_NEAR = 0.87  # the smallest batch within this part of the best rate is taken: near ties repeat from run to run
_THREADS_GAIN = 1.25  # more threads must be this much faster than one


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the cgroup's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


def calibrate(oracle: Oracle, example: Tensor | Program, *, seconds: float = 1.5) -> int:
    """Set ``oracle.max_batch`` to the smallest batch that is near the best forward rate.

    Queries: the rows that were tried, on the ``probe`` ledger. It stops where the next size would not fit in
    ``seconds``, or is too large for the device's memory.

    Shapes:
        example: (*shape), a row of the data, or a program.
    """
    if not oracle.target.in_process:
        oracle.max_batch = oracle.target.batch or _REMOTE
        return oracle.max_batch
    sizes = _SIZES["cuda" if oracle.device.type == "cuda" else "cpu"]
    deadline = time.perf_counter() + seconds
    rates: dict[int, float] = {}
    oracle.max_batch = sizes[-1]
    for size in sizes:
        left = deadline - time.perf_counter()
        if rates and 2 * size / max(rates.values()) > left:
            break
        rate = _rate(oracle, example, size)
        if oracle.max_batch < size:  # out of memory on the way
            break
        rates[size] = rate
    best = max(rates.values(), default=0.0)
    chosen = next((size for size, rate in rates.items() if rate >= _NEAR * best), 1)
    oracle.max_batch = min(oracle.max_batch, chosen)
    return oracle.max_batch


def choose_threads(oracle: Oracle, example: Tensor | Program) -> int:
    """Set torch's threads to all usable cores (at most 8) if that is clearly faster than one thread, else to one.

    On small forwards and on a busy machine threads mostly wait for each other: measured on two contended cores, a
    small network at batch 1 fell from 6,900 to 111 rows a second with a second thread.

    Queries: about 4 forwards of up to 32 rows on the ``probe`` ledger; none on one core or off the CPU.
    """
    most = min(8, usable_cores())
    torch.set_num_threads(1)
    if most == 1 or oracle.device.type != "cpu" or not oracle.target.in_process:
        return 1
    one = _rate(oracle, example, 8)
    size = 32 if 64 / one < 2 else 8
    one = _rate(oracle, example, size)
    torch.set_num_threads(most)
    if _rate(oracle, example, size) < _THREADS_GAIN * one:
        torch.set_num_threads(1)
    return torch.get_num_threads()


def _rate(oracle: Oracle, example: Tensor | Program, size: int) -> float:
    """Rows a second at this batch size: the better of two forwards (the first one may warm something up)."""
    rows: Batch
    if isinstance(example, Program):
        rows = Programs([example] * size)
    else:
        rows = example.to(oracle.device).expand(size, *example.shape).contiguous()
    best = 0.0
    for _ in range(2):
        start = time.perf_counter()
        oracle.ask(rows, "probe")
        best = max(best, size / (time.perf_counter() - start))
        if size / best > 0.5:  # a slow target: one forward tells enough
            break
    return best
