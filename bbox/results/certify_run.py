"""A certification on disk. Killed at any moment, it goes on where it was saved.

run.json                   what was asked, versions, hardware, fingerprints of target, data and denoiser
certificate.safetensors    class counts and bounds of each image, replaced after each slice of forwards
answers.sqlite             live targets: the answers to the slice under way
sessions.json              queries and seconds of each session (the first run, each resume); with --max-requests
                           requests.json has what is reserved
results.json               the figures, written when nothing is left to sample
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch

from bbox import data as data_module
from bbox.calibrate import calibrate, choose_threads
from bbox.data.base import Dataset
from bbox.defenses.bounds import Method
from bbox.defenses.certificate import Certificate
from bbox.defenses.certification import Denoise, certify, noise_accuracy
from bbox.defenses.denoisers import load_denoiser
from bbox.errors import InputError, UsageError
from bbox.oracle import Oracle
from bbox.results.fits import check_fits, only_images
from bbox.results.plain_folder import PlainFolder, cannot_write
from bbox.results.recorded import Recorded, on_record
from bbox.results.records import LiveConfig
from bbox.results.session import describe_run, load_target
from bbox.results.spending import Session, oracle_of
from bbox.targets.account import Purse

__all__ = ["CertifyConfig", "CertifyFolder", "CertifyPlan", "execute_certify", "plan_certify"]

_LIKELY_SAMPLES = 300  # of the estimate, an image; only to see whether a probe of threads and batch is worth it
_WORTH_THREADS, _WORTH_BATCH = 5_000, 40_000


@dataclass(frozen=True)
class CertifyConfig(LiveConfig):
    """What was asked for, as it stands in ``run.json``; see ``bbox.defenses.certify`` for sigma to budget.

    Attributes:
        radii: empty = multiples of sigma.
        budget: rows of the whole run, the noise accuracy's included, or ``None``.
        noise_accuracy: draws an image for the accuracy under noise without a vote, 0 for none.
    """

    sigma: float
    target: str = "zoo:digits"
    target_options: dict[str, Any] = field(default_factory=dict)
    data: str = "zoo:digits"
    labels: str | None = None
    image_size: int | None = None
    limit: int | None = None
    indices: tuple[int, ...] | None = None
    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001
    radii: tuple[float, ...] = ()
    method: Method = "eprocess"
    denoiser: str | None = None
    seed: int = 0
    budget: int | None = None
    noise_accuracy: int = 0
    max_batch: int | None = None
    device: str | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("limit", "image_size", "max_batch", "budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if self.noise_accuracy < 0:
            raise UsageError(f"noise accuracy is {self.noise_accuracy} draws, expected 0 or more")


@dataclass(frozen=True)
class CertifyPlan:
    """A certification whose parts are loaded and fit each other."""

    config: CertifyConfig
    oracle: Oracle
    data: Dataset
    denoise: Denoise | None
    denoiser_digest: str | None
    purse: Purse | None = None

    def describe(self, command: str) -> dict[str, Any]:
        """The content of ``run.json``."""
        described = describe_run(cast(Any, self), command)
        return {"kind": "certify", **described, "denoiser": {"fingerprint": self.denoiser_digest}}


def plan_certify(config: CertifyConfig, folder: PlainFolder | None = None) -> CertifyPlan:
    """Load target, data and denoiser, check that they fit, and ask the target one row (on the ``probe`` ledger), a live
    one twice.

    Args:
        folder: of the run that is gone on with, which knows how many requests are used.

    Raises:
        UsageError, InputError: in one line, what does not fit.
    """
    labels = None if config.labels is None else Path(config.labels)
    images = data_module.load(config.data, size=config.image_size, labels=labels)
    images = only_images(images).select(limit=config.limit, indices=config.indices)
    oracle, purse = oracle_of(config, load_target(config), folder, config.max_batch or 128)
    shape = tuple(images.inputs.shape[1:])
    if config.noise_accuracy and images.labels is None:
        raise UsageError(f"the accuracy under noise needs labels, and {images.name} has none")
    extra = config.noise_accuracy * len(images)
    if config.budget is not None and config.budget <= extra:
        raise UsageError(f"budget is {config.budget}, and the accuracy under noise alone takes {extra}")
    denoise, digest = None, None
    if config.denoiser is not None:
        denoise, digest = load_denoiser(config.denoiser, device=oracle.device, shape=shape)
    with oracle.terms.settled():
        check_fits(oracle, images)
    return CertifyPlan(config, oracle, images, denoise, digest, purse)


class CertifyFolder(PlainFolder):
    """The folder of a certification."""

    kind = "certify"
    noun = "certification"

    def check(self) -> None:
        self.config()

    def config(self) -> CertifyConfig:
        return CertifyConfig.from_json(self.run()["config"])

    def certificate(self) -> Certificate | None:
        path = self.path / "certificate.safetensors"
        return Certificate.load(path) if path.exists() else None

    def check_same(self, plan: CertifyPlan) -> None:
        """Refuse to go on with another target, denoiser or other data than the run began with."""
        run = self.run()
        for what, began, now in (
            (plan.config.target, run["target"]["fingerprint"], plan.oracle.target.fingerprint()),
            (plan.config.data, run["data"]["fingerprint"], plan.data.fingerprint()),
            (plan.config.denoiser, run["denoiser"]["fingerprint"], plan.denoiser_digest),
        ):
            if began != now:
                raise InputError(f"{what} has changed since {self.path} began; start a new run")

    def save(self, certificate: Certificate) -> None:
        try:
            certificate.save(self.path / "certificate.safetensors")
        except OSError as error:
            raise cannot_write(self.path, error) from error


def execute_certify(
    plan: CertifyPlan,
    folder: CertifyFolder,
    *,
    on_progress: Callable[[Certificate], None] | None = None,
    threads: int | Literal["auto"] | None = None,
) -> dict[str, Any]:
    """Certify into the folder, or go on with what it holds; returns the content of ``results.json``.

    Raises:
        TargetError: the target failed; the folder keeps what was counted.
    """
    config, oracle, images = plan.config, plan.oracle, plan.data
    before = folder.sessions()
    state = folder.certificate()
    noise = next((s["noise_accuracy"] for s in before if "noise_accuracy" in s), None)
    shared: Any = {
        "sigma": config.sigma,
        "denoise": plan.denoise,
        "seed": config.seed,
        "indices": images.indices,
    }
    with Session(folder, plan) as session:
        if state is None or not state.complete:
            _tune(plan, threads, before)
        same_batch = bool(before) and before[-1]["max_batch"] == oracle.max_batch
        with on_record(oracle, folder.path / "answers.sqlite", state, same_batch=same_batch) as asked:

            def on_slice(found: Certificate) -> None:
                folder.save(found)
                if isinstance(asked, Recorded):
                    asked.next_slice()
                session.save()
                if on_progress is not None:
                    on_progress(found)

            if config.noise_accuracy and noise is None and images.labels is not None:
                single = noise_accuracy(asked, images.inputs, images.labels, draws=config.noise_accuracy, **shared)
                noise = {**asdict(single), "standard_error": _finite(single.standard_error)}
                session.record["noise_accuracy"] = noise
                session.save()
            found = certify(
                asked,
                images.inputs,
                images.labels,
                n0=config.n0,
                n=config.n,
                alpha=config.alpha,
                radii=config.radii or "auto",
                method=config.method,
                budget=None if config.budget is None else config.budget - config.noise_accuracy * len(images),
                on_progress=on_slice,
                resume=state,
                **shared,
            )
        results = {
            "target": config.target,
            "denoiser": config.denoiser,
            "data": config.data,
            "noise_accuracy": noise,
            **found.to_json(),
            **session.costs(),
        }
        folder.write("results.json", results)
    return results


def _tune(plan: CertifyPlan, threads: int | Literal["auto"] | None, sessions: list[dict[str, Any]]) -> None:
    """Choose threads and batch size: what an earlier session chose, or a probe if the run is worth one."""
    rows = len(plan.data) * (plan.config.n0 + (plan.config.n if plan.config.method == "fixed" else _LIKELY_SAMPLES))
    if isinstance(threads, int):
        torch.set_num_threads(threads)
    elif threads == "auto" and sessions:
        torch.set_num_threads(sessions[-1]["threads"])
    elif threads == "auto" and rows >= _WORTH_THREADS:
        choose_threads(plan.oracle, plan.data.inputs[0])
    elif threads == "auto":
        torch.set_num_threads(1)
    if plan.config.max_batch is None and sessions:
        plan.oracle.max_batch = sessions[-1]["max_batch"]
    elif plan.config.max_batch is None and rows >= _WORTH_BATCH:
        calibrate(plan.oracle, plan.data.inputs[0])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
