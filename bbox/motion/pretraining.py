"""Pre-training of a motion encoder on unlabelled motion; a killed run goes on where its checkpoint is."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from bbox.errors import InputError, UsageError
from bbox.files import write_whole
from bbox.motion.contrastive import Contrast
from bbox.motion.encoders import MotionEncoder, features
from bbox.motion.pseudo import PseudoClasses, calibrate, pseudo_classes
from bbox.motion.quality import QUALITY_VIEWS, EncoderQuality, encoder_quality
from bbox.motion.recipes import RECIPES, Recipe

__all__ = ["Epoch", "Pretrained", "pretrain"]

_CHECKPOINT = "pretraining.safetensors"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """Progress: epochs done of how many, the mean loss of the last one, and the seconds that the rest will take."""

    done: int
    total: int
    loss: float
    seconds_left: float


@dataclass(frozen=True)
class Pretrained:
    """What pre-training gave.

    Attributes:
        encoder: frozen, in evaluation mode: the trained one, or the untrained one where that is better (``kept``).
        before, after: quality of the untrained encoder (random weights, and the statistics of the views in its batch
            normalisations) and of the trained one.
        losses: mean loss of each epoch.
        kept: which of the two ``encoder`` is.
        warning: says so where training made it worse.
        finished: whether all epochs were done; otherwise the time limit came first.
    """

    encoder: MotionEncoder
    before: EncoderQuality
    after: EncoderQuality
    losses: tuple[float, ...]
    kept: Literal["trained", "untrained"]
    warning: str | None
    finished: bool


def pretrain(
    encoder: MotionEncoder,
    motions: Tensor,
    recipe: Recipe = RECIPES["small"],
    *,
    seed: int = 0,
    labels: Tensor | None = None,
    folder: Path | None = None,
    every: int = 5,
    time_limit: float | None = None,
    progress: Callable[[Epoch], None] | None = None,
    keep: Literal["better", "trained"] = "better",
) -> Pretrained:
    """Train the encoder's parts without labels.

    All randomness is drawn from (seed, epoch): a run that was killed and is resumed gives the weights of one that was
    not, on the same device.

    Args:
        encoder: left as it is; a copy is trained, on the device of the motions.
        labels: (n,) of the motions, for the quality figure alone; training never sees them.
        folder: where a checkpoint is kept, and where one that is there is gone on with.
        every: epochs between checkpoints.
        time_limit: seconds, of this call; training stops after the epoch in which they are over.
        keep: ``better`` gives the untrained encoder back where training lowered its instance discrimination.

    Shapes:
        motions: (n, 3, frames, joints, bodies).

    Raises:
        UsageError: fewer than two motions, or the folder holds the checkpoint of another run.
        InputError: the checkpoint cannot be read.
    """
    if len(motions) < 2:
        raise UsageError(f"{len(motions)} motions, expected at least 2 to contrast")
    start = time.monotonic()
    untrained = copy.deepcopy(encoder).to(motions.device)
    generator = torch.Generator().manual_seed(_mixed(seed, 0))
    batches = torch.split(motions, recipe.batch)
    calibrate(untrained, [QUALITY_VIEWS(rows, generator) for rows in batches if len(rows) > 1])
    trained = copy.deepcopy(untrained)
    before = encoder_quality(trained, motions, labels=labels)
    run = _Run(trained, motions, recipe, seed, _identity(encoder, motions, recipe, seed))
    losses = run.resume(folder) if folder else []
    for epoch in range(len(losses), run.epochs):
        began = time.monotonic()
        losses.append(run.epoch(epoch))
        if not math.isfinite(losses[-1]):
            raise UsageError(f"the loss of epoch {epoch + 1} is {losses[-1]}; give a lower rate than {recipe.rate:g}")
        now = time.monotonic()
        over = time_limit is not None and now - start > time_limit
        if folder and ((epoch + 1) % every == 0 or epoch + 1 == run.epochs or over):
            run.save(folder, losses)
        if progress:
            progress(Epoch(epoch + 1, run.epochs, losses[-1], (run.epochs - epoch - 1) * (now - began)))
        if over:
            break
    after = encoder_quality(trained, motions, labels=labels)
    warning = after.worse_than(before)
    if warning:
        _log.warning(warning)
    kept: Literal["trained", "untrained"] = "trained"
    if keep == "better" and after.instance < before.instance:
        kept = "untrained"
    chosen = (untrained if kept == "untrained" else trained).eval().requires_grad_(False)
    return Pretrained(chosen, before, after, tuple(losses), kept, warning, len(losses) == run.epochs)


class _Run:
    """The state of one pre-training: what a checkpoint holds."""

    def __init__(self, encoder: MotionEncoder, motions: Tensor, recipe: Recipe, seed: int, identity: str) -> None:
        self.motions, self.recipe, self.seed, self.identity = motions, recipe, seed, identity
        self.batch = min(recipe.batch, len(motions))
        self.epochs = max(recipe.epochs, -(-recipe.steps // (len(motions) // self.batch)))
        parts = list(encoder.parts.values())
        widths = [features(part, motions[:1]).shape[1] for part in parts]
        with _drawn_from(seed, 0):
            self.method = self._method(encoder, parts, widths).to(motions.device)
        options: dict[str, Any] = {"lr": recipe.rate, "weight_decay": recipe.weight_decay}
        weights = [w for w in self.method.parameters() if w.requires_grad]
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(weights, **options)
            if recipe.optimizer == "adam"
            else torch.optim.SGD(weights, momentum=0.9, **options)
        )

    def _method(self, encoder: MotionEncoder, parts: list[nn.Module], widths: list[int]) -> Contrast | PseudoClasses:
        """What is trained. Draws from torch's own generator."""
        recipe, count, batch = self.recipe, len(self.motions), self.batch
        encoder.requires_grad_(True)
        if recipe.objective == "clusters":
            classes = pseudo_classes(features(encoder, self.motions), recipe.clusters, seed=self.seed)
            return PseudoClasses(parts, widths, classes)
        room = max(1, (count - batch) // batch) * batch
        return Contrast(
            parts,
            widths,
            queue=min(room, max(1, recipe.queue // batch) * batch),
            momentum=recipe.momentum,
            temperature=recipe.temperature,
        )

    def epoch(self, epoch: int) -> float:
        """Train for one epoch; the mean loss of its steps."""
        method, recipe = self.method.train(), self.recipe
        generator = torch.Generator().manual_seed(_mixed(self.seed, epoch + 1))
        order = torch.randperm(len(self.motions), generator=generator).to(self.motions.device)
        steps = len(order) // self.batch
        total = torch.zeros((), device=self.motions.device)
        with _drawn_from(self.seed, epoch + 1):  # dropout
            for step in range(steps):
                clips = order[step * self.batch : (step + 1) * self.batch]
                rows = self.motions[clips]
                self._set_rate(epoch, (epoch * steps + step) / (self.epochs * steps))
                loss = method([recipe.views(rows, generator) for _ in range(method.needs)], clips)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                method.follow()
                total += loss.detach()
        return float(total) / steps

    def _set_rate(self, epoch: int, done: float) -> None:
        """Set the learning rate at this fraction of all steps."""
        recipe = self.recipe
        if recipe.drops:
            factor = 0.1 ** sum(epoch >= drop for drop in recipe.drops)
        else:
            factor = min((done + 1e-3) / 0.1, (1 + math.cos(math.pi * done)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate * factor

    def save(self, folder: Path, losses: list[float]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"method.{name}": tensor for name, tensor in self.method.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in state.items() if value is not None}
        about = {"identity": self.identity, "losses": json.dumps(losses)}
        kept = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        write_whole(folder / _CHECKPOINT, safetensors.torch.save(kept, about))

    def resume(self, folder: Path) -> list[float]:
        """Go on from the checkpoint in a folder, where there is one; the losses of the epochs that are done."""
        path = folder / _CHECKPOINT
        if not path.exists():
            return []
        try:
            with safetensors.safe_open(path, "pt") as opened:
                about = opened.metadata() or {}
                stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            losses = [float(loss) for loss in json.loads(about["losses"])]
            if about["identity"] != self.identity:
                raise UsageError(
                    f"{path} is of another encoder, recipe, seed or data; give another folder or remove it"
                )
            prefix = "method."
            self.method.load_state_dict(
                {name.removeprefix(prefix): t.clone() for name, t in stored.items() if name.startswith(prefix)}
            )
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in stored.items():
                if name.startswith("optimizer."):
                    _, i, kind = name.split(".")
                    state.setdefault(int(i), {})[kind] = tensor.clone()
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        return losses


def _identity(encoder: MotionEncoder, motions: Tensor, recipe: Recipe, seed: int) -> str:
    """A digest of all that a run's result depends on."""
    digest = hashlib.sha256(json.dumps([dataclasses.asdict(recipe), seed], sort_keys=True).encode())
    for tensor in (motions, *encoder.state_dict().values()):
        digest.update(str(tuple(tensor.shape)).encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _mixed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:7], "big")


@contextmanager
def _drawn_from(seed: int, epoch: int) -> Iterator[None]:
    """Torch's own generators from (seed, epoch), and as they were afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(_mixed(seed, epoch))
        yield
