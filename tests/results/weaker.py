"""The embedded digits network, made less robust by a known amount. A module of its own, so that it can be copied."""

import torch
from torch import Tensor, nn

from bbox.zoo.digits import load_digits_data, load_digits_model


class Weaker(nn.Module):
    """It sees every deviation from the nearest held-out digit ``factor`` times as large.

    So its clean answers are the embedded network's, and whatever fools that one at some distance from a held-out digit
    fools this one, in the same direction, at that distance / ``factor`` (where no pixel leaves its range).
    """

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))  # a part of the weights, so that its fingerprint differs
        self.inner = load_digits_model()
        self.register_buffer("digits", load_digits_data().inputs)

    def forward(self, rows: Tensor) -> Tensor:
        digits = self.digits
        assert isinstance(digits, Tensor)
        near = digits[torch.cdist(rows.flatten(1), digits.flatten(1)).argmin(1)]
        answers: Tensor = self.inner(near + self.factor * (rows - near))
        return answers


def model(factor: str = "1.0") -> Weaker:
    return Weaker(float(factor)).eval()
