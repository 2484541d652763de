"""The oracle counts what the target saw, and the accounts keep exact budgets and best rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbox.accounts import Accounts
from bbox.domain import Box, l2
from bbox.errors import BudgetError, InternalError, TargetError
from bbox.goal import Goal
from bbox.oracle import Oracle
from bbox.targets import TorchTarget
from tests.toys import (
    CLASSES,
    Answers,
    Constant,
    Examples,
    NaNAfter,
    Quadratic,
    RaisesAfter,
    Random,
    SmallMemory,
    row_hash,
)


def _rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


# --- counting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_batch", [1, 3, 7, 100])
def test_ask_chunks_counts_and_keeps_the_order(max_batch: int) -> None:
    target, plain = Quadratic(), Quadratic()
    oracle = Oracle(target, max_batch=max_batch)
    rows = _rows(20)
    answers = oracle.ask(rows)
    assert target.seen == [row_hash(row) for row in rows]
    assert max(target.batches) <= max_batch
    assert (oracle.books["attack"].queries, oracle.books["attack"].calls) == (20, math.ceil(20 / max_batch))
    assert torch.equal(answers.scores, plain.answer(rows))
    assert torch.equal(answers.labels, plain.answer(rows).argmax(1))


def test_every_purpose_has_a_ledger_of_its_own() -> None:
    oracle = Oracle(Quadratic())
    for count, purpose in enumerate(("attack", "probe", "clean", "verify", "fit"), start=1):
        oracle.ask(_rows(count), purpose)
    assert {purpose: ledger.queries for purpose, ledger in oracle.books.items()} == {
        "attack": 1,
        "probe": 2,
        "clean": 3,
        "verify": 4,
        "fit": 5,
    }


def test_no_rows_are_no_query() -> None:
    target = Quadratic()
    answers = Oracle(target).ask(_rows(0))
    assert len(answers.labels) == 0
    assert target.batches == []


@pytest.mark.parametrize("fits", [1, 2, 5])
def test_out_of_memory_halves_the_batch_and_pays_no_row_twice(fits: int) -> None:
    target = SmallMemory(fits=fits)
    oracle = Oracle(target, max_batch=32)
    rows = _rows(45)
    answers = oracle.ask(rows)
    assert target.seen == [row_hash(row) for row in rows]
    assert oracle.books["attack"].queries == target.rows == 45
    assert oracle.books["attack"].calls == len(target.batches)
    assert torch.equal(answers.labels, Quadratic().answer(rows).argmax(1))
    assert oracle.max_batch <= fits
    refused = target.refused
    oracle.ask(rows)
    assert target.refused == refused, "the batch is halved for good"


def test_one_row_that_does_not_fit_is_a_target_error() -> None:
    with pytest.raises(TargetError, match="one row does not fit"):
        Oracle(SmallMemory(fits=0), max_batch=8).ask(_rows(3))


@given(st.integers(0, 30), st.lists(st.integers(1, 9), max_size=8))
def test_the_run_wide_limit_is_exact(limit: int, asks: list[int]) -> None:
    target = Constant()
    oracle = Oracle(target, max_batch=4, limit=limit)
    for count in asks:
        left = oracle.left()
        if count > left:
            with pytest.raises(BudgetError, match=str(limit)):
                oracle.ask(_rows(count))
        else:
            oracle.ask(_rows(count))
        oracle.ask(_rows(1), "verify")  # never on the attack's account
    attack_rows = target.rows - len(asks)
    assert attack_rows == oracle.books["attack"].queries <= limit


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "access", "word"),
    [
        (lambda rows: torch.zeros(len(rows) + 1, 4), "scores", "expected"),
        (lambda rows: torch.zeros(len(rows)), "scores", "expected"),
        (lambda rows: torch.zeros(len(rows), 4, 1), "scores", "expected"),
        (lambda rows: torch.zeros(len(rows), 0), "scores", "expected"),
        (lambda rows: torch.zeros(len(rows), 4), "labels", "labels"),
        (lambda rows: torch.zeros(len(rows) - 1, dtype=torch.int64), "labels", "labels"),
        (lambda rows: None, "scores", "NoneType"),
        (lambda rows: "cat", "labels", "str"),
        (lambda rows: 1 / 0, "scores", "division by zero"),
        (lambda rows: [][0], "scores", "failed on rows"),
    ],
)
def test_an_answer_of_the_wrong_kind_is_one_line(make: object, access: str, word: str) -> None:
    oracle = Oracle(Answers(make, access))
    with pytest.raises(TargetError, match=word) as caught:
        oracle.ask(_rows(3))
    assert "\n" not in str(caught.value)
    assert oracle.books["attack"].queries == 0


def test_the_targets_own_many_line_error_becomes_one_line() -> None:
    with pytest.raises(TargetError, match="the service has gone") as caught:
        Oracle(RaisesAfter()).ask(_rows(2))
    assert "second line" not in str(caught.value)


def test_scores_that_are_not_finite_are_no_answer() -> None:
    scores = torch.eye(CLASSES)
    scores[1, 0] = torch.nan
    scores[2, 3] = torch.inf
    oracle = Oracle(Answers(lambda rows: scores))
    assert oracle.ask(_rows(4)).labels.tolist() == [0, -1, -1, 3]
    assert oracle.books["attack"].invalid == 2
    assert oracle.books["attack"].queries == 4


def test_a_masked_class_is_an_answer_and_nothing_at_all_is_none() -> None:
    scores = torch.eye(CLASSES)
    scores[0, 1] = -torch.inf
    scores[1] = -torch.inf
    oracle = Oracle(Answers(lambda rows: scores))
    assert oracle.ask(_rows(4)).labels.tolist() == [0, -1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.tensor([0, 3, 4, -2]), [0, 3, -1, -1]),
        (torch.tensor([0.0, 3.0, 1.5, torch.nan]), [0, 3, -1, -1]),
        (torch.tensor([0, 1, 2, 3], dtype=torch.uint8), [0, 1, 2, 3]),
    ],
)
def test_labels_that_are_no_class_are_no_answer(labels: torch.Tensor, expected: list[int]) -> None:
    assert Oracle(Answers(lambda rows: labels, "labels")).ask(_rows(4)).labels.tolist() == expected


def test_a_label_target_gives_no_scores() -> None:
    answers = Oracle(Quadratic(access="labels")).ask(_rows(5))
    assert answers.scores is None
    assert torch.equal(answers.labels, Quadratic().answer(_rows(5)).argmax(1))


def test_rows_are_float32_at_the_door() -> None:
    kinds = set()
    target = Answers(lambda rows: kinds.add(rows.dtype) or torch.zeros(len(rows), 4))
    Oracle(target).ask(_rows(2).double())
    Oracle(target).ask(_rows(2).half())
    assert kinds == {torch.float32}


def test_quantised_rows_lie_on_the_8_bit_grid() -> None:
    seen = []
    target = Answers(lambda rows: seen.append(rows) or torch.zeros(len(rows), 4))
    rows = _rows(6)
    Oracle(target, quantize="8bit").ask(rows)
    levels = torch.arange(256, dtype=torch.float32) / 255
    assert torch.isin(seen[0], levels).all()
    assert (seen[0] - rows).abs().max() <= 0.5 / 255 + 1e-6


# --- the target is left alone ------------------------------------------------------------------------------------


class _Careless(torch.nn.Module):
    """Batch norm, dropout and a counter, left in training mode, with gradients on; answers through a tape."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.drop = torch.nn.Dropout(0.5)
        self.linear = torch.nn.Linear(64, CLASSES)
        self.register_buffer("calls", torch.zeros(1))
        self.grad_modes: set[bool] = set()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.grad_modes.add(torch.is_grad_enabled())
        return self.linear(self.drop(self.norm(rows)).flatten(1))


def test_a_module_in_training_mode_is_the_same_bits_after_an_attack() -> None:
    from tests.toys import attack

    torch.manual_seed(0)
    module = _Careless().train()
    torch.nn.init.zeros_(module.linear.bias)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    target = TorchTarget(module, name="careless", device="cpu")
    inputs = _rows(4)
    labels = target(inputs).argmax(1)
    repeated = {tuple(target(inputs).argmax(1).tolist()) for _ in range(5)}
    assert repeated == {tuple(labels.tolist())}, "dropout must be off"
    found = attack("cgba", target, Examples(inputs, labels), 150)
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert module.training and module.norm.training and module.drop.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert module.grad_modes == {False}
    assert all(outcome.spent == 150 for outcome in found.values())


# --- accounts ----------------------------------------------------------------------------------------------------


def _accounts(count: int, budget: int, stop_at: float | None = None) -> Accounts:
    originals = torch.full((count, 1, 2, 2), 0.5)
    return Accounts(originals, Goal(torch.zeros(count, dtype=torch.int64)), Box(), budget, stop_at=stop_at)


@given(
    count=st.integers(1, 5),
    budget=st.integers(0, 12),
    room=st.none() | st.integers(0, 20),
    owners=st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=5),
)
def test_admission_is_exact_row_by_row(count: int, budget: int, room: int | None, owners: list[list[int]]) -> None:
    """Against a loop over rows, as slow as it is plain."""
    accounts = _accounts(count, budget)
    spent = [0] * count
    for ask in owners:
        ask = [owner % count for owner in ask]
        expected, numbers, left, place = [], [], room, [0] * count
        start = list(spent)
        for owner in ask:
            place[owner] += 1
            number = start[owner] + place[owner]
            fits = number <= budget and (left is None or left > 0)
            if fits:
                spent[owner] += 1
                left = None if left is None else left - 1
            expected.append(fits)
            numbers.append(number)
        admitted, number = accounts.admit(torch.tensor(ask, dtype=torch.int64), room)
        assert admitted.tolist() == expected
        assert number.tolist() == numbers
        assert accounts.spent.tolist() == spent
        assert accounts.remaining().tolist() == [budget - s for s in spent]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(-1, 2)), min_size=1, max_size=8),
        min_size=1,
        max_size=5,
    )
)
def test_best_row_and_trace_equal_a_plain_loop(forwards: list[list[tuple[int, int, int]]]) -> None:
    """Rows at the distances 0/8 .. 6/8 from the original, answered by class: class 0 is the true one, -1 no answer."""
    accounts = _accounts(3, 1000)
    best, traces, failed, asked = [math.inf] * 3, [[] for _ in range(3)], [False] * 3, [0] * 3
    best_label = [-1] * 3
    for forward in forwards:
        owner = torch.tensor([o for o, _, _ in forward])
        rows = 0.5 + torch.tensor([d / 16 for _, d, _ in forward]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        labels = torch.tensor([label for _, _, label in forward])
        admitted, number = accounts.admit(owner)
        assert bool(admitted.all())
        hits = accounts.record(rows.contiguous(), owner, number, labels)
        for (o, d, label), hit in zip(forward, hits.tolist(), strict=True):
            asked[o] += 1
            failed[o] |= label == -1
            assert hit == (label > 0)
            if label > 0 and d / 8 < best[o]:
                best[o], best_label[o] = d / 8, label
                traces[o].append((asked[o], d / 8))
    assert accounts.distance.tolist() == best
    assert accounts.best_label.tolist() == best_label
    assert [list(zip(*(np.asarray(part).tolist() for part in trace), strict=True)) for trace in accounts.traces()] == [
        [tuple(point) for point in trace] for trace in traces
    ]
    accounts.settle()
    assert [reason == "target_error" for reason in accounts.stopped] == failed
    for o in range(3):
        if math.isfinite(best[o]):
            assert torch.allclose(accounts.best[o], torch.full((1, 2, 2), 0.5 + best[o] / 2))


def test_the_first_stop_reason_stays_and_closes_the_budget() -> None:
    accounts = _accounts(2, 10)
    accounts.stop(0, "success")
    accounts.stop(0, "budget")
    accounts.close("time_limit")
    assert accounts.stopped == ["success", "time_limit"]
    assert accounts.remaining().tolist() == [0, 0]
    admitted, _ = accounts.admit(torch.tensor([0, 1]))
    assert not bool(admitted.any())


def test_stop_at_is_success_only_where_the_distance_was_reached() -> None:
    accounts = _accounts(2, 10, stop_at=0.3)
    owner = torch.tensor([0, 1])
    _, number = accounts.admit(owner)
    rows = torch.stack([torch.full((1, 2, 2), 0.6), torch.full((1, 2, 2), 0.7)])  # l2 .2 and .4
    accounts.record(rows, owner, number, torch.tensor([1, 1]))
    accounts.settle()
    assert accounts.stopped == ["success", None]


@pytest.mark.parametrize("value", [-1e-3, 1.001, math.nan, math.inf])
def test_a_row_outside_the_box_is_the_attacks_defect(value: float) -> None:
    rows = torch.full((2, 1, 2, 2), 0.5)
    rows[1, 0, 1, 1] = value
    with pytest.raises(InternalError, match="outside its domain"):
        _accounts(2, 10).check(rows)


def test_goals() -> None:
    labels, owner = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 2])
    predicted = torch.tensor([0, 2, 2, 1])
    assert Goal(labels).met(predicted, owner).tolist() == [False, True, False, True]
    assert Goal(labels, targeted=True).met(predicted, owner).tolist() == [True, False, True, False]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (3, 256, 256), (7,), (5, 4), (150_528,)])
def test_l2_of_a_row_does_not_depend_on_the_batch(shape: tuple[int, ...], threads: int) -> None:
    rows = torch.randn(9, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.set_num_threads(threads)
    try:
        whole = l2(rows)
        alone = torch.cat([l2(row[None]) for row in rows])
    finally:
        torch.set_num_threads(1)
    assert torch.equal(whole, alone)
    expected = [math.sqrt(math.fsum((row.flatten().square()).tolist())) for row in rows]
    assert whole.tolist() == pytest.approx(expected, rel=1e-14)


def test_a_random_target_is_metered_like_any_other() -> None:
    target = Random()
    oracle = Oracle(target, max_batch=7)
    oracle.ask(_rows(30))
    assert oracle.books["attack"].queries == target.rows == 30


def test_answers_turn_invalid_in_mid_batch() -> None:
    oracle = Oracle(NaNAfter(good=5), max_batch=4)
    labels = oracle.ask(_rows(9)).labels
    assert (labels[:5] >= 0).all() and (labels[5:] == -1).all()
    assert oracle.books["attack"].invalid == 4
