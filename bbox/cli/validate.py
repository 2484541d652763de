"""``bbox validate NAME``: everything that can be checked without attacking, and what the run would cost."""

from __future__ import annotations

import json as json_module
import time
from typing import Any

import click

from bbox.cli.console import say
from bbox.cli.options import RunCommand, config_from, pairs, run_options

__all__ = ["validate"]

_SEES = {"none": "nothing of the target", "label": "labels only", "scores": "scores"}


@click.command(cls=RunCommand)
@click.argument("attack", default="cgba")
@click.option("--option", "attack_options", multiple=True, metavar="KEY=VALUE", help="An option of the attack.")
@click.option("--json", is_flag=True, help="Print the findings as JSON on stdout.")
@run_options
def validate(attack: str, attack_options: tuple[str, ...], json: bool, **values: Any) -> None:
    """Check target, data and options with a probe of two rows, and print what the run would cost."""
    config = config_from(attack, dict(pairs("--option", attack_options)), values)
    from bbox.results.session import load_plan

    plan = load_plan(config)
    began = time.perf_counter()
    plan.oracle.ask(plan.data.inputs[:1], "probe")
    seconds = time.perf_counter() - began
    target = plan.oracle.target
    shape = "x".join(map(str, plan.data.inputs.shape[1:]))
    kind = plan.data.kind
    found = {
        "target": config.target,
        "access": target.access,
        "fingerprint": target.fingerprint(),
        "device": str(target.device),
        "data": config.data,
        kind: len(plan.data),
        "shape": list(plan.data.inputs.shape[1:]),
        "attack": config.attack,
        "queries_at_most": plan.queries_at_most,
        "verify_queries_at_most": len(plan.data) * 3,
        "probe_queries": plan.oracle.books["probe"].queries,
        "seconds_per_row_alone": seconds,
    }
    if json:
        click.echo(json_module.dumps(found))
        return
    say(f"target  {config.target}: {target.access}, on {target.device}, fingerprint {found['fingerprint']}")
    say(f"data    {config.data}: {len(plan.data)} {kind}" + (f" of {shape}" if shape else ""))
    each = {"images": "an image", "motions": "a motion"}.get(kind, "a program")
    say(f"attack  {config.attack}: budget {config.budget:,} queries {each}, sees {_SEES[plan.attack.access]}")
    say(
        f"cost    at most {plan.queries_at_most:,} attack queries, {len(plan.data):,} clean, "
        f"{2 * len(plan.data):,} verification; one row alone took {1000 * seconds:.1f} ms"
    )
    if config.price_per_1k is not None:
        rows = plan.queries_at_most + 3 * len(plan.data)
        say(f"price   at most {rows * config.price_per_1k / 1000:,.2f} at {config.price_per_1k:g} per 1,000 rows")
    asked = plan.oracle.books["probe"].queries
    say(f"nothing was attacked; the probe asked {asked} rows")
