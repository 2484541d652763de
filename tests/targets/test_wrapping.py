"""wrap: which class for which object."""

import pytest
from torch import nn

import bbox.targets
from bbox.errors import UsageError
from bbox.targets import CallableTarget, TorchTarget, load, wrap


def test_module():
    target = wrap(nn.Flatten(), mean=(0.5,), num_classes=2, device="cpu")
    assert isinstance(target, TorchTarget) and target.name == "Flatten" and target.num_classes == 2


def test_callable():
    target = wrap(lambda rows: rows.flatten(1), name="mine")
    assert isinstance(target, CallableTarget) and target.name == "mine"
    assert wrap(len).name == "len"


def test_target_passes_through():
    target = wrap(nn.Flatten(), device="cpu")
    assert wrap(target) is target
    with pytest.raises(UsageError, match=r"Flatten is a target already and takes no 'name'"):
        wrap(target, name="x")


@pytest.mark.parametrize(
    ("obj", "kwargs", "message"),
    [
        (3, {}, "int is no target: expected a torch module"),
        (None, {}, "NoneType is no target"),
        ("zoo:digits", {}, "got the text 'zoo:digits'; a spec is loaded by bbox.targets.load"),
        (nn.Flatten, {}, "got the class Flatten; make an instance"),
        (nn.Flatten(), {"meen": 1}, "wrapping Flatten takes no 'meen'; did you mean 'mean'"),
        (len, {"mean": 1}, "wrapping len takes no 'mean'"),
    ],
)
def test_refuses(obj, kwargs, message):
    with pytest.raises(UsageError, match=message):
        wrap(obj, **kwargs)


def test_public_names():
    for name in bbox.targets.__all__:
        assert getattr(bbox.targets, name) is not None
    assert bbox.targets.load is load
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'"):
        bbox.targets.nothing  # noqa: B018
