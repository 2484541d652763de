"""wrap and code: for whatever classifies source text."""

import joblib
import numpy as np
import pytest
import torch
from code_models import CODES, PAIRS, SINGLES
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from bbox.errors import InputError, TargetError, UsageError
from bbox.targets import load
from bbox.targets.code import CodeCallable, wrap


def lengths(codes):
    share = np.array([len(code) for code in codes]) / 1000
    return np.stack([1 - share, share], 1)


EXPECTED = torch.from_numpy(lengths(CODES)).float()


class ModelWrapper:
    """As TextAttack's wrappers are called."""

    def __call__(self, text_input_list, **kwargs):
        return torch.from_numpy(lengths(text_input_list))


class Victim:
    """As OpenAttack's classifiers are asked."""

    def get_prob(self, input_):
        return lengths(input_)

    def get_pred(self, input_):
        raise AssertionError("get_prob is there")


class LabelVictim:
    def get_pred(self, input_):
        return lengths(input_).argmax(1)


@pytest.mark.parametrize("obj", [lengths, lambda codes: lengths(codes).tolist(), ModelWrapper(), Victim()])
def test_scores(obj):
    target = wrap(obj, classes=("short", "long"))
    torch.testing.assert_close(target(SINGLES), EXPECTED)
    assert target.access == "scores" and target.takes == "code" and target.class_names == ("short", "long")
    assert target.num_classes == 2


@pytest.mark.parametrize(
    ("obj", "classes"),
    [
        (LabelVictim(), None),
        (lambda codes: [int(x) for x in lengths(codes).argmax(1)], None),
        (lambda codes: [len(code) > 500 for code in codes], None),
        (lambda codes: ["long" if len(code) > 500 else "short" for code in codes], ["short", "long"]),
    ],
)
def test_labels(obj, classes):
    target = wrap(obj, classes=classes)
    answer = target(SINGLES)
    assert target.access == "labels" and answer.dtype == torch.int64
    assert answer.tolist() == EXPECTED.argmax(1).tolist()


def test_pairs():
    asked = []
    target = wrap(lambda pairs: asked.extend(pairs) or [0] * len(pairs), pairs=True)
    target(PAIRS)
    assert asked == [(row.code, row.partner) for row in PAIRS]
    with pytest.raises(InputError, match="data hold single ones"):
        target(SINGLES)
    with pytest.raises(InputError, match="reads single programs, and the data hold pairs; give it pairs=true"):
        wrap(lengths)(PAIRS)
    with pytest.raises(InputError, match="reads java, and the data hold python"):
        wrap(lengths, language="java")(SINGLES)


def pipeline(last, labels):
    return make_pipeline(TfidfVectorizer(token_pattern=r"\w+"), last).fit(CODES, labels)


def test_pipeline():
    labels = ["b" if i % 2 else "a" for i in range(len(CODES))]
    fitted = pipeline(LogisticRegression(), labels)
    target = wrap(fitted)
    torch.testing.assert_close(target(SINGLES), torch.from_numpy(fitted.predict_proba(CODES)).float())
    assert target.class_names == ("a", "b")
    plain = wrap(pipeline(LinearSVC(), [7 if i % 2 else 3 for i in range(len(CODES))]))
    assert plain.access == "labels" and plain.class_names == ("3", "7")
    assert plain(SINGLES).tolist() == [(value == 7) * 1 for value in plain.obj.predict(CODES)]
    other = pipeline(LogisticRegression(C=2), labels)
    assert wrap(fitted).fingerprint() == wrap(fitted).fingerprint() != wrap(other).fingerprint()
    with pytest.raises(UsageError, match="3 classes are named, and it was fitted on 2"):
        wrap(fitted, classes="abc")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda codes: np.zeros(len(codes)), r"answered \(12,\) torch.float64 for 12 programs; expected"),
        (lambda codes: np.zeros((len(codes), 1)), r"answered \(12, 1\)"),
        (lambda codes: np.zeros((2, 2)), r"answered \(2, 2\)"),
        (lambda codes: None, "answered NoneType"),
        (lambda codes: ["x"] * len(codes), "answered the label 'x', which is no class"),
    ],
)
def test_bad_answers(function, message):
    with pytest.raises(TargetError, match=message):
        wrap(function)(SINGLES)


def test_access_stays():
    answers = iter([np.zeros((12, 2)), np.zeros(12, dtype=int)])
    target = wrap(lambda codes: next(answers))
    target(SINGLES)
    with pytest.raises(TargetError, match="answered labels, expected scores"):
        target(SINGLES)


@pytest.mark.parametrize(
    ("obj", "kwargs", "message"),
    [
        (3, {}, "int classifies no code: expected a callable"),
        (ModelWrapper, {}, "got the class ModelWrapper; make an instance"),
        ("code:x:y", {}, "a spec is loaded by bbox.targets.load"),
        (lengths, {"access": "logits"}, "access=logits, expected scores or labels"),
        (lengths, {"classes": "ab", "num_classes": 3}, "num_classes=3, and 2 classes are named"),
    ],
)
def test_refuses(obj, kwargs, message):
    with pytest.raises(UsageError, match=message):
        wrap(obj, **kwargs)


def test_target_passes_through():
    target = wrap(lengths)
    assert wrap(target) is target and isinstance(target, CodeCallable)


SOURCE = """
class Victim:
    def __init__(self, limit=500):
        self.limit = limit
    def get_pred(self, codes):
        return [int(len(code) > self.limit) for code in codes]

def classify(codes):
    return [int(len(code) > 500) for code in codes]

def make(path, classes=2):
    return Victim(int(path))

def default():
    return Victim()

ready = Victim()
"""


@pytest.mark.parametrize(
    ("name", "options", "limit"),
    [
        ("classify", {}, 500),
        ("ready", {}, 500),
        ("default", {}, 500),
        ("Victim", {}, 500),
        ("Victim", {"limit": "200"}, 200),
        ("make", {"path": "300"}, 300),
    ],
)
def test_spec(user_module, name, options, limit):
    spec = f"code:{user_module(SOURCE)}:{name}"
    target = load(spec, options=options)
    assert target.name == spec
    assert target(SINGLES).tolist() == [int(len(code) > limit) for code in CODES]


def test_spec_describes(user_module):
    spec = f"code:{user_module(SOURCE)}:classify"
    target = load(spec, options={"classes": "short, long", "access": "labels", "language": "python"})
    assert target.class_names == ("short", "long") and target.known and target.language == "python"
    with pytest.raises(UsageError, match="has no option 'clases'; did you mean 'classes'"):
        load(spec, options={"clases": "a,b"})


def test_pickled_pipeline(tmp_path):
    fitted = pipeline(LogisticRegression(), [i % 2 for i in range(len(CODES))])
    path = tmp_path / "model.joblib"
    joblib.dump(fitted, path)
    with pytest.raises(InputError, match=r"model.joblib is a pickle.*pass --trust"):
        load(f"code:{path}")
    with pytest.warns(UserWarning, match="is unpickled, which runs any code"):
        target = load(f"code:{path}", trust=True)
    torch.testing.assert_close(target(SINGLES), torch.from_numpy(fitted.predict_proba(CODES)).float())
    with pytest.raises(InputError, match=r"gone.pkl: no such file"):
        load("code:gone.pkl", trust=True)
    (tmp_path / "broken.pkl").write_bytes(b"nothing")
    with pytest.warns(UserWarning), pytest.raises(InputError, match=r"broken.pkl does not load: UnpicklingError"):
        load(f"code:{tmp_path / 'broken.pkl'}", trust=True)
