"""``bbox defend adversarial-finetune``: train a code classifier on adversarial examples, and see what it is worth."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bbox.cli.attack_options import refuse_changes
from bbox.cli.console import Line, console, new_folder, say, tell
from bbox.cli.options import check_threads, pairs
from bbox.errors import UsageError

__all__ = ["command", "print_finetune", "resume"]

_RESUME_MAY_CHANGE = {"resume", "json", "quiet", "threads", "device", "trust"}
_KEPT = (
    *("limit", "attack_limit", "test_limit", "attack", "budget", "epochs", "lr", "batch_size"),
    *("seed", "max_batch", "device", "trust"),
)


@click.command("adversarial-finetune")
@click.option("--target", help="hf-code:DIR, a classifier that save_pretrained wrote, with its tokenizer.  [required]")
@click.option("--set", "target_options", multiple=True, metavar="KEY=VALUE", help="An option of the target.")
@click.option("--data", help="Labelled programs: what it was trained on.  [required]")
@click.option("--test-data", help="Labelled programs that are held out.  [required]")
@click.option("--limit", type=int, help="Train on the first N programs only.")
@click.option("--attack-limit", type=int, help="Attack the first N of them only.")
@click.option("--test-limit", type=int, help="Measure on the first N held-out programs only.")
@click.option("--attack", default="alert", show_default=True, help="The attack; see bbox list attacks.")
@click.option(
    "--attack-option", multiple=True, metavar="KEY=VALUE", help="An option of the attack.  [default: search=greedy]"
)
@click.option("--budget", type=int, default=200, show_default=True, help="Queries for each program, a hard limit.")
@click.option("--epochs", type=int, default=3, show_default=True, help="Passes over the examples.")
@click.option("--lr", type=float, default=5e-5, show_default=True, help="Learning rate; it falls linearly to 0.")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Examples a step.")
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@click.option("--max-batch", type=int, help="Rows a forward of the attack.  [default: 128]")
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where there is one]")
@click.option("--threads", type=int, help="CPU threads of torch.  [default: all usable cores]")
@click.option("--trust", is_flag=True, help="Run code that comes with the model. Only your own.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/TIME-adversarial-finetune]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this folder.")
@click.option("--json", is_flag=True, help="Print the results as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
@click.pass_context
def command(ctx: click.Context, /, **values: Any) -> None:
    """Harden a classifier of code: attack its training set, train on what was found, measure on held-out programs.

    It trains the model itself, so it needs its weights and its tokenizer: it is not for black boxes.

    \b
    bbox defend adversarial-finetune --target hf-code:DIR --data train.jsonl --test-data test.jsonl --budget 200
    bbox defend --resume runs/...                      go on with an interrupted one
    """
    check_threads(values)
    if values["resume"] is None:
        _start(values)
        return
    refuse_changes(ctx, _RESUME_MAY_CHANGE)
    resume(values["resume"], values)


def _start(values: dict[str, Any]) -> None:
    from bbox.results.finetune_run import FinetuneConfig, FinetuneFolder, plan_finetune

    for name in ("target", "data", "test_data"):
        if values[name] is None:
            raise UsageError(f"give --{name.replace('_', '-')}; see bbox defend adversarial-finetune --help")
    options = {key.replace("-", "_"): value for key, value in pairs("--attack-option", values["attack_option"]).items()}
    if values["attack"] == "alert" and "preset" not in options:
        options = {"search": "greedy", **options}
    config = FinetuneConfig(
        values["target"],
        values["data"],
        values["test_data"],
        target_options=dict(pairs("--set", values["target_options"])),
        attack_options=options,
        **{name: values[name] for name in _KEPT},
    )
    plan = plan_finetune(config)
    out = values["out"] or new_folder("adversarial-finetune")
    if not values["quiet"]:
        programs = len(plan.training.data) + 2 * len(plan.test.data)
        say(f"queries: at most {config.budget:,} for each of {programs:,} programs, the held-out ones twice")
    _execute(plan, FinetuneFolder.create(out, plan.describe(shlex.join(["bbox", *sys.argv[1:]]))), values)


def resume(path: Path, values: dict[str, Any]) -> None:
    """Go on with a folder; ``values``: the options that may change."""
    from dataclasses import replace

    from bbox.results.finetune_run import FinetuneFolder, plan_finetune

    folder = FinetuneFolder.open(path)
    changed = {key: values[key] for key in ("device", "trust") if values.get(key)}
    plan = plan_finetune(replace(folder.config(), **changed))
    folder.check_same(plan)
    _execute(plan, folder, values)


def _execute(plan: Any, folder: Any, values: dict[str, Any]) -> None:
    import torch

    from bbox.calibrate import usable_cores
    from bbox.results.finetune_run import execute_finetune

    torch.set_num_threads(values.get("threads") or usable_cores())
    progress = _Progress()
    results = execute_finetune(plan, folder, watch=None if values["quiet"] else progress)
    progress.close()
    tell(results, folder.path, values, print_finetune)


class _Progress:
    """The stage, in one line."""

    def __init__(self) -> None:
        self._line = Line()
        self._stage = ""

    def __call__(self, stage: str, attack: Any, steps: tuple[int, int] | None) -> None:
        text = stage
        if attack is not None:
            text = f"{stage}: {attack.finished:,} of {attack.examples:,} programs, {attack.queries:,} queries"
        elif steps is not None:
            text = f"{stage}: step {steps[0]:,} of {steps[1]:,}"
        self._line(text, always=stage != self._stage)
        self._stage = stage

    def close(self) -> None:
        self._line.close()


def print_finetune(results: dict[str, Any], path: Path) -> None:
    """The table, on stderr."""
    table = Table(title=f"{results['target']} on held-out programs of {results['test_data']}", title_justify="left")
    table.add_column("model")
    for column in (
        "clean accuracy",
        "robust accuracy",
        "attack success rate",
        "on the original's adversarial programs",
    ):
        table.add_column(column, justify="right")
    transfer = results["transfer"]
    for name, figures, moved in (
        ("original", results["original"], 0.0 if transfer["programs"] else None),
        ("hardened", results["hardened"], transfer["accuracy"]),
    ):
        shares = (figures["clean_accuracy"], figures["robust_accuracy"], figures["attack_success_rate"], moved)
        table.add_row(name, *("-" if share is None else f"{100 * share:.1f}%" for share in shares))
    console().print(table)
    training, options = results["training"], ", ".join(f"{k}={v}" for k, v in results["attack_options"].items())
    say(
        f"{results['original']['programs']} programs; robust is right within {results['budget']} queries of "
        f"{results['attack']} ({options}); {transfer['programs']} adversarial programs of the original"
    )
    say(
        f"trained on {training['examples']} programs, {training['adversarial']} of them adversarial (found in "
        f"{training['attacked']} attacked), {training['epochs']} epochs, loss {training['loss']:.3f}, "
        f"{training['seconds']:g} s"
    )
    say(f"folder: {path}   attack it: bbox attack {results['attack']} --target {results['hardened']['target']}")
