"""The command line. Parsing and printing only; each command's module is imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import click

from bbox import __version__
from bbox.errors import BboxError

__all__ = ["cli", "main"]

_COMMANDS = {
    "attack": ("bbox.cli.attack", "attack", "Attack a target under a hard query budget, into a run folder."),
    "baseline": ("bbox.cli.baseline", "baseline", "Write down how robust a model is, for bbox check."),
    "certify": (
        "bbox.cli.certify",
        "certify",
        "Certify a target by randomized smoothing, into a run folder.",
    ),
    "check": ("bbox.cli.check", "check", "Hold a model to its baseline; exit code 1 where it fell."),
    "compare": ("bbox.cli.compare", "compare", "Compare runs of bbox attack, paired by example."),
    "defend": ("bbox.cli.defend", "defend", "Fit a defense by queries, or evaluate defenses against attacks."),
    "evaluate": (
        "bbox.cli.evaluate",
        "evaluate",
        "Measure how far a run's adversarial examples fool other targets.",
    ),
    "list": (
        "bbox.cli.listing",
        "listing",
        "List attacks, defenses, targets and data, with what each needs.",
    ),
    "serve": ("bbox.cli.serve", "serve", "Serve a target over the Open Inference Protocol, on loopback."),
    "show": ("bbox.cli.show", "show", "Print the table of a run again."),
    "validate": (
        "bbox.cli.validate",
        "validate",
        "Check target, data and options; say what the run would cost.",
    ),
}


class _Lazy(click.Group):
    """Knows its commands by name; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from bbox.registry import did_you_mean

            near = did_you_mean(args[0], _COMMANDS) or f"; commands are {', '.join(_COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}{near}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bbox")
def cli() -> None:
    """Attack and defend black-box models behind an oracle that counts every query."""


def main() -> None:
    """Entry point: every mistake is one line on stderr and an exit code (see ``bbox.errors``)."""
    # Read when torch loads OpenMP: threads that wait should sleep, not spin on cores that others need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.showwarning = lambda message, *_: _say(f"note: {message}")
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        _say(error.format_message())
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):  # click turns Ctrl-C into Abort
        command = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in _COMMANDS else "attack"
        again = "the same command" if command in ("compare", "evaluate", "serve") else f"bbox {command} --resume RUN"
        _say(f"interrupted; a run folder keeps what was answered, go on with: {again}")
        sys.exit(130)
    except BboxError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of stdout has gone (head, less): nothing more to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("BBOX_TRACEBACK"):
            raise
        _say(f"internal error: {type(error).__name__}: {error} (BBOX_TRACEBACK=1 shows where; please report it)")
        sys.exit(70)


def _say(message: str) -> None:
    click.echo("bbox: " + " ".join(message.split()), err=True)
