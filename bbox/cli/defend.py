"""``bbox defend NAME``: fit a defense into a folder; ``bbox defend LIST --evaluate ATTACKS``: the matrix."""

from __future__ import annotations

import importlib
import json as json_module
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bbox.cli.attack_options import chosen_options, given, refuse_changes, resumed
from bbox.cli.bill import say_bill
from bbox.cli.console import Line, console, new_folder, say, tell
from bbox.cli.options import LIVE, check_threads, live_options, pairs
from bbox.errors import UsageError

__all__ = ["defend", "print_fit"]

# Defenses of code with a run of their own, and the module of its command.
_OWN = {"rename-smoothing": "bbox.cli.rename_smoothing", "adversarial-finetune": "bbox.cli.finetune"}

_WORDS = "bbox.defend.words"
_HOW = ("device", "trust", *LIVE)  # not max_batch: answers are on record forward by forward
_RESUME_MAY_CHANGE = {"resume", "json", "quiet", "threads", *_HOW}

_OPTIONS = [
    click.option("--target", default="zoo:digits", show_default=True, help="What to defend; see bbox list targets."),
    click.option("--set", "target_options", multiple=True, metavar="KEY=VALUE", help="An option of the target."),
    click.option("--data", default="zoo:digits", show_default=True, help="Images to train on; see bbox list data."),
    click.option("--shots", type=int, help="Train on so many images a class, drawn by the seed."),
    click.option(
        "--test", help="Images to certify or compare on.  [default: a fifth of the data, or all but the shots]"
    ),
    click.option(
        "--test-limit", type=int, default=1000, show_default=True, help="Images that a comparison is measured on."
    ),
    click.option("--labels", type=click.Path(path_type=Path), help="CSV of file,label for a folder of images."),
    click.option("--image-size", type=int, help="Resize images to this many pixels a side."),
    click.option("--limit", type=int, help="Only the first N images of the data."),
    click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it."),
    click.option(
        "--budget",
        type=int,
        default=100_000,
        show_default=True,
        help="Queries in all: training, selection, certificate; each baseline of a comparison has as many.",
    ),
    click.option(
        "--certify",
        type=float,
        default=0.05,
        show_default=True,
        help="Part of the budget for the certificate; 0: none.",
    ),
    click.option("--max-batch", type=int, help="Rows a forward.  [default: 256]"),
    click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where there is one]"),
    click.option("--threads", type=int, help="CPU threads of torch.  [default: all usable cores]"),
    click.option("--trust", is_flag=True, help="Load model files that can run code (pickles). Only your own."),
    live_options,
    click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/TIME-DEFENSE]"),
    click.option("--resume", type=click.Path(path_type=Path), help="Go on with this folder."),
    click.option("--json", is_flag=True, help="Print the results as JSON on stdout."),
    click.option("--quiet", is_flag=True, help="No progress and no table."),
]


class _Defenses(click.Group):
    """Builds the command of a defense that is fitted from its class; anything else is a list for the matrix."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``bbox defend --resume FOLDER ...`` is the command that FOLDER is of, with all its options; that of a matrix
        has no name, and reads the words itself."""
        from bbox.results.plain_folder import kind_of

        path = resumed(args)
        kind = None if path is None else kind_of(path)
        if kind == "matrix":
            ctx.meta[_WORDS], args = args, ["--resume", str(path)]
        elif path is not None and kind == "defend":
            args = [*_defense_of(path), *args]
        elif kind in _OWN:
            args = [str(kind), *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        from bbox.defenses import DEFENSES

        return [*DEFENSES.names(), *(name for name in _OWN if name not in DEFENSES.names())]

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name in _OWN:
            own: click.Command = importlib.import_module(_OWN[name]).command
            return own
        if _is_fitted(name):
            return _command(name)
        from bbox.cli.matrix import matrix_command

        return matrix_command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        evaluated = any(word == "--evaluate" or word.startswith("--evaluate=") for word in args)
        if args[0] in _OWN and not evaluated:
            return args[0], self.get_command(ctx, args[0]), args[1:]
        if _is_fitted(args[0]):
            return args[0], _command(args[0]), args[1:]
        from bbox.cli.matrix import matrix_command

        # The matrix takes the list itself as its first argument.
        return args[0], matrix_command, args

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from bbox.defenses import DEFENSES

        rows = [(name, DEFENSES.entry(name).summary) for name in DEFENSES.names()]
        rows.append(("adversarial-finetune", "code: train a classifier on adversarial examples of its training set"))
        with formatter.section("Defenses"):
            formatter.write_dl(rows)


@click.group(cls=_Defenses, invoke_without_command=True)
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this folder.")
@click.option("--json", is_flag=True, help="With --resume: print the results as JSON on stdout.")
@click.pass_context
def defend(ctx: click.Context, resume: Path | None, json: bool) -> None:
    """Defend a target: fit a defense by queries, or evaluate defenses against attacks.

    \b
    bbox defend zo-ae-ds --target ... --data ... --budget 600000 --sigma 0.5
    bbox attack cgba --target defended:runs/...        what it is worth
    bbox certify --target defended:runs/... --sigma 0.5
    bbox defend noise,jpeg+noise,blacklight --evaluate cgba,square --budget 500
    """
    if ctx.invoked_subcommand is not None:
        if resume is not None:
            raise UsageError("give --resume after the defense's name, or without one")
        return
    if resume is None:
        click.echo(ctx.get_help(), err=True)
        raise UsageError("name a defense, for example: bbox defend zo-ae-ds")
    from bbox.results.plain_folder import kind_of

    if kind_of(resume) == "matrix":
        from bbox.cli.matrix import matrix_command

        matrix_command.main(ctx.meta[_WORDS], standalone_mode=False)
        return
    from bbox.results.defend_run import DefendFolder

    DefendFolder.open(resume)  # says that it is none


def _defense_of(path: Path) -> list[str]:
    """The name of the defense that a folder is a fit of; nothing where it does not say, which is an error later."""
    try:
        name = json_module.loads((path / "run.json").read_text(encoding="utf-8"))["config"]["defense"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [str(name)]


def _is_fitted(name: str) -> bool:
    """Whether this is one defense that is trained; anything else is a list for the matrix."""
    from bbox.defenses import DEFENSES

    return not set(name) & set(",+:") and bool(DEFENSES.get(name).trained)


def _command(name: str) -> click.Command:
    from bbox.defenses import DEFENSES
    from bbox.options import option_fields, told

    cls = DEFENSES.get(name)
    texts, known = told(cls), option_fields(cls)

    def run(**values: Any) -> None:
        chosen = chosen_options(values, known)
        check_threads(values)
        if values["resume"] is not None:
            _resume(click.get_current_context(), values, name)
        else:
            _start(name, chosen, values)

    command: Any = run
    for option in reversed(_OPTIONS):
        command = option(command)
    for field, (_, default) in reversed(known.items()):
        shown = f"{texts.get(field, '')}  [default: {default}]".strip()
        metavar = type(default).__name__.upper()
        command = click.option(f"--{field.replace('_', '-')}", field, metavar=metavar, help=shown)(command)
    presets = tuple(getattr(cls, "presets", {}))
    if presets:
        command = click.option("--preset", help=f"Named options: {', '.join(presets)}.")(command)
    made: click.Command = click.command(name, help=cls.summary)(command)
    return made


def _start(name: str, options: dict[str, Any], values: dict[str, Any]) -> None:
    from bbox.results.defend_run import DefendConfig, DefendFolder, plan_defend

    keep = (
        "target",
        "data",
        "shots",
        "test",
        "test_limit",
        "image_size",
        "limit",
        "seed",
        "budget",
        "certify",
        "max_batch",
        *_HOW,
    )
    config = DefendConfig(
        defense=name,
        options=options,
        target_options=dict(pairs("--set", values["target_options"])),
        labels=None if values["labels"] is None else str(values["labels"]),
        **{option: values[option] for option in keep},
    )
    plan = plan_defend(config)
    more = plan.defense.comparison_queries(config.budget, len(plan.data), len(plan.test))
    if more and not values["quiet"]:
        say(f"queries: at most {config.budget:,} to fit, and at most {more:,} to compare it with simpler means")
    out = values["out"] or new_folder(name)
    _execute(plan, DefendFolder.create(out, plan.describe(shlex.join(["bbox", *sys.argv[1:]]))), values)


def _resume(ctx: click.Context, values: dict[str, Any], name: str) -> None:
    from dataclasses import replace

    from bbox.results.defend_run import DefendFolder, plan_defend

    refuse_changes(ctx, _RESUME_MAY_CHANGE)
    folder = DefendFolder.open(values["resume"])
    config = folder.config()
    if name != config.defense:
        raise UsageError(f"{folder.path} is a fit of {config.defense}, not of {name}")
    plan = plan_defend(replace(config, **given(ctx, _HOW)), folder)
    folder.check_same(plan)
    _execute(plan, folder, values)


def _execute(plan: Any, folder: Any, values: dict[str, Any]) -> None:
    import torch

    from bbox.calibrate import usable_cores
    from bbox.results.defend_run import execute_defend

    torch.set_num_threads(values.get("threads") or usable_cores())
    progress = None if values["quiet"] else _Progress()
    results = execute_defend(plan, folder, report=progress)
    if progress is not None:
        progress.close()
    tell(results, folder.path, values, print_fit)


class _Progress:
    """The stage of a fit, in one line."""

    def __init__(self) -> None:
        self._line = Line()
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._line(f"{stage}: {done:,} of {total:,}", always=stage != self._stage)
        self._stage = stage

    def close(self) -> None:
        self._line.close()


def print_fit(results: dict[str, Any], path: Path) -> None:
    """The table of a fit, on stderr."""
    fit = results["fit"]
    if results.get("comparison"):
        from bbox.cli.comparison import comparison_table

        console().print(comparison_table(results))
    else:
        console().print(_noisy_table(results))
    for note in fit.get("notes", ()):
        say(f"note: {note}")
    for line in (results.get("comparison") or {}).get("advice", ()):
        say(line)
    certificate = results["certificate"]
    if certificate is not None:
        say(_certified(certificate, results["test"]))
    ledger = results["ledger"]
    spent = sum(entry["queries"] for entry in ledger.values())
    parts = ", ".join(f"{purpose} {entry['queries']:,}" for purpose, entry in sorted(ledger.items()))
    each = " a method" if results.get("comparison") else ""
    say(f"queries: {spent:,} ({parts}); budget {results['budget']:,}{each}; {results['seconds']:g} s")
    say_bill(results)
    say(f"attack it: bbox attack cgba --target defended:{path}")


def _noisy_table(results: dict[str, Any]) -> Table:
    """Rows of a denoiser's fit, under noise."""
    fit = results["fit"]
    table = Table(title=f"{results['defense']} on {results['target']}", title_justify="left")
    table.add_column("row")
    table.add_column(f"of {fit.get('images', 0)} noisy validation images answered as clean", justify="right")
    for name, value in fit.get("rows", {}).items():
        mark = " (kept)" if name == fit.get("chosen") else ""
        table.add_row(name + mark, f"{100 * value:.1f}%" if value >= 0 else f"squared error {-value:.4f}")
    return table


def _certified(certificate: dict[str, Any], test: str) -> str:
    accuracies = "  ".join(
        f"{100 * entry['value']:.1f}% at {entry['radius']:g}" for entry in certificate["certified_accuracy"]
    )
    return f"certified accuracy of {certificate['images']} held-out images of {test}: {accuracies}"
