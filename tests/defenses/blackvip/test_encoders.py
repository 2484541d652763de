"""Encoders against the definition: SVD, transformers' own outputs, torchvision without its classifier."""

import json
import sys
from types import ModuleType

import pytest
import torch
import torchvision
from torch import nn
from transformers import (
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)

from bbox.defenses.blackvip.encoders import make_encoder, module_encoder, restore
from bbox.errors import InputError, UsageError
from tests.tiny_clip import save_clip

_TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_SIZES = {"image_size": 32, "patch_size": 8}


def images(n=12, shape=(3, 8, 10), seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoders")
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    networks = {
        "vit": (ViTForImageClassification, ViTConfig(**_TOWER, **_SIZES)),
        "mae": (
            ViTMAEForPreTraining,
            ViTMAEConfig(
                **_TOWER, **_SIZES, decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2
            ),
        ),
        "resnet": (ResNetModel, resnet),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, (kind, config) in networks.items():
            kind(config).save_pretrained(place / name)
    for name in ("vit", "mae"):
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(place / name)
    ConvNextImageProcessor(size={"shortest_edge": 28}).save_pretrained(place / "resnet")
    save_clip(place / "clip")
    return place


@pytest.mark.parametrize("shape", [(12, 3, 8, 10), (40, 1, 4, 4)])
def test_pca_is_the_whitened_svd(shape):
    rows = images(shape[0], shape[1:])
    encoder = make_encoder("pca:5", rows, device="cpu")
    centred = rows.double().flatten(1) - rows.double().flatten(1).mean(0)
    left = torch.linalg.svd(centred, full_matrices=False)[0][:, :5] * (len(rows) - 1) ** 0.5
    features = encoder(rows)
    assert encoder.dim == 5 and features.dtype == torch.float32
    assert torch.allclose(features.abs(), left.abs().float(), atol=1e-4)
    assert torch.allclose(features.var(0), torch.ones(5), atol=1e-4)
    assert torch.allclose(features.mean(0), torch.zeros(5), atol=1e-5)
    largest = encoder.components.gather(1, encoder.components.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_pca_has_no_more_components_than_the_images_allow():
    rows = images()
    assert make_encoder("pca", rows, device="cpu").dim == 11
    assert make_encoder("pca", images(50), device="cpu").dim == 32
    flat = torch.rand(20, 2) @ torch.rand(2, 64)  # images on a plane
    assert make_encoder("pca", flat.reshape(20, 1, 8, 8), device="cpu").dim == 2
    doubled = make_encoder("pca", rows[[0, 0, 1, 1]], device="cpu")
    assert doubled.dim == 1 and torch.isfinite(doubled(rows)).all()
    with pytest.raises(UsageError, match="pca needs images that differ, got 3 without any variance"):
        make_encoder("pca", rows[[0, 0, 0]], device="cpu")
    with pytest.raises(InputError, match=r"of shape \(3, 8, 10\), got \(3, 8, 8\)"):
        make_encoder("pca", rows, device="cpu")(rows[..., :8])


@pytest.mark.parametrize("name", ["vit", "mae"])
def test_the_class_token_of_a_vit_from_transformers(folder, name):
    rows = images(70)
    encoder = make_encoder(f"hf:{folder / name}", rows, device="cpu")
    pixels = ViTImageProcessor.from_pretrained(folder / name)
    state = torch.get_rng_state()
    features = encoder(rows)
    assert torch.equal(torch.get_rng_state(), state)  # a ViT-MAE would draw its mask
    assert encoder.dim == 16 and torch.equal(encoder(rows), features)
    given = encoder.network.module.pixels(rows)
    assert given.shape[-2:] == (pixels.size["height"], pixels.size["width"])
    with torch.no_grad():
        if name == "vit":
            model = ViTModel.from_pretrained(folder / name, add_pooling_layer=False)
            hidden = model(given).last_hidden_state
        else:
            # Nothing masked, in whatever order: attention does not mind it.
            model = ViTMAEModel.from_pretrained(folder / name, mask_ratio=0.0)
            hidden = model(given).last_hidden_state
            assert hidden.shape[1] == 17
    assert torch.allclose(features, hidden[:, 0], atol=1e-5)
    assert features.std(0).min() > 0


def test_the_pooled_output_of_a_resnet_and_the_image_features_of_a_clip(folder):
    from transformers import CLIPModel

    rows = images(3)
    encoder = make_encoder(f"hf:{folder / 'resnet'}", rows, device="cpu")
    model = ResNetModel.from_pretrained(folder / "resnet").eval()
    with torch.no_grad():
        expected = model(encoder.network.module.pixels(rows)).pooler_output.flatten(1)
    assert encoder.dim == 16 and torch.allclose(encoder(rows), expected, atol=1e-5)
    encoder = make_encoder(f"hf:{folder / 'clip'}", rows, device="cpu")
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(folder / "clip").get_image_features(encoder.network.module.pixels(rows))
    assert encoder.dim == 12 and torch.allclose(encoder(rows), expected.pooler_output, atol=1e-5)


@pytest.mark.parametrize(("name", "dim"), [("resnet18", 512), ("squeezenet1_1", 512), ("mobilenet_v3_small", 1024)])
def test_torchvision_without_its_classifier(tmp_path, name, dim):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    rows = images(2, (3, 64, 64))
    spec = f"torchvision:{name},weights={tmp_path / 'weights.pth'},num_classes=7,mean=0.5,0.4,0.3,std=imagenet"
    encoder = make_encoder(spec, rows, device="cpu")
    assert encoder.dim == dim
    if name == "resnet18":
        model.fc = nn.Identity()
        mean = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
        with torch.no_grad():
            assert torch.allclose(encoder(rows), model((rows - mean) / std), atol=1e-5)


@pytest.fixture
def factory(monkeypatch):
    module = ModuleType("bbox_test_factory")

    def make(width=2):
        torch.manual_seed(0)
        return nn.Conv2d(3, width, 3)

    module.make = make
    monkeypatch.setitem(sys.modules, "bbox_test_factory", module)
    return module


def test_a_factory_and_a_module(factory):
    rows = images(130)
    encoder = make_encoder("torch:bbox_test_factory:make,width=4", rows, device="cpu")
    network = factory.make(4)
    expected = network(rows).flatten(1).detach()
    assert encoder.dim == expected.shape[1] == 4 * 6 * 8
    assert torch.allclose(encoder(rows), expected, atol=1e-6)
    for given in (network, lambda rows: network(rows).flatten(1)):
        made = module_encoder(given, rows, device="cpu")
        features = made(rows)
        assert torch.allclose(features, expected, atol=1e-6)
        assert not features.requires_grad


def test_kept_and_restored(folder, factory, tmp_path):
    rows = images()
    specs = ["pca:4", f"hf:{folder / 'vit'}", f"hf:{folder / 'mae'}", "torch:bbox_test_factory:make"]
    for spec in specs:
        encoder = make_encoder(spec, rows, device="cpu")
        structure, tensors = encoder.state()
        assert set(tensors) == ({"mean", "components"} if spec == "pca:4" else set())
        torch.rand(1)  # what a file lacks, transformers draws from the global generator
        again = restore(json.loads(json.dumps(structure)), tensors, device="cpu")
        assert again.dim == encoder.dim and torch.equal(again(rows), encoder(rows))


def test_another_network_is_refused(factory):
    rows = images()
    network = factory.make()
    structure, tensors = module_encoder(network, rows, device="cpu").state()
    with pytest.raises(UsageError, match="was a module of a library call, which a bundle does not keep"):
        restore(structure, tensors, device="cpu")
    assert torch.equal(
        restore(structure, tensors, device="cpu", given=network)(rows), network(rows).detach().flatten(1)
    )
    with torch.no_grad():
        network.bias[0] += 1e-3
    with pytest.raises(InputError, match="has other weights than it was fitted with"):
        restore(structure, tensors, device="cpu", given=network)
    with pytest.raises(InputError, match="encoder torch:bbox_test_factory:make,width=3 has other weights"):
        restore(structure, tensors, device="cpu", given="torch:bbox_test_factory:make,width=3")
    with pytest.raises(InputError, match="not complete: it lacks 'fingerprint'"):
        restore({"kind": "backbone", "spec": "x", "shape": [1, 2, 2]}, {})
    with pytest.raises(InputError, match="of kind 'svd' cannot be restored"):
        restore({"kind": "svd"}, {})


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("pac", UsageError, "unknown encoder 'pac'; expected pca, pca:32, hf:"),
        ("hf:", UsageError, "unknown encoder 'hf:'"),
        ("pca:x", UsageError, "'x' is no number of components; write pca:32"),
        ("pca:0", UsageError, "'0' is no number"),
        ("hf:gone/gone/gone", UsageError, "no such folder"),
        ("torchvision:resnet18", UsageError, "needs weights=PATH"),
        ("torchvision:resnet18,weights", UsageError, "'weights' is no option; write KEY=VALUE"),
        ("torch:bbox_no_module:make", UsageError, "no module 'bbox_no_module'"),
        ("torch:torch.nn:Flatten,start_dim=9", InputError, r"does not take images of shape \(3, 8, 10\)"),
    ],
)
def test_refuses(spec, error, message):
    with pytest.raises(error, match=message) as caught:
        make_encoder(spec, images(2), device="cpu")
    assert "\n" not in str(caught.value)


def test_features_must_be_finite():
    class Bad(nn.Module):
        def forward(self, rows):
            return rows.flatten(1) / 0

    with pytest.raises(InputError, match=r"encoder .*Bad answers features that are not finite"):
        module_encoder(Bad(), images(), device="cpu")
