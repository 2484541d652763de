"""The Open Inference Protocol against MLServer, which nobody here wrote; one process serves two models."""

import json
import os
import sys
from pathlib import Path

import joblib
import pytest
import torch
from processes import free_port, serving
from sklearn.linear_model import LogisticRegression

import bbox
from bbox.errors import TargetError, UsageError
from bbox.oracle import Oracle
from bbox.targets import load

RUNTIME = """
import torch
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput
from mlserver.codecs import NumpyCodec
import bbox.targets

class Digits(MLModel):
    async def load(self):
        torch.set_num_threads(1)
        self.target = bbox.targets.load("zoo:digits", device="cpu")
        return True

    async def predict(self, payload):
        rows = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0]).astype("float32").copy())
        output = NumpyCodec.encode_output("scores", self.target(rows).numpy())
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


@pytest.fixture(scope="module")
def digits():
    return bbox.data.load("zoo:digits").select(limit=40)


@pytest.fixture(scope="module")
def classifier(digits):
    return LogisticRegression(max_iter=50).fit(digits.inputs.flatten(1).numpy(), digits.labels.numpy())


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory, classifier):
    folder = tmp_path_factory.mktemp("mlserver")
    ports = [free_port() for _ in range(3)]
    settings = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **settings}))
    for name, more in {
        "tabular": {"implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./model.joblib"}},
        "pictures": {
            "implementation": "digits_runtime.Digits",
            "parameters": {"version": "v1"},
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
        },
    }.items():
        (folder / name).mkdir()
        (folder / name / "model-settings.json").write_text(json.dumps({"name": name, **more}))
    joblib.dump(classifier, folder / "tabular" / "model.joblib")
    (folder / "pictures" / "digits_runtime.py").write_text(RUNTIME)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder / "pictures")}
    command = [str(Path(sys.executable).parent / "mlserver"), "start", "."]
    root = f"http://127.0.0.1:{ports[0]}"
    with serving(command, folder, environment, root):
        yield root


@pytest.fixture
def target(mlserver, remote):
    return lambda path, **options: remote(f"{mlserver}/v2/models/{path}", **options)


@pytest.mark.parametrize("path", ["pictures", "pictures/versions/v1", "pictures/infer"])
def test_the_embedded_model_scores_as_it_does_in_process(target, digits, path):
    served = target(path, batch=7)
    assert (served.input_shape, served.num_classes, served.access) == ((1, 28, 28), 10, "scores")
    assert served.binary is False  # MLServer 1.7 does not say that it knows the extension, and does not
    oracle = Oracle(served, max_batch=32)
    answers = oracle.ask(digits.inputs)
    expected = load("zoo:digits", device="cpu")(digits.inputs)
    assert torch.allclose(answers.scores, expected, atol=1e-5)
    book = oracle.books["attack"]
    assert (book.queries, book.requests, book.billed, book.retried) == (40, 7, 40, 0)


def test_scores_of_the_scikit_learn_runtime(target, digits, classifier):
    served = target("tabular", input="predict", output="predict_proba", layout="flat", input_shape=(1, 28, 28))
    expected = torch.from_numpy(classifier.predict_proba(digits.inputs.flatten(1).numpy())).float()
    assert torch.allclose(served(digits.inputs), expected, atol=1e-5)
    assert served.access == "scores" and served.input_shape == (1, 28, 28)


def test_labels_of_the_scikit_learn_runtime(target, digits, classifier):
    served = target("tabular", input="predict", output="predict", layout="flat", num_classes="10", access="labels")
    assert served.access == "labels"
    labels = served(digits.inputs)
    assert labels.dtype == torch.int64
    assert labels.tolist() == classifier.predict(digits.inputs.flatten(1).numpy()).tolist()


def test_access_is_told_by_the_first_answer(target, digits):
    served = target("tabular", input="predict", output="predict", layout="flat")
    Oracle(served).ask(digits.inputs[:2])
    assert served.access == "labels"


def test_an_attack_runs_over_http(target, digits):
    served = target("pictures")
    result = bbox.attack(served, digits.inputs[:2], digits.labels[:2], "cgba", budget=60)
    local = bbox.attack("zoo:digits", digits.inputs[:2], digits.labels[:2], "cgba", budget=60)
    assert torch.equal(result.queries, local.queries)
    assert torch.allclose(result.distance, local.distance, rtol=1e-3)


def test_what_the_server_does_not_name_is_asked_of_the_user(target):
    with pytest.raises(UsageError, match="does not name the model's input; give input=NAME"):
        target("tabular")
    with pytest.raises(UsageError, match="has no input 'imag'; did you mean 'image'"):
        target("pictures", input="imag")


def test_no_such_model(target):
    with pytest.raises(TargetError, match=r"answered 404 .*missing.*not found"):
        target("missing")


def test_fingerprints(target):
    assert target("pictures").fingerprint() == target("pictures", batch=3).fingerprint()
    assert target("pictures").fingerprint() != target("pictures", range="0-255").fingerprint()
