"""torch:package.module:factory, from a user's current directory."""

import pytest
import torch
from torch import nn

from bbox.errors import BboxError, InputError, UsageError
from bbox.targets import TorchTarget, load

SOURCE = """
from torch import nn
calls = []
def make(classes=3, bias: bool = True, size=None):
    calls.append((classes, bias, size))
    return nn.Linear(4, classes, bias=bias)
def anything(**options):
    calls.append(options)
    return nn.Flatten()
def needs(path):
    return nn.Flatten()
def fails():
    raise FileNotFoundError("weights\\nare gone")
def leaves():
    raise SystemExit(3)
def returns_text():
    return "model"
class Net(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale
    def forward(self, rows):
        return rows.flatten(1) * self.scale
class Holder:
    inner = nn.Flatten()
ready = nn.Flatten()
number = 3
"""


@pytest.fixture
def name(user_module):
    return user_module(SOURCE)


def test_factory_in_the_current_directory(name):
    target = load(f"torch:{name}:make", device="cpu")
    assert isinstance(target, TorchTarget) and target.name == f"torch:{name}:make"
    assert target(torch.zeros(2, 1, 4, 4)[:, 0, 0]).shape == (2, 3)


def test_options_go_to_the_factory_as_python_values(name):
    load(f"torch:{name}:make", options={"classes": "7", "bias": "false"}, device="cpu")
    load(f"torch:{name}:anything", options={"a": "0.5", "b": "[1, 2]", "c": "text", "d": 3}, device="cpu")
    import sys

    assert sys.modules[name].calls == [(7, False, None), {"a": 0.5, "b": [1, 2], "c": "text", "d": 3}]


def test_preprocessing_options_describe_the_target(name):
    options = {"mean": "imagenet", "std": "0.5", "size": "6x4", "num_classes": "72", "input_shape": "3,8,8"}
    target = load(f"torch:{name}:anything", options=options, device="cpu")
    assert target.mean == (0.485, 0.456, 0.406) and target.std == (0.5,) and target.size == (6, 4)
    assert target.num_classes == 72 and target.input_shape == (3, 8, 8)
    assert target(torch.zeros(1, 3, 8, 8)).shape == (1, 72)


def test_a_parameter_that_the_factory_names_is_the_factorys(name):
    target = load(f"torch:{name}:make", options={"size": "9"}, device="cpu")
    assert target.size is None


def test_class_and_instance_and_attribute(name):
    target = load(f"torch:{name}:Net", options={"scale": "2"}, device="cpu")
    assert torch.equal(target(torch.ones(1, 1, 1, 2)), torch.full((1, 2), 2.0))
    for reference in ("ready", "Holder.inner"):
        assert load(f"torch:{name}:{reference}", options={"num_classes": 2}, device="cpu").num_classes == 2


def test_a_package_installed_works():
    assert isinstance(load("torch:torch.nn:Flatten", device="cpu").module, nn.Flatten)


@pytest.mark.parametrize(
    ("reference", "options", "error", "message"),
    [
        (
            "make",
            {"clases": "3"},
            UsageError,
            "unexpected keyword argument 'clases'; its options are: classes",
        ),
        ("needs", {}, UsageError, "missing a required argument: 'path'; its options are: path"),
        ("ready", {"classes": "3"}, UsageError, "has no option 'classes'.* it takes mean"),
        ("mke", {}, UsageError, "has no 'mke'; did you mean 'make'"),
        ("fails", {}, InputError, "the factory failed with FileNotFoundError: weights are gone"),
        ("leaves", {}, InputError, "the factory failed with SystemExit: 3"),
        ("returns_text", {}, InputError, "returned str, expected a torch module"),
        ("number", {}, InputError, "is a int, expected a torch module"),
        ("anything", {"size": "big"}, UsageError, "size is 'big', expected an integer"),
        ("anything", {"mean": "0.1,x"}, UsageError, "mean is '0.1,x', expected numbers"),
        ("anything", {"num_classes": "1.5"}, UsageError, "num_classes is '1.5', expected an integer"),
        ("anything", {"num_classes": True}, UsageError, "num_classes is True, expected an integer"),
    ],
)
def test_refuses(name, reference, options, error, message):
    with pytest.raises(error, match=message) as caught:
        load(f"torch:{name}:{reference}", options=options, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torch:no_such_module_here:make", "no module 'no_such_module_here' in"),
        ("torch:torch.no_such_part:make", "no module 'torch.no_such_part' in"),
        ("torch:module", "is not of the form torch:package.module:name"),
        ("torch:a:b:c", "is not of the form"),
        ("torch::make", "is not of the form"),
        ("torch:..a:b", "is not of the form"),
        ("torch:models/net.py:make", "names a file; write torch:models.net:make"),
        ("torch:", "ends after its kind; expected torch:PACKAGE.MODULE:FACTORY"),
    ],
)
def test_refuses_references(spec, message):
    with pytest.raises(UsageError, match=message):
        load(spec)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import bbox_dependency_that_is_gone", "failed with ModuleNotFoundError: No module named 'bbox_dep"),
        ("def (", "failed with SyntaxError"),
        ("raise SystemExit('no')", "failed with SystemExit: no"),
        ("1 / 0", "failed with ZeroDivisionError"),
    ],
)
def test_user_code_that_fails_on_import_is_refused(user_module, source, message):
    name = user_module(source)
    with pytest.raises(InputError, match=f"importing {name} {message}"):
        load(f"torch:{name}:make")


def test_errors_of_bbox_in_a_factory_pass_through(user_module):
    name = user_module("from bbox.errors import TargetError\ndef make(): raise TargetError('busy')")
    with pytest.raises(BboxError, match=r"^busy$"):
        load(f"torch:{name}:make")
