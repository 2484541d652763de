"""sklearn:PATH on classifiers that scikit-learn has fitted and skops or joblib has saved."""

import importlib
import sys
import zipfile

import joblib
import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from skops import io

import bbox
from bbox.errors import InputError, UsageError
from bbox.targets import load


@pytest.fixture(scope="module")
def digits():
    return bbox.data.load("zoo:digits").select(limit=120)


@pytest.fixture(scope="module")
def table(digits):
    return digits.inputs.flatten(1).numpy(), digits.labels.numpy()


def saved(folder, model, name="model.skops"):
    io.dump(model, folder / name)
    return str(folder / name)


def halves(table):
    """Two classes, by name."""
    rows, labels = table
    return rows, np.where(labels < 5, "low", "high")


def test_probabilities_of_a_pipeline(tmp_path, digits, table):
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(*table)
    target = load(saved(tmp_path, model))
    assert (target.access, target.num_classes, target.class_names, target.in_process) == ("scores", 10, None, True)
    expected = torch.from_numpy(model.predict_proba(table[0])).float()
    assert torch.allclose(target(digits.inputs), expected, atol=1e-5)
    assert target.fingerprint() == load(f"sklearn:{tmp_path}/model.skops").fingerprint()
    other = saved(tmp_path, make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(*table), "other.skops")
    assert load(other).fingerprint() != target.fingerprint()


def test_a_decision_function_of_two_classes_is_two_columns(tmp_path, digits, table):
    rows, names = halves(table)
    model = RidgeClassifier().fit(rows, names)
    target = load(saved(tmp_path, model))
    scores = target(digits.inputs)
    assert scores.shape == (len(rows), 2) and target.class_names == ("high", "low")
    assert [target.class_names[place] for place in scores.argmax(1)] == model.predict(rows).tolist()
    many = load(saved(tmp_path, LinearSVC().fit(*table)))
    assert many(digits.inputs).shape == (len(rows), 10)


def test_labels_are_places_among_the_classes(tmp_path, digits, table):
    rows, names = halves(table)
    model = LinearSVC().fit(rows, names)
    target = load(saved(tmp_path, model), options={"access": "labels"})
    answer = target(digits.inputs)
    assert target.access == "labels" and answer.dtype == torch.int64
    assert [target.class_names[place] for place in answer] == model.predict(rows).tolist()


def test_predict_alone_gives_labels(tmp_path, digits, table):
    from sklearn.linear_model import Perceptron
    from sklearn.multiclass import OutputCodeClassifier

    rows, labels = table
    model = OutputCodeClassifier(Perceptron(), code_size=2, random_state=0).fit(rows, labels + 3)
    target = load(saved(tmp_path, model), trust=False)
    assert target.access == "labels" and target.class_names == tuple(str(digit) for digit in range(3, 13))
    assert (target(digits.inputs).numpy() + 3).tolist() == model.predict(rows).tolist()
    with pytest.raises(UsageError, match="access=scores, and the model answers labels"):
        load(saved(tmp_path, model), options={"access": "scores"})


def test_range_and_layout(tmp_path):
    rows = torch.rand(30, 3, 2, 2)
    labels = np.arange(30) % 3
    bytes_last = (255 * rows).permute(0, 2, 3, 1).flatten(1).numpy()
    model = KNeighborsClassifier(1, algorithm="brute").fit(bytes_last, labels)
    target = load(saved(tmp_path, model), options={"range": "0-255", "layout": "hwc", "input_shape": "3,2,2"})
    assert target.input_shape == (3, 2, 2)
    assert target(rows).argmax(1).tolist() == labels.tolist()
    assert load(saved(tmp_path, model))(rows).argmax(1).tolist() != labels.tolist()


def test_a_model_fitted_on_a_table_with_names_says_nothing(tmp_path, digits, table):
    model = LogisticRegression(max_iter=50, tol=0.1).fit(*table)
    model.feature_names_in_ = np.array([f"pixel {place}" for place in range(784)], dtype=object)
    path = tmp_path / "named.joblib"
    joblib.dump(model, path)
    with pytest.warns(UserWarning, match="--trust: .* is unpickled, which runs any code"):
        target = load(str(path), trust=True)
    assert target(digits.inputs).shape == (120, 10)


def test_it_is_attacked_like_any_other(tmp_path, digits, table):
    path = saved(tmp_path, RandomForestClassifier(5, random_state=0).fit(*table))
    target = load(path, options={"trusted": "sklearn.tree._tree.Tree"})  # which newer versions of skops do not trust
    result = bbox.attack(target, digits.inputs[:2], digits.labels[:2], "cgba", budget=30)
    assert result.queries.tolist() == [30, 30]


def test_types_that_can_run_code_are_named_and_refused(tmp_path, table):
    model = make_pipeline(FunctionTransformer(np.sqrt), LogisticRegression(max_iter=50, tol=0.1)).fit(*table)
    model.steps[0][1].kw_args = {"spy": Spy()}
    path = saved(tmp_path, model)
    with pytest.raises(
        InputError, match=r"holds types that skops does not know to be safe: .*Spy.*; pass trusted=.*Spy.* or --trust"
    ):
        load(path)
    load(path, options={"trusted": ",".join(io.get_untrusted_types(file=path))})
    with pytest.warns(UserWarning, match=r"--trust: .* can run code: .*Spy"):
        load(path, trust=True)


class Spy:
    """A type of the user's that skops knows nothing of."""


def test_a_type_of_a_module_that_is_not_here(tmp_path, table, user_module, monkeypatch):
    name = user_module("from sklearn.linear_model import LogisticRegression\nclass Mine(LogisticRegression): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = saved(tmp_path, importlib.import_module(name).Mine(max_iter=50, tol=0.1).fit(*table))
    monkeypatch.undo()
    del sys.modules[name]
    with pytest.raises(InputError, match=rf"needs what is not installed \(.*'{name}'\); is it on PYTHONPATH\?"):
        load(path, options={"trusted": f"{name}.Mine"})


def test_pickles_need_trust(tmp_path, table):
    model = LogisticRegression(max_iter=50, tol=0.1).fit(*table)
    for name in ("model.joblib", "model.pkl"):
        joblib.dump(model, tmp_path / name)
        with pytest.raises(
            InputError, match=f"{name} is a pickle, which runs any code .*skops.io.dump, or pass --trust"
        ):
            load(str(tmp_path / name))


def test_refuses(tmp_path, digits, table):
    whole = saved(tmp_path, LogisticRegression(max_iter=50, tol=0.1).fit(*table))
    cut = tmp_path / "cut.skops"
    cut.write_bytes((tmp_path / "model.skops").read_bytes()[:200])
    (tmp_path / "text.skops").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip.skops", "w") as archive:
        archive.writestr("x", "y")
    unfitted = saved(tmp_path, LogisticRegression(), "unfitted.skops")
    regressor = saved(tmp_path, LinearRegression().fit(*table), "regressor.skops")
    plain = saved(tmp_path, {"a": 1}, "plain.skops")
    both = saved(
        tmp_path, KNeighborsClassifier(1, algorithm="brute").fit(table[0], np.stack([table[1]] * 2, 1)), "both.skops"
    )
    for path, options, error, message in (
        (tmp_path / "gone.skops", {}, InputError, "no such file"),
        (cut, {}, InputError, "is not a readable skops file"),
        (tmp_path / "text.skops", {}, InputError, "is not a readable skops file"),
        (tmp_path / "zip.skops", {}, InputError, "is not a readable skops file"),
        (unfitted, {}, InputError, "is a LogisticRegression, and no fitted classifier"),
        (regressor, {}, InputError, "is a LinearRegression, which predicts numbers, not classes"),
        (plain, {}, InputError, "is a dict, and no fitted classifier"),
        (both, {}, InputError, "is a KNeighborsClassifier of 2 outputs, expected a classifier of one"),
        (whole, {"input_shape": "3,28,28"}, InputError, "takes 784 numbers a row, and input_shape=3x28x28 has others"),
        (whole, {"output": "1"}, UsageError, "has no option 'output'"),
        (whole, {"range": "0-2"}, UsageError, "range=0-2, expected 0-1 or 0-255"),
    ):
        with pytest.raises(error, match=message) as caught:
            load(str(path), options=options)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        InputError, match=r"takes 784 numbers a row, and the images have 64 \(channels x height x width"
    ):
        bbox.Oracle(load(whole)).ask(torch.zeros(2, 1, 8, 8), "probe")


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "bbox.targets.sklearn_model", raising=False)
    monkeypatch.setitem(sys.modules, "skops", None)
    with pytest.raises(UsageError, match=r"needs a package: pip install 'bbox-toolkit\[sklearn\]'"):
        load("model.skops")
