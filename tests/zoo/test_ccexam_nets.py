"""The three networks of ccexam: what they get right, what they take, and that bbox feeds them as their package does."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bbox import targets
from bbox.data import load
from bbox.errors import UsageError
from bbox.zoo import TARGETS
from bbox.zoo.ccexam_nets import load_ccexam_mnist, load_ccexam_svhn, load_ccexam_usps

pytest.importorskip("ccexam")
SIZE = {"mnist": 28, "usps": 16, "svhn": 32}
LOADERS = {"mnist": load_ccexam_mnist, "usps": load_ccexam_usps, "svhn": load_ccexam_svhn}
CORRECT = {"mnist": 787, "usps": 1321, "svhn": 1296}


@pytest.mark.parametrize("name", SIZE)
def test_accuracy_on_other_digits_is_what_the_table_says(name):
    target = targets.load(f"zoo:ccexam-{name}", device="cpu")
    data = load("zoo:uci-digits", size=SIZE[name])
    rows = data.inputs.expand(-1, target.input_shape[0], -1, -1)
    correct = int((target(rows).argmax(1) == data.labels).sum())
    # Rounding may move a digit or two on another machine.
    assert abs(correct - CORRECT[name]) <= 2
    assert f"{CORRECT[name] / 1797:.1%} of zoo:uci-digits" in TARGETS[f"ccexam-{name}"].accuracy


@pytest.mark.parametrize(("name", "correct"), [("mnist", 499), ("usps", 323), ("svhn", 345)])
def test_accuracy_on_mnist(name, correct):
    """On every tenth of the 5000; the whole set is what the table says, and takes a while."""
    target = targets.load(f"zoo:ccexam-{name}", device="cpu")
    data = load("zoo:mnist-5k", size=SIZE[name]).take(range(0, 5000, 10))
    rows = data.inputs.expand(-1, target.input_shape[0], -1, -1)
    assert abs(int((target(rows).argmax(1) == data.labels).sum()) - correct) <= 2


@pytest.mark.parametrize("name", SIZE)
def test_the_same_logits_as_the_package_gives(name):
    inference = pytest.importorskip("ccexam.inference").InferenceFactory.create(name, device="cpu")
    side, channels = SIZE[name], TARGETS[f"ccexam-{name}"].input_shape[0]
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, channels), dtype=np.uint8)
    row = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    picture = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    with torch.no_grad():
        theirs = inference.model(inference.transform(picture)[None])
        torch.testing.assert_close(LOADERS[name]()(row), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SIZE)
def test_a_network_is_frozen_and_leaves_the_random_state(name):
    before = torch.get_rng_state()
    model = LOADERS[name]()
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    rows = torch.zeros(2, *TARGETS[f"ccexam-{name}"].input_shape)
    assert model(rows).shape == (2, TARGETS[f"ccexam-{name}"].num_classes)


def test_weights_are_read_without_unpickling_code(monkeypatch):
    seen, real = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: seen.append(kwargs) or real(*args, **kwargs))
    load_ccexam_usps()
    assert [call["weights_only"] for call in seen] == [True]


@pytest.mark.parametrize("name", SIZE)
def test_a_missing_package_is_one_line(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "ccexam.models", None)
    monkeypatch.setitem(sys.modules, "ccexam", None)
    with pytest.raises(UsageError, match=rf"^zoo:ccexam-{name} needs .* pip install 'bbox-toolkit\[demo\]'$"):
        LOADERS[name]()
