"""64 images x 1,000 queries over HTTP with 5% injected faults: nothing lost, the books agree, and how fast it is.

    python -m benchmarks.http_load [--images 64] [--budget 1000]

``bbox serve zoo:digits`` runs in a process of its own and fails 2% of requests with 429, 2% with 500, and drops 1%. For
each setting (rows a request, requests in flight, server latency) the attack runs over it, and beside it a plain loop:
httpx.AsyncClient, the same concurrency, the same binary requests with as many rows as the attack's had on average, made
anew for each request, and a failed request simply sent again at once. "ratio" is rows a second of bbox (whole attack
phase) over those of the loop; both against the same server, in turn, on the same cores.

Nothing lost: every example has spent its budget, and the server's own count of rows and requests equals the ledger's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bbox.results.records import Config
from bbox.results.run import execute
from bbox.results.session import describe_run, load_plan
from bbox.results.store import RunFolder
from benchmarks.results_file import write

FAULTS = ("--rate-429", "0.02", "--rate-500", "0.02", "--rate-drop", "0.01")


@contextmanager
def serving(*faults: str) -> Iterator[str]:
    """The URL of the model at a server in a process of its own."""
    words = [str(Path(sys.executable).with_name("bbox")), "serve", "zoo:digits", "--port", "0", "--json", *faults]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()


def books(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url.partition('/v2/')[0]}/bbox/books").json()
    return found


async def plain_loop(url: str, *, requests: int, rows: int, in_flight: int) -> float:
    """Seconds for so many answered requests of so many rows."""
    left = iter(range(requests))
    pixels = np.random.default_rng(0).random((rows, 1, 28, 28), dtype=np.float32)

    async def work(client: httpx.AsyncClient) -> None:
        for _ in left:
            while True:
                raw = pixels.tobytes()
                head = json.dumps(
                    {
                        "inputs": [
                            {
                                "name": "input",
                                "datatype": "FP32",
                                "shape": list(pixels.shape),
                                "parameters": {"binary_data_size": len(raw)},
                            }
                        ],
                        "parameters": {"binary_data_output": True},
                    }
                ).encode()
                try:
                    answer = await client.post(
                        f"{url}/infer",
                        content=head + raw,
                        headers={"Inference-Header-Content-Length": str(len(head))},
                    )
                except httpx.TransportError:
                    continue
                if answer.status_code == 200:
                    size = int(answer.headers["Inference-Header-Content-Length"])
                    assert np.frombuffer(answer.content[size:], np.float32).shape == (rows * 10,)
                    break

    async with httpx.AsyncClient(
        limits=httpx.Limits(max_keepalive_connections=in_flight, max_connections=None)
    ) as client:
        began = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(in_flight)))
        return time.perf_counter() - began


def attack(url: str, *, images: int, budget: int, rows: int, in_flight: int) -> dict[str, Any]:
    """Run the attack over HTTP, and hold its ledger against the server's books."""
    before = books(url)
    config = Config(
        target=url,
        target_options={"batch": rows, "in_flight": in_flight},
        limit=images,
        budget=budget,
    )
    plan = load_plan(config)
    with tempfile.TemporaryDirectory() as path, RunFolder.create(Path(path), describe_run(plan, "load")) as folder:
        found = execute(plan, folder, threads=1)
        session = folder.sessions()[-1]
    after = books(url)
    ledger = session["ledger"]
    billed = {name: sum(book[name] for book in ledger.values()) for name in ("billed", "requests", "retried")}
    assert found["complete"] and found["summary"]["attack_queries"] == images * budget
    assert all(example["queries"] == budget for example in found["examples"])
    assert after["rows"] - before["rows"] == billed["billed"], (before, after, billed)
    assert after["requests"] - before["requests"] == billed["requests"]
    assert sum(book["queries"] for book in ledger.values()) == after["answered"] - before["answered"]
    return {
        "attack s": session["attack_seconds"],
        "requests": billed["requests"],
        "rows sent": billed["billed"],
        "sent again": billed["retried"],
        "most at once": after["most_at_once"],
        "rows a request": billed["billed"] / billed["requests"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--budget", type=int, default=1000)
    options = parser.parse_args()
    found = []
    for rows, in_flight, latency in ((8, 16, 0), (8, 16, 20), (64, 8, 20), (8, 16, 100), (1, 16, 50)):
        budget = options.budget if rows > 1 else options.budget // 4
        total = options.images * budget
        with serving(*FAULTS, "--latency", str(latency)) as url:
            run = attack(url, images=options.images, budget=budget, rows=rows, in_flight=in_flight)
            mean = round(run["rows a request"])
            requests = min(total // mean, 4000)  # of the single rows a part
            seconds = asyncio.run(plain_loop(url, requests=requests, rows=mean, in_flight=in_flight))
        fast, plain = total / run["attack s"], requests * mean / seconds
        found.append(
            {
                **{"rows at most": rows, "in flight": in_flight, "latency ms": latency, "budget": budget},
                **{"bbox rows/s": fast, "plain rows/s": plain, "ratio": fast / plain},
                **run,
            }
        )
        print(found[-1], flush=True)
    write("http_load", vars(options), found)


if __name__ == "__main__":
    main()
