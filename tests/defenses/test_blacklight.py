"""Blacklight: near queries are refused, distinct ones served, in order, in bounded memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import bbox
from bbox.defenses import make_defense
from bbox.oracle import Oracle
from bbox.targets.base import REFUSED
from tests.toys import CLASSES, Answers, Quadratic, SmallMemory


def rows_of(count: int, shape: tuple[int, ...] = (1, 28, 28), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 21, 17)])
@pytest.mark.parametrize("access", ["scores", "labels"])
def test_near_duplicates_are_refused_and_never_asked(shape: tuple[int, ...], access: str) -> None:
    target = Quadratic(shape, access=access)
    wrapped = make_defense("blacklight").wrap(target)
    oracle = Oracle(wrapped)
    rows = rows_of(20, shape)
    near = (rows + 0.002 * (rows_of(20, shape, 1) - 0.5)).clamp(0, 1)
    assert (oracle.ask(rows).labels >= 0).all()
    answers = oracle.ask(torch.cat([near, rows, rows_of(20, shape, 2)]))
    assert (answers.labels[:40] == REFUSED).all() and (answers.labels[40:] >= 0).all()
    assert oracle.books["attack"].refused == 40 and target.rows == 40


def test_a_row_is_matched_against_those_before_it_in_its_batch() -> None:
    rows = rows_of(3)
    batch = torch.cat([rows, rows[1:2], rows_of(1, seed=3), rows[:1]])
    wrapped = make_defense("blacklight").wrap(Quadratic((1, 28, 28)))
    refused = wrapped(batch).isnan().all(1)
    assert refused.tolist() == [False, False, False, True, False, True]


def test_all_refused_has_the_shape_of_an_answer() -> None:
    for target in (Quadratic((1, 28, 28)), Answers(lambda rows: torch.zeros(len(rows), 3), classes=None)):
        wrapped = make_defense("blacklight").wrap(target)
        answers = wrapped(rows_of(4))
        again = wrapped(rows_of(4))
        assert again.shape == answers.shape and again.isnan().all()


def test_clean_digits_and_colour_images_are_served() -> None:
    digits = bbox.data.load("zoo:digits").inputs
    detector = make_defense("blacklight").wrap(Quadratic((1, 28, 28)))
    assert detector.judge(digits).sum() == 0  # type: ignore[attr-defined]
    colour = torch.cat([bbox.data.load(f"foolbox:{name}").inputs for name in ("cifar10", "cifar100")])
    assert make_defense("blacklight").wrap(Quadratic((3, 32, 32))).judge(colour).sum() == 0  # type: ignore[attr-defined]


def test_cgba_is_refused_mostly_and_gets_less_far() -> None:
    digits = bbox.data.load("zoo:digits").select(limit=8)
    target = bbox.targets.load("zoo:digits", device="cpu")
    free = bbox.attack(target, digits.inputs, digits.labels, budget=200)
    held = bbox.attack(make_defense("blacklight").wrap(target), digits.inputs, digits.labels, budget=200)
    ledger = held.ledgers["attack"]
    assert ledger.queries == 8 * 200 and ledger.refused > 0.6 * ledger.queries
    assert held.distance.median() > 1.3 * free.distance.median()


def test_fresh_forgets_and_leaves_the_memory_alone() -> None:
    wrapped = make_defense("blacklight").wrap(Quadratic((1, 28, 28)))
    wrapped(rows_of(4))
    assert torch.isfinite(wrapped.fresh()(rows_of(4))).all()
    assert wrapped(rows_of(4)).isnan().all()
    oracle = Oracle(wrapped)
    assert (oracle.ask(rows_of(4), "clean").labels >= 0).all()
    assert (oracle.ask(rows_of(4)).labels == REFUSED).all()


def test_memory_keeps_the_last_queries_and_drops_the_rest() -> None:
    whole, bounded = (make_defense("blacklight", {"memory": m}).wrap(Quadratic((1, 28, 28))) for m in (0, 10))
    rows = rows_of(40)
    for part in rows.split(7):
        whole(part), bounded(part)
    assert whole.remembered == 40 and bounded.remembered <= 10 + 7  # type: ignore[attr-defined]
    assert bounded.state_bytes < 0.6 * whole.state_bytes  # type: ignore[attr-defined]
    assert bounded(rows[30:]).isnan().all()
    assert torch.isfinite(bounded(rows[:30])).all()
    # What is due to be dropped with the next batch counts no more.
    alone = make_defense("blacklight", {"memory": 10}).wrap(Quadratic((1, 28, 28)))
    assert torch.isfinite(alone(torch.cat([rows[:11], rows[:1]]))).all()


def test_bytes_a_query_are_as_the_docs_say() -> None:
    wrapped = make_defense("blacklight").wrap(Quadratic((1, 28, 28)))
    wrapped(bbox.data.load("zoo:digits").inputs)
    assert 3000 < wrapped.state_bytes / wrapped.remembered < 9000  # type: ignore[attr-defined]


def test_rows_that_were_not_answered_are_no_repeats() -> None:
    oracle = Oracle(make_defense("blacklight").wrap(SmallMemory((1, 28, 28), fits=5)), max_batch=16)
    assert (oracle.ask(rows_of(16)).labels >= 0).all()
    bounded = make_defense("blacklight", {"memory": 8}).wrap(SmallMemory((1, 28, 28), fits=5))
    assert (Oracle(bounded, max_batch=16).ask(rows_of(40)).labels >= 0).all()


def test_flat_images_have_no_fingerprints_and_are_never_refused() -> None:
    wrapped = make_defense("blacklight").wrap(Quadratic((1, 28, 28)))
    flat = torch.full((3, 1, 28, 28), 0.4)
    assert torch.isfinite(wrapped(flat)).all()
    assert (make_defense("blacklight").fingerprints(flat) < -(2**62)).all()  # type: ignore[attr-defined]


def test_fingerprints_are_those_of_windows_that_are_alike() -> None:
    """Against the definition, window by window: equal cells give equal hashes, other cells others."""
    defense = make_defense("blacklight", {"window": 5, "step": 3, "keep": 10_000})
    rows = rows_of(1, (1, 6, 10))
    changed = rows.clone()
    changed.view(-1)[30] = (changed.view(-1)[30] + 0.5) % 1
    one, two = (set(defense.fingerprints(r)[0].tolist()) for r in (rows, changed))  # type: ignore[attr-defined]
    windows = range(0, 60 - 5 + 1, 3)
    assert len(one) == len(windows)
    assert len(one - two) == sum(start <= 30 < start + 5 for start in windows)
    other = make_defense("blacklight", {"window": 5, "step": 3, "keep": 10_000, "seed": 1})
    assert not one & set(other.fingerprints(rows)[0].tolist())  # type: ignore[attr-defined]


def test_classes_of_the_inner_target_stay() -> None:
    assert make_defense("blacklight").wrap(Quadratic((1, 28, 28))).num_classes == CLASSES
