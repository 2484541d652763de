"""The promise to users: a real pretrained model, real digits of another kind, a fixed budget, a gain that stays."""

from __future__ import annotations

import pytest
import torch

import bbox
from bbox.defenses.blackvip import BlackVIP

BUDGET = 51_200


@pytest.mark.slow
def test_a_prompt_lifts_the_mnist_net_on_uci_digits_by_ten_points() -> None:
    few, rest = bbox.data.load("zoo:uci-digits").few_shot(16, seed=0)
    test = rest.select(limit=500, seed=0)
    target = bbox.targets.load("zoo:ccexam-mnist", device="cpu")
    oracle = bbox.Oracle(target, max_batch=256)
    defense = BlackVIP()
    defense.fit(oracle, few.inputs, few.labels, budget=BUDGET, seed=0)
    assert sum(ledger.queries for ledger in oracle.books.values()) == BUDGET

    def correct(rows: torch.Tensor) -> float:
        return float((rows.argmax(1) == test.labels).float().mean())

    before, after = correct(target(test.inputs)), correct(defense.wrap(target)(test.inputs))
    assert after >= before + 0.10, f"{before:.3f} to {after:.3f}"
