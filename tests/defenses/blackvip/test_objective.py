"""What the black box answers: its kind is told, and every kind becomes a loss that is finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bbox.defenses.blackvip.objective import AnswerKind, Objective
from bbox.defenses.books import Books, Journal
from bbox.defenses.label_mapping import LabelMapping
from bbox.oracle import Oracle
from tests.defenses.blackvip.boxes import Meter, images, labels_of, leaning

LOGITS = 4 * torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
SHARES = LOGITS.softmax(1)


def _rounded(decimals: int) -> Tensor:
    return (SHARES * 10**decimals).round() / 10**decimals


def _top(k: int) -> Tensor:
    least = SHARES.topk(k, dim=1).values[:, -1:]
    return SHARES.masked_fill(least > SHARES, 0)


KINDS = [
    (LOGITS, AnswerKind("logits")),
    (LOGITS.abs(), AnswerKind("logits")),
    (LOGITS.log_softmax(1), AnswerKind("logits")),
    (SHARES, AnswerKind("probabilities")),
    (_rounded(4), AnswerKind("probabilities")),
    (_rounded(3), AnswerKind("probabilities", decimals=3)),
    (_rounded(2), AnswerKind("probabilities", decimals=2)),
    (_rounded(1), AnswerKind("probabilities", decimals=1)),
    (_top(5), AnswerKind("probabilities", top=5)),
    (_top(1), AnswerKind("probabilities", top=1)),
]


@pytest.mark.parametrize(
    ("scores", "kind"), KINDS, ids=lambda value: str(value) if isinstance(value, AnswerKind) else ""
)
def test_the_kind_is_told(scores: Tensor, kind: AnswerKind) -> None:
    found = AnswerKind.of(scores)
    assert (found.name, found.decimals) == (kind.name, kind.decimals)
    if kind.top:
        assert found.top == kind.top


def test_labels_are_a_kind() -> None:
    assert AnswerKind.of(None) == AnswerKind("labels")
    assert str(AnswerKind.of(None)) == "labels"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (AnswerKind("logits"), "logits"),
        (AnswerKind("probabilities", decimals=2), "probabilities, 2 decimals"),
        (AnswerKind("probabilities", decimals=3, top=5), "probabilities, 3 decimals, top 5"),
    ],
)
def test_a_kind_is_written_in_words(kind: AnswerKind, text: str) -> None:
    assert str(kind) == text


@pytest.mark.parametrize("scores", [scores for scores, _ in KINDS] + [torch.eye(10)], ids=str)
def test_every_loss_is_finite_and_the_right_class_has_the_smallest(scores: Tensor) -> None:
    objective = Objective(Books(Oracle(Meter()), {}), AnswerKind.of(scores))
    losses = torch.stack([objective.loss(scores, torch.full((len(scores),), label)) for label in range(10)], 1)
    assert bool(losses.isfinite().all()) and losses.dtype == torch.float64
    assert torch.equal(losses.gather(1, scores.argmax(1)[:, None])[:, 0], losses.amin(1))


def test_logits_and_probabilities_have_their_cross_entropy() -> None:
    labels = torch.arange(50) % 10
    expected = F.cross_entropy(LOGITS.double(), labels, reduction="none")
    books = Books(Oracle(Meter()), {})
    torch.testing.assert_close(Objective(books, AnswerKind.of(LOGITS)).loss(LOGITS, labels), expected)
    likely = SHARES.gather(1, labels[:, None])[:, 0] > 1e-5  # above the floor of a probability
    found = Objective(books, AnswerKind.of(SHARES)).loss(SHARES, labels)
    torch.testing.assert_close(found[likely], expected[likely], atol=1e-4, rtol=1e-4)


def test_a_rounded_zero_is_half_of_the_last_decimal() -> None:
    scores = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.35, 0.65, 0.0], [0.5, 0.25, 0.25]])
    kind = AnswerKind.of(scores)
    assert kind.decimals == 2
    logs = AnswerKind("probabilities", decimals=2).logs(scores)
    torch.testing.assert_close(logs[:3, 2].exp(), torch.full((3,), 0.005).double())
    torch.testing.assert_close(logs[3].exp(), scores[3].double())


def test_top_k_answers_spread_what_is_missing() -> None:
    scores = torch.tensor([[0.7, 0.2, 0.0, 0.0, 0.0], [0.0, 0.5, 0.4, 0.0, 0.0]])
    logs = AnswerKind("probabilities", top=2).logs(scores)
    expected = torch.tensor([[0.7, 0.2, 0.1 / 3, 0.1 / 3, 0.1 / 3], [0.1 / 3, 0.5, 0.4, 0.1 / 3, 0.1 / 3]])
    torch.testing.assert_close(logs.exp().float(), expected)


@given(seed=st.integers(0, 10**6), decimals=st.integers(1, 6), top=st.integers(1, 6), sharp=st.floats(0.1, 200))
def test_whatever_an_api_makes_of_probabilities_the_loss_is_finite(
    seed: int, decimals: int, top: int, sharp: float
) -> None:
    shares = (sharp * torch.randn(12, 6, generator=torch.Generator().manual_seed(seed))).softmax(1)
    shares = shares.masked_fill(shares < shares.topk(top, dim=1).values[:, -1:], 0)
    shares = (shares * 10**decimals).round() / 10**decimals
    kind = AnswerKind.of(shares)
    assert kind.name == "probabilities"
    losses = Objective(Books(Oracle(Meter()), {}), kind).loss(shares, torch.arange(12) % 6)
    assert bool(losses.isfinite().all()) and bool((losses >= 0).all())


def test_a_class_that_is_masked_out_is_unlikely_and_not_infinitely_so() -> None:
    masked = LOGITS.masked_fill(LOGITS.topk(3, dim=1).values[:, -1:] > LOGITS, -torch.inf)
    assert AnswerKind.of(masked) == AnswerKind("logits")
    objective = Objective(Books(Oracle(Meter()), {}), AnswerKind("logits"))
    labels = torch.arange(50) % 10
    losses = objective.loss(masked, labels)
    named = masked.gather(1, labels[:, None])[:, 0].isfinite()
    assert bool(losses.isfinite().all()) and float(losses[~named].min()) > 10 > float(losses[named].max())
    expected = F.cross_entropy(masked.double(), labels, reduction="none")
    torch.testing.assert_close(losses[named], expected[named], atol=1e-6, rtol=1e-6)


def test_labels_cost_one_where_they_are_wrong_and_nothing_is_known_of_unusable_ones() -> None:
    objective = Objective(Books(Oracle(Meter()), {}), AnswerKind("labels"))
    found = objective.loss(torch.tensor([2, 1, -1, -2]), torch.tensor([2, 0, 0, 0]))
    assert found[:2].tolist() == [0.0, 1.0]
    assert bool(found[2:].isnan().all())


def test_a_mapping_goes_before_the_loss() -> None:
    mapping = LabelMapping((7, 3, 0), 10)
    labels = torch.arange(50) % 3
    expected = F.cross_entropy(LOGITS.double()[:, [7, 3, 0]], labels, reduction="none")
    objective = Objective(Books(Oracle(Meter()), {}), AnswerKind("logits"), mapping)
    torch.testing.assert_close(objective.loss(LOGITS, labels), expected)
    assert torch.equal(objective.labels(LOGITS), LOGITS[:, [7, 3, 0]].argmax(1))
    of_labels = Objective(Books(Oracle(Meter()), {}), AnswerKind("labels"), mapping)
    answered = torch.tensor([7, 3, 0, 5])
    assert of_labels.loss(answered, torch.tensor([0, 1, 0, 2])).tolist() == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("mapping", [None, LabelMapping((2, 0), 4)])
def test_answers_as_the_books_give_them_can_be_read_again(mapping: LabelMapping | None) -> None:
    """Books keep float32, whatever was answered."""
    rows, labels = images(8)
    target = Meter(labels_of(leaning), access="labels")
    objective = Objective(Books(Oracle(target), {}), AnswerKind("labels"), mapping)
    raw = objective.answers(rows, "fit")
    assert raw.shape == (8,)
    expected = target(rows) if mapping is None else mapping(target(rows))
    assert torch.equal(objective.labels(raw), expected)
    assert objective.loss(raw, labels).tolist() == [float(a != b) for a, b in zip(expected, labels, strict=True)]


def test_an_answer_that_is_none_has_no_loss() -> None:
    rows, labels = images(6)

    def holes(rows: Tensor) -> Tensor:
        scores = leaning(rows)
        scores[1] = torch.nan
        scores[3, 2] = torch.nan
        scores[4] = torch.inf
        return scores

    objective = Objective(Books(Oracle(Meter(holes)), {}))
    losses = objective.losses(rows, labels, "fit")
    assert losses.isnan().tolist() == [False, True, False, True, True, False]
    assert objective.labels(objective.answers(rows, "fit"))[[1, 3, 4]].tolist() == [-1, -1, -1]
    assert objective.books.oracle.books["fit"].invalid == 6


def test_losses_are_those_of_the_rows_and_the_journal_keeps_one_number_a_row(tmp_path: Path) -> None:
    rows, labels = images(10)
    expected = F.cross_entropy(leaning(rows), labels, reduction="none")
    with Journal(tmp_path / "a.sqlite") as journal:
        objective = Objective(Books(Oracle(Meter(), max_batch=4), {}, journal))
        torch.testing.assert_close(objective.losses(rows, labels, "fit"), expected)
        shapes = journal._base.execute("SELECT shape FROM answers").fetchall()
    assert shapes == [("4",), ("4",), ("2",)]
