"""The baselines beside a prompt: the regression against sklearn's, its odd inputs, and what it makes of real digits."""

import numpy as np
import pytest
import sklearn.linear_model
import torch
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from torch import Tensor

from bbox.data import load
from bbox.defenses.blackvip.adapters import LocalClassifier, LogisticRegression, OutputAdapter
from bbox.defenses.blackvip.encoders import make_encoder
from bbox.errors import InputError, UsageError
from bbox.oracle import Answers, Oracle
from bbox.targets import load as load_target


def _blobs(count: int, dim: int, classes: int, *, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    noise = torch.randn(count, dim, generator=generator) * spread
    return (centres[labels] + noise) * torch.logspace(-2, 2, dim) + 7, labels


def _fitted(inputs: Tensor, labels: Tensor, classes: int, **options) -> LogisticRegression:
    regression = LogisticRegression(**options)
    regression.fit(inputs, labels, classes)
    return regression


def _standardised(inputs: Tensor, like: Tensor) -> np.ndarray:
    return ((inputs.double() - like.double().mean(0)) / like.double().std(0, correction=0)).numpy()


@pytest.mark.parametrize("strength", [0.1, 10.0])
@pytest.mark.parametrize(("count", "dim", "classes"), [(120, 6, 4), (40, 90, 3), (60, 5, 2)])
def test_it_is_sklearns_regression(count, dim, classes, strength) -> None:
    """Few rows of many features included, where the fit goes by a basis of the rows; and two classes."""
    inputs, labels = _blobs(count, dim, classes, spread=1.5)
    others, _ = _blobs(50, dim, classes, seed=1, spread=1.5)
    found = _fitted(inputs, labels, classes, strengths=(strength,)).scores(others)
    # sklearn fits two classes by one weight vector; w for one and -w for the other have half the penalty together.
    c = 1 / strength * (2 if classes == 2 else 1)
    model = sklearn.linear_model.LogisticRegression(C=c, tol=1e-9, max_iter=5000)
    model.fit(_standardised(inputs, inputs), labels.numpy())
    expected = torch.from_numpy(model.predict_log_proba(_standardised(others, inputs))).float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_cross_validation_chooses_as_sklearns_does() -> None:
    """On the same folds: the first row of each class to fold 0 and so on, through the rows sorted by class."""
    inputs, labels = _blobs(80, 6, 4, spread=2.0)
    fold = np.empty(80, int)
    fold[np.argsort(labels.numpy(), kind="stable")] = np.arange(80) % 5
    strengths = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
    found = _fitted(inputs, labels, 4, strengths=strengths)
    model = sklearn.linear_model.LogisticRegression(tol=1e-7, max_iter=5000)
    search = GridSearchCV(model, {"C": [1 / s for s in strengths]}, cv=PredefinedSplit(fold), scoring="neg_log_loss")
    search.fit(_standardised(inputs, inputs), labels.numpy())
    assert found.strength == pytest.approx(1 / search.best_params_["C"])
    assert 0.1 < found.strength < 100, "the middle, so that the test can tell"
    assert found.loss == pytest.approx(-search.best_score_, rel=1e-3)
    assert 0.25 < found.accuracy <= 1


def test_scores_are_log_probabilities_and_the_same_every_time() -> None:
    inputs, labels = _blobs(60, 5, 3)
    first, second = (_fitted(inputs, labels, 3).scores(inputs) for _ in range(2))
    assert torch.equal(first, second) and first.dtype == torch.float32
    torch.testing.assert_close(first.exp().sum(1), torch.ones(60))
    assert float((first.argmax(1) == labels).float().mean()) > 0.8


def test_a_class_without_rows_gets_a_small_share() -> None:
    inputs, labels = _blobs(60, 5, 3)
    some = labels != 1
    found = _fitted(inputs[some], labels[some], 5).scores(inputs)
    torch.testing.assert_close(found[:, [1, 3, 4]].exp(), torch.full((60, 3), 1 / 45))
    torch.testing.assert_close(found.exp().sum(1), torch.ones(60))
    assert (found.argmax(1)[some] == labels[some]).float().mean() > 0.8


def test_a_class_with_one_row_and_one_class_alone_can_be_fitted() -> None:
    inputs, labels = _blobs(61, 5, 3)
    rare = torch.cat([(labels != 1).nonzero().flatten(), (labels == 1).nonzero()[0]])
    found = _fitted(inputs[rare], labels[rare], 3)
    assert found.scores(inputs).isfinite().all() and np.isfinite(found.loss)
    alone = _fitted(inputs[:4], torch.full((4,), 2), 3).scores(inputs)
    torch.testing.assert_close(alone.exp(), torch.tensor([1 / 7, 1 / 7, 5 / 7]).expand(61, 3))
    assert _fitted(inputs[:2], labels[:2], 3).scores(inputs).isfinite().all()


def test_constant_features_and_features_that_are_not_finite_say_nothing() -> None:
    inputs, labels = _blobs(60, 5, 3)
    expected = _fitted(inputs, labels, 3).scores(inputs)
    rounding = 100 + 1e-5 * (torch.arange(60) % 2)  # one bit of float32
    assert len(rounding.unique()) == 2
    useless = torch.stack([rounding, *torch.tensor([[0.1], [torch.nan], [-torch.inf]]).expand(3, 60)], 1)
    padded = torch.cat([inputs, useless], 1)
    torch.testing.assert_close(_fitted(padded, labels, 3).scores(padded), expected, rtol=1e-4, atol=1e-4)
    holes = inputs.clone()
    holes[0] = torch.nan
    regression = _fitted(inputs, labels, 3)
    torch.testing.assert_close(
        regression.scores(holes)[0], regression.scores(inputs.mean(0)[None])[0], atol=1e-4, rtol=0
    )


def test_what_cannot_be_fitted_is_refused() -> None:
    inputs, labels = _blobs(6, 5, 3)
    with pytest.raises(UsageError, match="at least 2 labelled rows, got 1"):
        _fitted(inputs[:1], labels[:1], 3)
    with pytest.raises(InputError, match="label 2 is not one of 2 classes"):
        _fitted(inputs, labels, 2)
    with pytest.raises(InputError, match="label -1"):
        _fitted(inputs, labels - 1, 3)
    with pytest.raises(ValueError, match="not fitted"):
        LogisticRegression().scores(inputs)


def _adapter(answers: Answers, labels: Tensor, classes: int) -> OutputAdapter:
    adapter = OutputAdapter()
    adapter.fit(answers, labels, classes)
    return adapter


def test_probabilities_are_read_as_logarithms_and_logits_as_they_are() -> None:
    inputs, labels = _blobs(60, 5, 3)
    logits = (inputs - 7) / torch.logspace(-2, 2, 5)
    as_is = _adapter(Answers(logits.argmax(1), logits), labels, 3)
    torch.testing.assert_close(
        as_is.scores(Answers(logits.argmax(1), logits)), _fitted(logits, labels, 3).scores(logits)
    )
    shares = logits.softmax(1)
    found = _adapter(Answers(shares.argmax(1), shares), labels, 3).scores(Answers(shares.argmax(1), shares))
    expected = _fitted(logits.log_softmax(1), labels, 3).scores(logits.log_softmax(1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_rounded_zero_is_half_of_the_last_decimal() -> None:
    shares = torch.tensor([[0.96, 0.04, 0.0], [0.04, 0.95, 0.01]] * 4)
    labels = torch.tensor([0, 1] * 4)
    adapter = _adapter(Answers(shares.argmax(1), shares), labels, 2)
    rows = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.005, 0.0], [1.0, 0.01, 0.0]])
    scores = adapter.scores(Answers(torch.zeros(3, dtype=torch.int64), rows))
    assert torch.equal(scores[0], scores[1]) and scores.isfinite().all()
    assert scores[2, 1] > scores[1, 1]


def test_labels_alone_are_one_hot() -> None:
    """Source class 7 is mostly class 1, 3 is class 0; a label never seen says nothing."""
    answers = Answers(torch.tensor([7, 7, 7, 3, 3, 3, 3, 7]), None)
    labels = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0])
    scores = _adapter(answers, labels, 2).scores(Answers(torch.tensor([7, 3, 900, -1]), None))
    assert scores[:2].argmax(1).tolist() == [1, 0]
    assert scores.isfinite().all() and torch.equal(scores[2], scores[3])


def test_images_without_a_usable_answer_are_left_out() -> None:
    inputs, labels = _blobs(60, 5, 3)
    logits = (inputs - 7) / torch.logspace(-2, 2, 5)
    kept = torch.arange(60) >= 5
    broken = torch.where(kept[:, None], logits, torch.nan)
    answers = Answers(logits.argmax(1).masked_fill(~kept, -1), broken)
    expected = _adapter(Answers(logits.argmax(1)[kept], logits[kept]), labels[kept], 3)
    found = _adapter(answers, labels, 3).scores(answers)
    assert torch.equal(found[kept], expected.scores(Answers(logits.argmax(1), logits))[kept])
    assert found.isfinite().all()
    with pytest.raises(UsageError, match="got 0"):
        _adapter(Answers(torch.full((60,), -2), torch.full((60, 5), torch.nan)), labels, 3)


@pytest.mark.parametrize("zero", [0.0, 1.0])
def test_answers_that_are_all_alike_break_nothing(zero) -> None:
    answers = Answers(torch.zeros(6, dtype=torch.int64), torch.full((6, 3), zero))
    scores = _adapter(answers, torch.tensor([0, 0, 0, 0, 1, 1]), 2).scores(answers)
    torch.testing.assert_close(scores.exp(), torch.tensor([4 / 6, 2 / 6]).expand(6, 2), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("target", "data", "size", "adapted", "local"),
    [
        ("zoo:ccexam-mnist", "zoo:uci-digits", None, 0.70, 0.85),  # zero-shot 45%
        ("zoo:ccexam-usps", "zoo:mnist-5k", 16, 0.84, 0.72),  # zero-shot 65%
    ],
)
def test_on_real_digits_both_beat_zero_shot_with_16_shots(target, data, size, adapted, local) -> None:
    train, test = load(data, size=size).few_shot(16, 0)
    test = test.select(limit=500, seed=0)
    oracle = Oracle(load_target(target, device="cpu"))
    adapter, classifier = OutputAdapter(), LocalClassifier(make_encoder("pca:32", train.inputs, device="cpu"))
    adapter.fit(oracle.ask(train.inputs, "fit"), train.labels, 10)
    assert oracle.books["fit"].queries == 160
    classifier.fit(train.inputs, train.labels, 10)
    answers = oracle.ask(test.inputs, "verify")
    accuracy = {
        "zero-shot": answers.labels,
        "adapter": adapter.scores(answers).argmax(1),
        "local": classifier.scores(test.inputs).argmax(1),
    }
    found = {name: float((labels == test.labels).double().mean()) for name, labels in accuracy.items()}
    assert found["adapter"] > max(adapted, found["zero-shot"] + 0.15)
    assert found["local"] > local
    assert abs(adapter.regression.accuracy - found["adapter"]) < 0.1, "cross-validation tells beforehand"
