"""``bbox certify``: randomized smoothing of a target, certified, into a run folder."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from bbox.cli.attack_options import given, refuse_changes
from bbox.cli.bill import say_bill
from bbox.cli.console import Line, console, new_folder, say, tell
from bbox.cli.options import LIVE, check_threads, live_options, pairs, read_indices
from bbox.errors import UsageError

if TYPE_CHECKING:
    from bbox.defenses.certificate import Certificate

__all__ = ["certify", "print_certificate"]

_DEFAULT_LIMIT = 64
_HOW = ("max_batch", "device", "trust", *LIVE)
_RESUME_MAY_CHANGE = {"resume", "json", "quiet", "threads", *_HOW}


@click.command()
@click.option("--target", default="zoo:digits", show_default=True, help="What to smooth; see bbox list targets.")
@click.option("--set", "target_options", multiple=True, metavar="KEY=VALUE", help="An option of the target.")
@click.option("--data", help=f"Images; see bbox list data.  [default: zoo:digits, {_DEFAULT_LIMIT} images]")
@click.option("--labels", type=click.Path(path_type=Path), help="CSV of file,label for a folder of images.")
@click.option("--image-size", type=int, help="Resize images to this many pixels a side.")
@click.option("--limit", type=int, help="Only the first N images.")
@click.option("--indices", help="Only these images of the data, e.g. 3,7,10-19.")
@click.option("--sigma", type=float, help="Noise, standard deviation in pixels of [0, 1].  [required]")
@click.option("--n0", type=int, default=100, show_default=True, help="Samples that select the class.")
@click.option("--n", type=int, default=10_000, show_default=True, help="Samples of the estimate, at most.")
@click.option(
    "--alpha", type=float, default=0.001, show_default=True, help="Probability that an image's claim is wrong."
)
@click.option("--radius", "radii", type=float, multiple=True, help="l2 radius.  [default: 0 to 2 sigma in halves]")
@click.option("--method", default="eprocess", show_default=True, help="fixed, staged or eprocess (fewest samples).")
@click.option("--denoiser", help="torch:MODULE:FACTORY, python:MODULE:FUNCTION or diffusers:PATH, before the target.")
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random follows from it.")
@click.option("--budget", type=int, help="Queries of the whole run, a hard limit.")
@click.option(
    "--noise-accuracy", type=int, default=1, show_default=True, help="Single noisy answers an image; 0: none."
)
@click.option("--max-batch", type=int, help="Rows a forward.  [default: measured]")
@click.option("--device", help="cpu, cuda, cuda:1.  [default: CUDA where there is one]")
@click.option("--threads", type=int, help="CPU threads of torch.  [default: measured]")
@click.option("--trust", is_flag=True, help="Load model files that can run code (pickles). Only your own.")
@live_options
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/TIME-certify]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder.")
@click.option("--json", is_flag=True, help="Print the results as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
@click.pass_context
def certify(ctx: click.Context, /, **values: Any) -> None:
    """Certify a target by randomized smoothing: for each image the l2 radius in which its class cannot change.

    \b
    bbox certify --sigma 0.25                                  the embedded digits model and data
    bbox certify --sigma 0.5 --denoiser torch:my.module:make   denoised smoothing of the same black box
    bbox certify --sigma 0.25 --target http://HOST/v2/models/NAME --max-requests 5000
    bbox certify --resume runs/...                             go on with an interrupted run
    """
    check_threads(values)
    if values["resume"] is not None:
        _resume(ctx, values)
    else:
        _start(values)


def _start(values: dict[str, Any]) -> None:
    from bbox.results.certify_run import CertifyConfig, CertifyFolder, plan_certify

    if values["sigma"] is None:
        raise UsageError("give --sigma, the noise in units of pixels in [0, 1], for example --sigma 0.25")
    plain = values["data"] is None and values["limit"] is None and values["indices"] is None
    keep = ["target", "image_size", "sigma", "n0", "n", "alpha", "method", "denoiser", "seed", "budget"]
    keep += ["noise_accuracy", *_HOW]
    config = CertifyConfig(
        **{name: values[name] for name in keep},
        target_options=dict(pairs("--set", values["target_options"])),
        data=values["data"] or "zoo:digits",
        labels=None if values["labels"] is None else str(values["labels"]),
        limit=_DEFAULT_LIMIT if plain else values["limit"],
        indices=read_indices(values["indices"]),
        radii=tuple(sorted(set(values["radii"]))),
    )
    from bbox.defenses.certification import check_request

    check_request(config.sigma, config.n0, config.n, config.alpha, config.method, config.radii or "auto", config.budget)
    plan = plan_certify(config)
    out = values["out"] or new_folder("certify")
    _execute(plan, CertifyFolder.create(out, plan.describe(shlex.join(["bbox", *sys.argv[1:]]))), values)


def _resume(ctx: click.Context, values: dict[str, Any]) -> None:
    from dataclasses import replace

    from bbox.results.certify_run import CertifyFolder, plan_certify

    refuse_changes(ctx, _RESUME_MAY_CHANGE)
    folder = CertifyFolder.open(values["resume"])
    plan = plan_certify(replace(folder.config(), **given(ctx, _HOW)), folder)
    folder.check_same(plan)
    _execute(plan, folder, values)


def _execute(plan: Any, folder: Any, values: dict[str, Any]) -> None:
    from bbox.results.certify_run import execute_certify

    progress = None if values["quiet"] else _Progress()
    results = execute_certify(plan, folder, on_progress=progress, threads=values["threads"] or "auto")
    if progress is not None:
        progress.close()
    tell(results, folder.path, values, print_certificate)


class _Progress:
    """What a certification has done so far, in one line."""

    def __init__(self) -> None:
        self._line = Line()
        self._began = time.monotonic()
        self._before: int | None = None

    def __call__(self, found: Certificate) -> None:
        if self._before is None:
            self._began, self._before = time.monotonic(), found.queries
        rate = (found.queries - self._before) / max(time.monotonic() - self._began, 1e-6)
        decided = len(found) - int(found.undecided.sum())
        self._line(f"certify: {decided}/{len(found)} decided  {found.queries:,} queries  {rate:,.0f} rows/s")

    def close(self) -> None:
        self._line.close()


def print_certificate(results: dict[str, Any], path: Path) -> None:
    """The table and what must be said beside it, on stderr."""
    settings = results["settings"]
    labelled, images = results["labelled"], results["images"]
    say(f"{settings['model']}, smoothed with sigma {settings['sigma']:g}: {images} images of {results['data']}")
    table = Table()
    table.add_column("l2 radius", justify="right")
    table.add_column("certified accuracy" if labelled else "certified share (no labels)")
    for share in results["certified_accuracy"]:
        cell = f"{100 * share['value']:.1f}% [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
        table.add_row(f"{share['radius']:g}", cell)
    console().print(table)
    say("95% intervals over images (Clopper-Pearson); abstentions count as errors")
    noise = results["noise_accuracy"]
    if noise is not None:
        error = "" if noise["standard_error"] is None else f" (standard error {100 * noise['standard_error']:.1f})"
        say(f"accuracy under noise, no vote: {100 * noise['value']:.1f}%{error}, {noise['draws']} draw(s) an image")
    bound = "at least " if results["acr_is_lower_bound"] else ""
    say(
        f"ACR {bound}{results['acr']:.3f}"
        + (" (sampling stops at the largest radius; --method fixed gives the full one)" if bound else "")
        + f"; {results['abstained']} of {images} abstain at every radius"
    )
    ended = ", ".join(f"{reason} {count}" for reason, count in results["reasons"].items())
    say(f"sampling ended: {ended}; futile and budget are abstentions and say nothing against robustness")
    say(
        f"mean samples {results['mean_samples']:,.0f} an image ({settings['method']}, n0 {settings['n0']}, at most "
        f"n {settings['n']:,}); alpha {settings['alpha']:g} for each image by itself"
    )
    say(
        f"what is certified is the smoothed model that was sampled: the majority answer of {settings['model']} under "
        f"Gaussian noise of sigma {settings['sigma']:g} on the input; not {results['target']} itself"
    )
    queries = ", ".join(f"{purpose} {ledger['queries']:,}" for purpose, ledger in sorted(results["ledger"].items()))
    say(f"queries: {queries}")
    say_bill(results)
    say(f"run folder: {path}")
