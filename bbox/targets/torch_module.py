"""A torch module as a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbox.errors import InputError, UsageError
from bbox.motion.networks.base import MotionNetwork
from bbox.targets.base import Target
from bbox.targets.frozen import Frozen, digest, pick_device
from bbox.targets.options import floats, size_pair

__all__ = ["TorchTarget"]


class TorchTarget(Target):
    """A torch module with its preprocessing; attacks see images in [0, 1].

    The module is always called in eval mode and in ``torch.inference_mode``; its training flags, parameters
    and buffers are the same bits after a call as before. Rows are cast to the dtype of the module's
    parameters, and scores come back as float32. The module gets rows of its own, so in-place layers do not
    reach the caller's.

    Args:
        module: takes a batch of images; moved to ``device`` in place.
        name: what the user would type to load it again.
        mean, std: one number a channel; the module is given (rows - mean) / std.
        size: the side, or (height, width), that rows are resized to first (bilinear, antialiased).
        num_classes: number of scores, where known.
        input_shape: (channels, height, width) of one row, where known.
        device: default CUDA where there is one.

    Raises:
        UsageError: an argument is wrong, or there is no such device.

    Example:
        >>> target = TorchTarget(nn.Flatten(), name="flat", num_classes=4, device="cpu")
        >>> target(torch.ones(1, 1, 2, 2))
        tensor([[1., 1., 1., 1.]])
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | tuple[int, int] | None = None,
        num_classes: int | None = None,
        input_shape: Sequence[int] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise UsageError(f"{name}: expected a torch module, got {type(module).__name__}")
        self.name = name
        self.mean = None if mean is None else floats(f"{name}: mean", mean)
        self.std = None if std is None else floats(f"{name}: std", std)
        self.size = None if size is None else size_pair(f"{name}: size", size)
        self.num_classes = num_classes
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self._check()
        if isinstance(module, MotionNetwork):
            self.takes = "motion"
        self.any_tensor = self.mean is None and self.std is None and self.size is None
        self.device = pick_device(device)
        self.module = module.to(self.device)
        self._frozen = Frozen(self.module)
        self._mean = self._channels(self.mean)
        self._std = self._channels(self.std)

    def __call__(self, rows: Tensor) -> Tensor:
        """Scores of rows.

        Shapes:
            rows: (n, channels, height, width) in [0, 1], or motions (n, axes, frames, joints, bodies) in metres.
            returns: (n, classes) float32; what else a module answers comes back as it is, for the oracle to
                judge.

        Raises:
            InputError: the module answers no tensor and nothing with ``logits``.
        """
        with self._frozen(), torch.inference_mode():
            answer = self._scores(self.module(self._preprocess(rows)))
        # A copy outside inference mode is an ordinary tensor, which callers may write to.
        return answer.to(torch.float32 if answer.is_floating_point() else torch.int64, copy=True)

    def with_gradient(self, rows: Tensor) -> Tensor:
        """The scores as a differentiable function of the rows, for white-box comparisons only.

        No oracle counts this, and nothing that defends or attacks a black box may use it.
        """
        with self._frozen():
            return self._scores(self.module(self._preprocess(rows))).float()

    def fingerprint(self) -> str:
        """SHA-256 over class names, weights, buffers and preprocessing; not over the code of the classes."""
        return digest(self.module, self.mean, self.std, self.size)

    def _preprocess(self, rows: Tensor) -> Tensor:
        own = rows.to(self.device, torch.float32, copy=True)
        if self.size is not None and tuple(own.shape[-2:]) != self.size:
            own = functional.interpolate(own, self.size, mode="bilinear", antialias=True, align_corners=False)
        if self._mean is not None:
            own = own - self._mean
        if self._std is not None:
            own = own / self._std
        return own.to(next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32))

    def _scores(self, answer: object) -> Tensor:
        if not isinstance(answer, Tensor):
            logits = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
            if not isinstance(logits, Tensor):
                raise InputError(
                    f"{self.name}: the module answers {type(answer).__name__}, expected a tensor of scores "
                    "or something with .logits; wrap it in a module that returns the scores"
                )
            answer = logits
        return answer

    def _check(self) -> None:
        lengths = {len(x) for x in (self.mean, self.std) if x is not None} - {1}
        if self.input_shape is not None:
            lengths |= {self.input_shape[0]} if lengths else set()
        if len(lengths) > 1:
            raise UsageError(
                f"{self.name}: mean has {len(self.mean or ())} numbers and std {len(self.std or ())}, "
                f"expected one a channel of {self.input_shape or 'the same images'}"
            )
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"{self.name}: std is {self.std}, expected numbers above zero")

    def _channels(self, values: tuple[float, ...] | None) -> Tensor | None:
        return None if values is None else torch.tensor(values, device=self.device).reshape(-1, 1, 1)
