"""The objective of a renaming search: from scores to one number, lower is nearer to success."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bbox.attacks.losses import are_probabilities, as_logits, margin

__all__ = ["Objective", "values"]

Objective = Literal["margin", "probability"]


def values(scores: Tensor, labels: Tensor, objective: Objective, *, targeted: bool = False) -> Tensor:
    """The objective of each row.

    ``margin``: log p_y - max over the other classes of log p_k, which does not saturate where a victim is sure
    (targeted: max over the others minus log p_t). ``probability``: p_y, the paper's (targeted: 1 - p_t).

    Shapes:
        scores: (m, classes) probabilities or logits; labels: (m,) int64, the class to leave or to reach.
        returns: (m,) float64, inf where the scores are not numbers.
    """
    logits = as_logits(scores, are_probabilities(scores))
    if objective == "margin":
        found = margin(logits, labels, targeted)
    else:
        own = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        found = 1 - own if targeted else own
    return found.masked_fill(found.isnan(), torch.inf)
