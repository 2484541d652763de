"""``bbox serve TARGET``: a target over the Open Inference Protocol, on loopback, with faults on demand."""

from __future__ import annotations

import json as json_module
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from bbox.cli.console import say
from bbox.cli.options import pairs

__all__ = ["serve"]


@click.command()
@click.argument("target")
@click.option("--set", "target_options", multiple=True, metavar="KEY=VALUE", help="An option of the target.")
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where there is one]")
@click.option("--trust", is_flag=True, help="Load model files that can run code (pickles). Only your own.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads of torch.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address; no other is taken.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 picks a free one.")
@click.option("--name", help="The model's name in URLs.  [default: the end of the target's name]")
@click.option("--latency", type=float, default=0.0, metavar="MS", help="Milliseconds that every request waits.")
@click.option("--latency-jitter", type=float, default=0.0, metavar="MS", help="And up to so many besides, at random.")
@click.option("--rate-429", type=float, default=0.0, metavar="P", help="Share of requests answered 429.")
@click.option("--retry-after", type=float, metavar="S", help="Seconds that a 429 tells the client to wait.")
@click.option("--rate-500", type=float, default=0.0, metavar="P", help="Share of requests answered 500.")
@click.option("--rate-drop", type=float, default=0.0, metavar="P", help="Share of requests dropped after reading.")
@click.option("--noise", type=float, default=0.0, metavar="SIGMA", help="Normal noise on the scores.")
@click.option("--labels-only", is_flag=True, help="Answer labels, no scores.")
@click.option("--die-after", type=int, metavar="ROWS", help="Stop before more rows than these are answered.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which requests a fault strikes.")
@click.option("--json", is_flag=True, help="Print where it is, and at the end its books, as JSON lines on stdout.")
def serve(target: str, target_options: tuple[str, ...], json: bool, **values: Any) -> None:
    """Serve any target over the Open Inference Protocol (KServe V2), to this machine only.

    \b
    bbox serve zoo:digits
    bbox attack cgba --target http://127.0.0.1:8080/v2/models/digits
    bbox serve model.onnx --rate-429 0.03 --rate-drop 0.02 --latency 20     a bad day
    curl http://127.0.0.1:8080/bbox/books                                   what the server has counted

    Faults strike before the model is asked. Ctrl-C ends it.
    """
    import torch

    from bbox.serving import Faults, server
    from bbox.targets import load

    where = {name: values.pop(name) for name in ("host", "port", "name")}
    device, trust = values.pop("device"), values.pop("trust")
    torch.set_num_threads(values.pop("threads"))  # before the load: a session of ONNX Runtime takes as many
    faults = Faults(**values)
    loaded = load(target, options=pairs("--set", target_options), trust=trust, device=device)
    up = server(loaded, faults, **where)
    with _until_told(), up:
        if json:
            click.echo(json_module.dumps({"url": up.url, "port": up.port, "books": _books_url(up.url)}))
        else:
            say(f"serving {target}: bbox attack cgba --target {up.url}  (Ctrl-C ends it)")
        up.wait()
        say(f"stopped by --die-after {faults.die_after}")
    books = up.books
    if json:
        click.echo(json_module.dumps(asdict(books)))
    struck = ", ".join(f"{name} {count:,}" for name, count in books.faults.items() if count) or "none"
    say(
        f"{books.requests:,} requests to infer with {books.rows:,} rows; {books.answered:,} rows answered; "
        f"{books.refused:,} requests refused, {books.failed:,} failed; faults: {struck}; at most "
        f"{books.most_at_once:,} at once"
    )


@contextmanager
def _until_told() -> Iterator[None]:
    """End the block quietly on Ctrl-C or a plain kill, also where a shell has started us with Ctrl-C ignored."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _books_url(url: str) -> str:
    return url.partition("/v2/")[0] + "/bbox/books"
