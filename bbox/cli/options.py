"""Options that attack and validate share, and how they become a ``Config``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bbox.errors import UsageError
from bbox.options import HOW

if TYPE_CHECKING:
    from bbox.results.records import Config

__all__ = ["LIVE", "RunCommand", "check_threads", "config_from", "live_options", "pairs", "read_indices", "run_options"]

_F = TypeVar("_F", bound=Callable[..., Any])
_DEFAULT_LIMIT = 64  # examples attacked where nothing is said of data
# Target and data where none is named.
_DEMOS = {
    "images": ("zoo:digits", "zoo:digits"),
    "code": ("zoo:python-projects", "zoo:python-projects"),
    "motion": ("zoo:st-gcn", "zoo:motion"),
}
_DEFAULT = "zoo:digits; code: zoo:python-projects"

_OPTIONS = [
    click.option("--target", help=f"What to attack; see bbox list targets.  [default: {_DEFAULT}; motion: zoo:st-gcn]"),
    click.option(
        "--set", "target_options", multiple=True, metavar="KEY=VALUE", help="An option of the target; repeat."
    ),
    click.option(
        "--data",
        default=None,
        help="Images: zoo:NAME, foolbox:NAME, coop:FILE.json, a folder, .npz, .safetensors. Code: zoo:NAME, a folder, "
        ".jsonl, .csv, .txt. Motion: zoo:motion, .bvh, .skeleton, motion:PATH.  "
        f"[default: {_DEFAULT}, {_DEFAULT_LIMIT} examples]",
    ),
    click.option("--labels", type=click.Path(path_type=Path), help="CSV of file,label for a folder of images."),
    click.option("--image-size", type=int, help="Resize images to this many pixels a side."),
    click.option("--limit", type=int, help="Attack only the first N examples."),
    click.option("--indices", help="Attack only these examples of the data, e.g. 3,7,10-19."),
    click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it."),
    click.option("--budget", type=int, default=1000, show_default=True, help="Queries for each example, a hard limit."),
    click.option("--max-queries", type=int, help="Queries of the whole attack, a hard limit."),
    click.option("--target-class", help="Targeted attack: a class index or name, next, or random."),
    click.option("--start-from", help="Start from this image, or from these (one an example): a path or data spec."),
    click.option(
        "--quantize",
        type=click.Choice(["8bit"]),
        help="Round every image to 8 bits before the target sees it.",
    ),
    click.option("--stop-at", type=float, help="Stop an image with success at this distance."),
    click.option(
        "--epsilon", "epsilons", type=float, multiple=True, help="Distance for ASR and robust accuracy; repeat."
    ),
    click.option(
        "--checkpoint", "checkpoints", type=int, multiple=True, help="Report at this number of queries; repeat."
    ),
    click.option(
        "--norm", default="l2", show_default=True, help="What distances are measured in: l2 or linf; for code, names."
    ),
    click.option("--tube", type=float, help="Motions: metres that a coordinate may move.  [default: 0.1]"),
    click.option("--max-batch", type=int, help="Rows a forward.  [default: measured]"),
    click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where there is one]"),
    click.option(
        "--threads",
        type=int,
        help="CPU threads of torch.  [default: one, or all cores where that is measured to be faster]",
    ),
    click.option("--trust", is_flag=True, help="Load model files that can run code (pickles). Only your own."),
]

# What a run allows a target that others run, and what that charges: for every command that may ask one.
LIVE = ("patience", "max_requests", "price_per_1k")
_LIVE = [
    click.option(
        "--patience",
        type=float,
        default=60.0,
        show_default=True,
        help="Live targets: seconds without a good answer after which the run stops with exit code 3, to go on later.",
    ),
    click.option("--max-requests", type=int, help="Live targets: hard limit on the run's requests, retries included."),
    click.option("--price-per-1k", type=float, help="What 1,000 rows sent cost: prints the bill."),
]
# For every command that runs attacks.
_SHARED = [
    click.option(
        "--cache", type=click.Path(), help="Query cache: a file of answers; what it holds is not asked again."
    ),
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray: examples are shared out over workers; needs bbox-toolkit[ray].",
    ),
    click.option("--workers", type=int, default=2, show_default=True, help="Ray workers, each with its own target."),
]
_LIVE_NAMES = {*HOW} - {"max_batch", "device", "trust"}
_LIVE_TITLE = "Live targets, and more than one process"


def run_options(function: _F) -> _F:
    """Decorate a command with the shared options."""
    return _decorated(function, [*_OPTIONS, *_LIVE, *_SHARED])


def live_options(function: _F) -> _F:
    """Decorate a command with the options of ``LIVE``."""
    return _decorated(function, _LIVE)


def _decorated(function: _F, options: Sequence[Callable[[_F], _F]]) -> _F:
    for option in reversed(options):
        function = option(function)
    return function


class RunCommand(click.Command):
    """A command that runs attacks: in its help, the attack's own options and those for live targets stand apart."""

    own: Collection[str] = ()  # names of the attack's own options

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], f"Options of {self.name}": [], _LIVE_TITLE: []}
        plain, own, live = sections.values()
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                where = own if parameter.name in self.own else live if parameter.name in _LIVE_NAMES else plain
                where.append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def config_from(attack: str, attack_options: dict[str, Any], values: dict[str, Any]) -> Config:
    """Make a ``Config`` of parsed options.

    Raises:
        UsageError: an option makes no sense.
    """
    from bbox.attacks.options import takes
    from bbox.results.records import Config

    target, data = _DEMOS["motion" if _is_motion(values["data"]) else takes(attack)]
    check_threads(values)
    plain = values["data"] is None and values["limit"] is None and values["indices"] is None
    keep = (
        "image_size",
        "seed",
        "budget",
        "max_queries",
        "quantize",
        "norm",
        "tube",
        "stop_at",
        *HOW,
    )
    return Config(
        **{name: values[name] for name in keep},
        attack=attack,
        attack_options=attack_options,
        target=values["target"] or target,
        target_options=pairs("--set", values["target_options"]),
        data=values["data"] or data,
        labels=None if values["labels"] is None else str(values["labels"]),
        limit=_DEFAULT_LIMIT if plain else values["limit"],
        indices=read_indices(values["indices"]),
        target_class=_target_class(values["target_class"]),
        start_from=values["start_from"],
        epsilons=tuple(sorted(set(values["epsilons"]))),
        checkpoints=tuple(sorted(set(values["checkpoints"]))),
    )


def _is_motion(data: str | None) -> bool:
    """Whether data is motion by its name alone."""
    from bbox.data.motion.load import looks_like_motion

    spec = (data or "").partition(",")[0]
    return spec == "zoo:motion" or spec.startswith("motion:") or (spec != "" and looks_like_motion(Path(spec)))


def check_threads(values: dict[str, Any]) -> None:
    """Refuse a number of threads that is none.

    Raises:
        UsageError: as it says.
    """
    if values["threads"] is not None and values["threads"] < 1:
        raise UsageError(f"threads is {values['threads']}, expected at least 1")


def pairs(option: str, items: tuple[str, ...]) -> dict[str, str]:
    """Read repeated KEY=VALUE items.

    Raises:
        UsageError: an item of another form, or a key given twice.
    """
    read: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {item!r} is not of the form KEY=VALUE")
        if name in read:
            raise UsageError(f"{option} {name} is given twice")
        read[name] = value
    return read


def read_indices(text: str | None) -> tuple[int, ...] | None:
    """The numbers in text such as 3,7,10-19.

    Raises:
        UsageError: another form.
    """
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"--indices {text!r}: {part!r} is neither a number nor a range such as 10-19")
        stop = int(last) if dash else int(first)
        if stop < int(first) or stop - int(first) > 10_000_000:
            raise UsageError(f"--indices {text!r}: {part!r} runs backwards or too far")
        found.extend(range(int(first), stop + 1))
    return tuple(found)


def _target_class(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text
