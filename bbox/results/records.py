"""What a run says of one example, and of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from bbox.domain import NORMS
from bbox.errors import UsageError
from bbox.oracle import StopReason
from bbox.targets.account import Meter, Purse, Terms

__all__ = ["SCHEMA_VERSION", "Config", "Example", "JsonConfig", "LiveConfig"]

SCHEMA_VERSION = 2  # 2: figures of any norm ("norm", "median_distance"), 1: l2 only ("median_l2")


class JsonConfig:
    """Options as they lie in ``run.json``: lists come back as tuples, unknown keys are left out."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known})


@dataclass(frozen=True, kw_only=True)
class LiveConfig(JsonConfig):
    """What a run allows a live target; the part that the options of all commands which may ask one have in common.

    Attributes:
        patience: seconds that a live target may be silent.
        max_requests: requests of the whole run, retries among them; ``None`` for no limit.
        price_per_1k: what 1,000 rows sent to the target cost, in any currency.

    Raises:
        UsageError: a number out of its range.
    """

    patience: float = 60.0
    max_requests: int | None = None
    price_per_1k: float | None = None

    def __post_init__(self) -> None:
        if self.max_requests is not None and self.max_requests < 1:
            raise UsageError(f"max_requests is {self.max_requests}, expected at least 1")
        for name in ("patience", "price_per_1k"):
            number = getattr(self, name)
            if number is not None and not 0 < number < math.inf:
                raise UsageError(f"{name} is {number:g}, expected more than 0")

    def purse(self, used: int = 0, keep: Callable[[int], None] | None = None) -> Purse | None:
        """What is left of the limit on requests, of which so many are used; ``None`` without one."""
        return None if self.max_requests is None else Purse(self.max_requests, used, keep)

    def terms(self, purse: Purse | None = None) -> Terms:
        """What one oracle, or several together, allow a live target that is paid from this purse."""
        return Terms(self.patience, None if purse is None else Meter(purse.lease, purse.limit))


@dataclass(frozen=True)
class Config(LiveConfig):
    """What was asked for; all that a run depends on, as it stands in ``run.json``.

    Attributes:
        budget: queries an example; max_queries: queries of the whole run, or ``None``.
        target_class: ``None`` (untargeted), a class index, ``"next"`` or ``"random"``.
        norm: what distances are measured in: ``"l2"`` or ``"linf"``.
        epsilons: distances at which ASR and robust accuracy are reported; empty = by norm and image size.
        checkpoints: query counts at which results are reported; empty = by budget.
        stop_at: an example stops with ``success`` at this distance.
        tube: motions: how far a coordinate may move, in metres (``bbox.motion.domain.Tube``); ``None`` = 0.1.
        cache: file of the query cache, ``None`` for none.
        engine: ``"local"`` or ``"ray"``; workers: Ray actors, each with a target of its own.

    Raises:
        UsageError: a number out of its range.
    """

    attack: str = "cgba"
    attack_options: dict[str, Any] = field(default_factory=dict)
    target: str = "zoo:digits"
    target_options: dict[str, Any] = field(default_factory=dict)
    data: str = "zoo:digits"
    labels: str | None = None
    image_size: int | None = None
    limit: int | None = None
    indices: tuple[int, ...] | None = None
    seed: int = 0
    budget: int = 1000
    max_queries: int | None = None
    target_class: int | str | None = None
    start_from: str | None = None
    quantize: str | None = None
    norm: str = "l2"
    stop_at: float | None = None
    tube: float | None = None
    epsilons: tuple[float, ...] = ()
    checkpoints: tuple[int, ...] = ()
    max_batch: int | None = None
    device: str | None = None
    trust: bool = False
    cache: str | None = None
    engine: str = "local"
    workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("budget", "max_queries", "limit", "image_size", "max_batch", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if self.engine not in ("local", "ray"):
            raise UsageError(f"engine is {self.engine!r}, expected local or ray")
        positive = (
            ("stop_at", (self.stop_at,)),
            ("tube", (self.tube,)),
            ("epsilon", self.epsilons),
            ("checkpoint", self.checkpoints),
        )
        for name, values in positive:
            for number in values:
                if number is not None and not 0 < number < math.inf:
                    raise UsageError(f"{name} is {number:g}, expected more than 0")
        if self.norm not in NORMS:
            raise UsageError(f"norm is {self.norm!r}, expected {' or '.join(NORMS)}")
        if self.quantize not in (None, "8bit"):
            raise UsageError(f"quantize is {self.quantize!r}, expected '8bit'")


@dataclass(frozen=True)
class Example:
    """One attacked (or skipped) example.

    Attributes:
        index, id: its place and its name in the data.
        label: true class; predicted: the target's clean answer; goal_label: class to leave, or to reach (targeted).
        stop_reason: why its search ended.
        queries: rows of its budget that were spent.
        success: the saved float file, read back and asked again, meets the goal; for a target that answers at random,
            in more than half of 11 times.
        adversarial_label: the target's answer to that file (the most frequent one of the winning side).
        distance: from the saved original to the saved file, in float64; ``None`` without an adversarial file.
        png_success, png_distance: the same of the 8-bit picture; ``None`` where the input is no picture.
        trace: (queries, distance) at each improvement.
        first_refused: the query at which the target first refused an answer; ``None`` where it never did.
        first_adversarial: the query of the first row that met the goal, whether or not it is a valid result (a program
            that does not mean the same is none).
        repeats: rows that the attack had asked before and answered from memory: not asked again, no queries.
        score, adversarial_score: the target's score of ``goal_label``, for the original and for the saved file.
    """

    index: int
    id: str
    label: int
    predicted: int
    goal_label: int
    stop_reason: StopReason
    queries: int = 0
    success: bool = False
    adversarial_label: int | None = None
    distance: float | None = None
    png_success: bool | None = None
    png_distance: float | None = None
    trace: tuple[tuple[int, float], ...] = ()
    first_refused: int | None = None
    first_adversarial: int | None = None
    repeats: int = 0
    score: float | None = None
    adversarial_score: float | None = None

    @property
    def attacked(self) -> bool:
        """Whether it was right from the start, and so counts in the denominator of the attack's figures."""
        return self.predicted == self.label >= 0

    def distance_at(self, queries: int) -> float:
        """The smallest distance that was reached within this many queries, inf where none was (or did not verify)."""
        if not self.success:
            return math.inf
        return min((d for n, d in self.trace if n <= queries), default=math.inf)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Example:
        trace: Sequence[Sequence[float]] = data["trace"]
        return cls(**{**data, "trace": tuple((int(n), float(d)) for n, d in trace)})
