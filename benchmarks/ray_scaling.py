"""Rows a second with one and with two Ray workers, beside the local engine; and the bytes that pass through the driver.

    python -m benchmarks.ray_scaling [--target zoo:efficientnet-lite0 --data zoo:imagenet-samples --limit 16 ...]

Every cell is two runs with budgets B and 2B: the rate is the difference of their queries over the difference of their
times, so that starting Ray, loading models, clean answers and verification drop out. One thread a worker. The bytes are
those of pickled messages, as Ray sends them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch

from bbox.results.ray_worker import Answered, Finished
from bbox.results.records import Config
from bbox.results.run import execute
from bbox.results.session import describe_run, load_plan
from bbox.results.shard import Shard
from bbox.results.store import RunFolder
from benchmarks.results_file import write


def run(config: Config) -> tuple[float, int]:
    """Seconds and attack queries of a run."""
    plan = load_plan(config)
    described = describe_run(plan, "benchmark")
    with tempfile.TemporaryDirectory() as path, RunFolder.create(Path(path), described) as folder:
        began = time.perf_counter()
        found = execute(plan, folder, threads=1)
        return time.perf_counter() - began, found["summary"]["attack_queries"]


def rate(config: dict[str, Any], budget: int, engine: str, workers: int) -> dict[str, Any]:
    """One row of the table."""
    short, long = (run(Config(**config, budget=times * budget, engine=engine, workers=workers)) for times in (1, 2))
    seconds, rows = long[0] - short[0], long[1] - short[1]
    return {
        "engine": engine,
        "workers": workers if engine == "ray" else 1,
        "rows/s": rows / seconds,
        "rows": rows,
    }


def message_bytes(config: dict[str, Any], budget: int) -> dict[str, float]:
    """Bytes through the driver for one example: its shard, its answers, its result."""
    plan = load_plan(Config(**config, budget=budget))
    shard = Shard.of(plan, torch.zeros(len(plan.data), dtype=torch.int64), torch.arange(len(plan.data)))
    accounts = next(shard.take(torch.arange(1)).jobs(torch.device("cpu"), plan.pool)).accounts
    accounts.originals = accounts.originals[:0].clone()
    numbers = torch.arange(budget)
    parts = ((numbers, numbers.clone(), numbers.clone(), None),)
    sizes = {
        "shard bytes an example": len(ray.cloudpickle.dumps(shard)) / len(shard),
        "answer bytes a row": len(ray.cloudpickle.dumps(Answered(parts, {}))) / budget,
        "result bytes an example": len(ray.cloudpickle.dumps(Finished(accounts, torch.zeros(1)))),
    }
    return {name: round(float(size), 1) for name, size in sizes.items()}


def journal(config: dict[str, Any]) -> dict[str, float]:
    """What the driver writes down: rows a second that it can, and bytes a row on disk (labels only)."""
    plan = load_plan(Config(**config))
    numbers, batch = torch.arange(256), 4000
    with tempfile.TemporaryDirectory() as path:
        with RunFolder.create(Path(path), describe_run(plan, "benchmark")) as folder:
            began = time.perf_counter()
            for _ in range(batch):
                folder.append(numbers, numbers, numbers, None)
            seconds = time.perf_counter() - began
        size = (Path(path) / "journal.sqlite").stat().st_size
    return {"journal rows/s": len(numbers) * batch / seconds, "journal bytes a row": size / (len(numbers) * batch)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="zoo:digits")
    parser.add_argument("--data", default="zoo:digits")
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=128)
    parser.add_argument("--max-batch", type=int, default=128)
    parser.add_argument("--name", default="ray_scaling")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = {key: getattr(options, key) for key in ("target", "data", "limit", "max_batch")}
    ray.init(include_dashboard=False, log_to_driver=False)
    rows = [rate(config, options.budget, engine, workers) for engine, workers in (("local", 1), ("ray", 1), ("ray", 2))]
    for row in rows:
        row["over local"] = row["rows/s"] / rows[0]["rows/s"]
    rows.append({"engine": "driver", **message_bytes(config, options.budget), **journal(config)})
    write(options.name, vars(options), rows)


if __name__ == "__main__":
    main()
