"""What certification found: each image's class counts and bound, kept so that any radius can be asked later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bbox.defenses import bounds
from bbox.defenses.stopping import StoppingRule
from bbox.errors import InputError
from bbox.files import write_whole

__all__ = ["Certificate", "Settings", "Share"]

_KIND = "bbox certificate 1"
_CONFIDENCE = 0.95

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What was asked of a certification.

    Attributes:
        model: what was sampled, in words; it enters no computation.
        radii: l2 radii to decide; ``None``: all n samples, and the radius that comes out.
        budget: rows of the whole certification, a hard limit, or ``None``.
    """

    model: str
    sigma: float
    n0: int
    n: int
    alpha: float
    method: bounds.Method
    radii: tuple[float, ...] | None
    seed: int
    budget: int | None = None

    @cached_property
    def rule(self) -> StoppingRule:
        return StoppingRule(self.method, self.n, self.alpha, self.sigma, self.radii)

    @property
    def shown_radii(self) -> tuple[float, ...]:
        """The radii of a table: those asked, or multiples of sigma that n samples can reach."""
        if self.radii is not None:
            return self.radii
        most = bounds.largest_radius(self.method, self.n, self.alpha, self.sigma)
        return tuple(step * self.sigma for step in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0) if step * self.sigma <= most)


@dataclass(frozen=True)
class Share:
    """Certified accuracy at a radius, with its 95% interval over images (Clopper and Pearson, two-sided)."""

    radius: float
    value: float
    low: float
    high: float
    images: int


@dataclass
class Certificate:
    """The state and the result of a certification of m images.

    Each image's statement holds by itself with probability at least 1 - alpha: "for every perturbation of l2 norm
    below ``radius`` the smoothed classifier answers ``predicted``". The smoothed classifier is the one that was
    sampled: noise of ``sigma`` on the outermost input, then the denoiser, then the target. It says nothing of the
    target without noise.

    Shapes:
        index, label: (m,) int64; label is -1 where the data has none.
        predicted: (m,) int64, the class selected by the first n0 samples; -1 before, or where no answer was usable.
        selection: (m, classes) int64, class counts of the selection; never part of ``counts``.
        selected: (m,) int64, samples of the selection.
        counts: (m, classes) int64, class counts of the estimate; an answer that is no class is in none.
        samples: (m,) int64, samples of the estimate.
        lower: (m,) float64, lower bound on the probability of ``predicted``; 0 before the first look.

    Attributes:
        queries: rows of the budget that are taken. After a kill it counts the rows of the last slice twice: they may
            have reached the target.
    """

    settings: Settings
    index: Ints
    label: Ints
    predicted: Ints
    selection: Ints
    selected: Ints
    counts: Ints
    samples: Ints
    lower: NDArray[np.float64]
    queries: int = 0

    @classmethod
    def blank(cls, settings: Settings, index: Ints, label: Ints, classes: int) -> Certificate:
        """Before the first sample."""
        m = len(index)

        def table() -> Ints:
            return np.zeros((m, classes), np.int64)

        def column() -> Ints:
            return np.zeros(m, np.int64)

        return cls(settings, index, label, column() - 1, table(), column(), table(), column(), np.zeros(m, np.float64))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def hits(self) -> Ints:
        """Samples of the estimate that were of the predicted class: (m,)."""
        if self.counts.shape[1] == 0:
            return np.zeros(len(self), np.int64)
        found = np.take_along_axis(self.counts, np.maximum(self.predicted, 0)[:, None], 1)[:, 0]
        return np.where(self.predicted >= 0, found, 0)

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """Images that more samples could decide: (m,)."""
        unselected = self.selected < self.settings.n0
        open_ = self.settings.rule.undecided(self.lower, self.hits, self.samples)
        return unselected | (open_ & (self.predicted >= 0))

    @property
    def budget_spent(self) -> bool:
        return self.settings.budget is not None and self.queries >= self.settings.budget

    @property
    def complete(self) -> bool:
        """Whether nothing is left to sample, or no budget to do it."""
        return self.budget_spent or not bool(self.undecided.any())

    @property
    def radius(self) -> NDArray[np.float64]:
        """Certified l2 radius, 0 = abstained: (m,). Where sampling stopped early it is what was proven until then."""
        return bounds.radius(self.lower, self.settings.sigma)

    @property
    def abstained(self) -> NDArray[np.bool_]:
        """Images for which no radius is certified, not even 0: (m,)."""
        return self.lower <= 0.5

    @property
    def reason(self) -> list[str]:
        """Why each image's sampling ended.

        ``certified`` (at all radii), ``futile`` (a radius is out of reach: an abstention there), ``samples`` (all n
        are used), ``unusable`` (no answer was a class), ``budget``, ``unfinished``.
        """
        radii = self.settings.radii
        reached = self.certified(radii).all(1) if radii is not None else np.zeros(len(self), bool)
        early = "budget" if self.budget_spent else "unfinished"
        ended = np.where(self.samples >= self.settings.n, "samples", "futile")
        ended = np.where(self.predicted < 0, "unusable", np.where(reached, "certified", ended))
        return [str(word) for word in np.where(self.undecided, early, ended)]

    def certified(self, radii: Sequence[float]) -> NDArray[np.bool_]:
        """Whether each image is certified at each radius, asked for or not: (m, radii)."""
        needed = bounds.needed_probability(np.asarray(radii, float), self.settings.sigma)
        return np.asarray(self.lower[:, None] >= needed)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Images whose predicted class is their label; all that have a class where the data has no labels: (m,)."""
        return np.where(self.label >= 0, self.predicted == self.label, self.predicted >= 0)

    def certified_accuracy(self, radii: Sequence[float] | None = None) -> list[Share]:
        """Share of images that are right and certified at each radius (without labels: certified). Abstentions count
        as errors."""
        chosen = self.settings.shown_radii if radii is None else tuple(radii)
        found = (self.certified(chosen) & self.right[:, None]).sum(0)
        m, half = len(self), (1 - _CONFIDENCE) / 2
        low, high = bounds.clopper_pearson_lower(found, m, half), bounds.clopper_pearson_upper(found, m, half)
        return [
            Share(r, int(k) / m, float(below), float(above), m)
            for r, k, below, above in zip(chosen, found, low, high, strict=True)
        ]

    @property
    def acr(self) -> float:
        """Average certified radius (Zhai et al., "MACER", ICLR 2020): wrong and abstained images count 0.

        With ``radii=None`` every image gets all n samples and this is the usual figure. Where sampling stops at the
        asked radii it is a lower bound of that.
        """
        return float(np.where(self.right, self.radius, 0.0).mean())

    @property
    def mean_samples(self) -> float:
        """Samples an image, those of the selection included."""
        return float((self.selected + self.samples).mean())

    def to_json(self) -> dict[str, Any]:
        """Settings, figures, and a line an image; counts stand in the saved file."""
        radii = self.settings.shown_radii
        verdicts = self.certified(radii).tolist()
        return {
            "settings": asdict(self.settings),
            "complete": self.complete,
            "images": len(self),
            "labelled": bool((self.label >= 0).all()),
            "certified_accuracy": [asdict(share) for share in self.certified_accuracy()],
            "acr": self.acr,
            "acr_is_lower_bound": self.settings.radii is not None and self.settings.method != "fixed",
            "abstained": int(self.abstained.sum()),
            "reasons": {word: self.reason.count(word) for word in sorted(set(self.reason))},
            "mean_samples": self.mean_samples,
            "queries": self.queries,
            "examples": [
                {
                    "index": int(self.index[i]),
                    "label": int(self.label[i]) if self.label[i] >= 0 else None,
                    "predicted": int(self.predicted[i]) if self.predicted[i] >= 0 else None,
                    "hits": hits,
                    "samples": int(self.samples[i]),
                    "lower": float(self.lower[i]),
                    "radius": radius,
                    "certified": verdict,
                    "reason": reason,
                }
                for i, (hits, radius, verdict, reason) in enumerate(
                    zip(self.hits.tolist(), self.radius.tolist(), verdicts, self.reason, strict=True)
                )
            ],
        }

    def save(self, path: Path | str) -> None:
        """Write one .safetensors file, whole or not at all."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("settings", "queries")}
        header = {"settings": asdict(self.settings), "queries": self.queries}
        data = save(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            metadata={"kind": _KIND, "header": json.dumps(header)},
        )
        write_whole(Path(path), data)

    @classmethod
    def load(cls, path: Path | str) -> Certificate:
        """Read what ``save`` wrote.

        Raises:
            InputError: no such file, or no certificate.
        """
        if not Path(path).is_file():
            raise InputError(f"{path}: no such certificate")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("kind") != _KIND:
                    raise InputError(f"{path} is no certificate: its header says {metadata.get('kind')!r}")
                header = json.loads(metadata["header"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            radii = header["settings"]["radii"]
            settings = Settings(**{**header["settings"], "radii": None if radii is None else tuple(radii)})
            return cls(settings, queries=header["queries"], **arrays)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a certificate: {' '.join(str(error).split())[:160]}") from error
