"""foolbox models: bounds, preprocessing, wrappers and frameworks."""

import copy

import eagerpy as ep
import foolbox
import numpy as np
import pytest
import torch
from torch import nn

from bbox.errors import InputError, UsageError
from bbox.targets import FoolboxTarget, load, wrap

ROWS = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 5)).eval()


def model(module=None, bounds=(0, 1), **kwargs):
    return foolbox.PyTorchModel(module or nn.Flatten(), bounds=bounds, device="cpu", **kwargs)


@pytest.mark.parametrize("bounds", [(0, 1), (0, 255), (-1, 1), (-3, 5)])
def test_rows_are_mapped_to_the_bounds(bounds):
    answer = FoolboxTarget(model(nn.Flatten().eval(), bounds), name="test")(ROWS)
    low, high = bounds
    assert torch.allclose(answer, (ROWS * (high - low) + low).flatten(1), atol=1e-5)


def test_preprocessing_and_transformed_bounds_agree_with_foolbox():
    preprocessing = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "axis": -3}
    fmodel = model(network(), (0, 1), preprocessing=preprocessing)
    expected = fmodel(ROWS)
    assert torch.allclose(FoolboxTarget(fmodel, name="test")(ROWS), expected, atol=1e-6)
    for wrapped in (fmodel.transform_bounds((-2, 2)), fmodel.transform_bounds((0, 255), wrapper=True)):
        assert torch.allclose(FoolboxTarget(wrapped, name="test")(ROWS), expected, atol=1e-4)


def test_training_mode_is_overruled_and_put_back():
    module = network()
    fmodel = model(module)
    expected = fmodel(ROWS).clone()
    module.train()
    before = copy.deepcopy(module.state_dict())
    target = FoolboxTarget(foolbox.models.ThresholdingWrapper(fmodel, 0.5), name="test")
    assert torch.equal(target(ROWS), target(ROWS))
    assert torch.equal(FoolboxTarget(fmodel, name="test")(ROWS), expected)
    assert all(m.training for m in module.modules())
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_rows_and_answer_are_separate():
    rows = ROWS.clone()
    answer = FoolboxTarget(model(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()).eval(), (-1, 1)), name="t")(rows)
    answer.add_(1)
    assert torch.equal(rows, ROWS)


class NumpyModel(foolbox.Model):
    """A model of another framework, channels last."""

    bounds = foolbox.types.Bounds(0, 255)
    data_format = "channels_last"
    dummy = ep.astensor(np.zeros(0, dtype=np.float32))

    def __call__(self, inputs):
        x, restore = ep.astensor_(inputs)
        assert isinstance(x, ep.NumPyTensor) and x.shape[-1] == 3
        return restore(x.flatten(start=1))


def test_another_framework_gets_its_own_arrays():
    answer = FoolboxTarget(NumpyModel(), name="test")(ROWS)
    assert torch.allclose(answer, (ROWS * 255).movedim(1, -1).flatten(1))
    assert answer.dtype == torch.float32


def test_fingerprint():
    def printed(*args, **kwargs):
        return FoolboxTarget(model(*args, **kwargs), name="test").fingerprint()

    other = network()
    other[3].bias.data += 1
    prints = [
        printed(network()), printed(other), printed(network(), (0, 255)),
        printed(network(), preprocessing={"mean": 0.5, "std": 0.5}),
        FoolboxTarget(NumpyModel(), name="n").fingerprint(),
    ]  # fmt: skip
    assert len(set(prints)) == len(prints) and prints[0] == printed(network())


def test_bounds_that_are_no_interval():
    with pytest.raises(UsageError, match=r"bounds are \(1, 1\)"):
        FoolboxTarget(model(nn.Flatten().eval(), (1, 1)), name="test")


def test_wrap():
    target = wrap(model(network(), (0, 255)), num_classes=5)
    assert isinstance(target, FoolboxTarget) and target.name == "PyTorchModel" and target.num_classes == 5


SOURCE = """
import foolbox
from torch import nn
def make(high=1, device="cpu"):
    return foolbox.PyTorchModel(nn.Flatten().eval(), bounds=(0, high), device=device)
def fixed():
    return make()
ready = make()
def wrong(): return nn.Flatten()
number = 3
"""


def test_load(user_module):
    name = user_module(SOURCE)
    target = load(f"foolbox:{name}:make", options={"high": "255"}, device="cpu")
    assert target.name == f"foolbox:{name}:make"
    assert torch.allclose(target(ROWS), (ROWS * 255).flatten(1))
    assert torch.equal(load(f"foolbox:{name}:ready")(ROWS), ROWS.flatten(1))
    assert torch.equal(load(f"foolbox:{name}:fixed", device="cpu")(ROWS), ROWS.flatten(1))


@pytest.mark.parametrize(
    ("reference", "options", "error", "message"),
    [
        ("wrong", {}, InputError, "returned Flatten, expected a foolbox model"),
        ("number", {}, InputError, "is a int, expected a foolbox model"),
        ("make", {"hihg": "3"}, UsageError, "unexpected keyword argument 'hihg'"),
        ("ready", {"high": "3"}, UsageError, "has no option 'high'; it takes no options"),
        ("mak", {}, UsageError, "did you mean 'make'"),
    ],
)
def test_load_refuses(user_module, reference, options, error, message):
    name = user_module(SOURCE)
    with pytest.raises(error, match=message):
        load(f"foolbox:{name}:{reference}", options=options)
