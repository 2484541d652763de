"""The Open Inference Protocol and its binary extension against NVIDIA's Triton, from the package nvidia-pytriton.

Skipped without it. It wants numpy 1, of which the server itself has no need: ``pip install --no-deps nvidia-pytriton``.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from processes import free_port, serving

import bbox
from bbox.errors import TargetError, UsageError
from bbox.oracle import Oracle
from bbox.targets import load

FOUND = importlib.util.find_spec("pytriton")
SITE = Path(FOUND.submodule_search_locations[0]).parent if FOUND else Path()
STUB = SITE / f"pytriton/tritonserver/python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}"
SHARED = bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
pytestmark = [
    pytest.mark.skipif(FOUND is None or not STUB.is_dir(), reason="nvidia-pytriton is not installed"),
    pytest.mark.skipif(not SHARED, reason="Triton's Python backend needs a Python with a shared library"),
]
VERSION = "3"
MODEL = f"""
import site
for folder in {[entry for entry in sys.path if entry.endswith("site-packages")]}:
    site.addsitedir(folder)  # Triton leaves PYTHONPATH out

import torch
import triton_python_backend_utils as triton
from torch.utils.dlpack import from_dlpack  # Triton's arrays are of numpy 1

import bbox.targets

class TritonPythonModel:
    def initialize(self, args):
        torch.set_num_threads(1)
        self.target = bbox.targets.load("zoo:digits", device="cpu")

    def execute(self, requests):
        return [self.answer(triton.get_input_tensor_by_name(request, "image")) for request in requests]

    def answer(self, image):
        scores = self.target(from_dlpack(image.to_dlpack()))
        tensors = {{"scores": scores, "label": scores.argmax(1, keepdim=True)}}
        return triton.InferenceResponse([triton.Tensor.from_dlpack(*named) for named in tensors.items()])
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "image", data_type: TYPE_FP32, dims: [1, 28, 28] }]
output [{ name: "scores", data_type: TYPE_FP32, dims: [10] }, { name: "label", data_type: TYPE_INT64, dims: [1] }]
dynamic_batching { max_queue_delay_microseconds: 500 }
instance_group [{ kind: KIND_CPU }]
"""


@pytest.fixture(scope="module")
def digits():
    return bbox.data.load("zoo:digits").select(limit=40)


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    model = folder / "models/digits"
    (model / VERSION).mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / VERSION / "model.py").write_text(MODEL)
    shutil.copytree(SITE / "pytriton/tritonserver/backends/python", folder / "backends/python")
    shutil.copy(STUB / "triton_python_backend_stub", folder / "backends/python")
    port = free_port()
    options = {
        "model-repository": "models", "backend-directory": "backends", "http-address": "127.0.0.1",
        "http-port": port, "allow-grpc": "false", "allow-metrics": "false",
    }  # fmt: skip
    command = [str(SITE / "pytriton/tritonserver/bin/tritonserver"), *(f"--{key}={options[key]}" for key in options)]
    libraries = [sysconfig.get_config_var("LIBDIR"), str(SITE / "nvidia_pytriton.libs")]
    environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "OMP_NUM_THREADS": "1"}
    root = f"http://127.0.0.1:{port}"
    with serving(command, folder, environment, root):
        yield root


@pytest.fixture
def target(triton, remote):
    def make(path="digits", **options):
        return remote(f"{triton}/v2/models/{path}", **({"output": "scores", "batch": 8} | options))

    return make


@pytest.mark.parametrize("path", ["digits", f"digits/versions/{VERSION}"])
@pytest.mark.parametrize("binary", ["auto", "false"])
def test_scores_are_those_in_process(target, digits, path, binary):
    served = target(path, batch=7, binary=binary)
    assert (served.input_shape, served.num_classes, served.access) == ((1, 28, 28), 10, "scores")
    assert served.binary is (binary == "auto")  # Triton names the extension
    oracle = Oracle(served, max_batch=32)
    answers = oracle.ask(digits.inputs)
    assert torch.allclose(answers.scores, load("zoo:digits", device="cpu")(digits.inputs), atol=1e-5)
    book = oracle.books["attack"]
    assert (book.queries, book.requests, book.billed, book.retried) == (40, 7, 40, 0)


@pytest.mark.parametrize("binary", ["true", "false"])
def test_labels(target, digits, binary):
    served = target(output="label", binary=binary, num_classes="10")
    labels = Oracle(served).ask(digits.inputs).labels
    assert served.access == "labels"
    assert torch.equal(labels, load("zoo:digits", device="cpu")(digits.inputs).argmax(1))


@pytest.mark.parametrize("binary", ["true", "false"])
def test_an_attack_finds_what_it_finds_in_process(target, digits, binary):
    served = target(binary=binary)
    result = bbox.attack(served, digits.inputs[:4], digits.labels[:4], "cgba", budget=60)
    local = bbox.attack("zoo:digits", digits.inputs[:4], digits.labels[:4], "cgba", budget=60)
    assert torch.equal(result.queries, local.queries)
    assert torch.allclose(result.distance, local.distance, rtol=1e-3)


def test_its_largest_batch_is_kept(target, digits):
    oracle = Oracle(target(batch=64))
    oracle.ask(digits.inputs)
    assert (oracle.books["attack"].requests, oracle.books["attack"].billed) == (5, 40)


def test_what_it_refuses_is_one_line(target, digits):
    for path, says in (("digits/versions/1", "version 1 is not found"), ("digit", "unknown model: 'digit'")):
        with pytest.raises(TargetError, match=rf"answered 404 .*{says}"):
            target(path)
    with pytest.raises(UsageError, match="has the outputs scores, label; choose one with output=NAME"):
        target(output=None)
    with pytest.raises(TargetError, match=r"answered 400 .*unexpected shape for input 'image'") as caught:
        target()(digits.inputs[..., 1:])
    assert "\n" not in str(caught.value)


def test_what_it_says_of_itself_is_in_the_fingerprint(target):
    assert target().fingerprint() == target(batch=3).fingerprint()
    assert target().fingerprint() != target(output="label").fingerprint()
