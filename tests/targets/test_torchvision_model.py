"""torchvision:NAME with real resnet18 weights on disk, and files that do not fit."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from bbox.errors import InputError, UsageError
from bbox.targets import load

SPEC = "torchvision:resnet18"


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(3)
    return torchvision.models.resnet18(num_classes=10).eval()


@pytest.fixture(scope="module")
def folder(resnet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    state = resnet.state_dict()
    save_file(state, folder / "good.safetensors")
    torch.save(state, folder / "good.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, folder / "nested.pt")
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, folder / "old.pth")
    torch.save(resnet, folder / "module.pth")
    torch.save([1, 2], folder / "list.pth")
    torch.save({"a": torch.zeros(2)}, folder / "other.pth")
    save_file({**state, "extra.weight": torch.zeros(1)}, folder / "extra.safetensors")
    torch.save({k: v for k, v in state.items() if k != "conv1.weight"}, folder / "missing.pth")
    torch.save({**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, folder / "shape.pth")
    (folder / "junk.safetensors").write_bytes(b"junk")
    (folder / "junk.pth").write_bytes(b"junk")
    return folder


@pytest.mark.parametrize("file", ["good.safetensors", "good.pth", "nested.pt", "old.pth"])
def test_weights_from_disk(resnet, folder, file):
    target = load(SPEC, options={"weights": str(folder / file), "num_classes": "10"}, device="cpu")
    rows = torch.rand(2, 3, 64, 64)
    assert torch.allclose(target(rows), resnet(rows).detach(), atol=1e-5)
    assert target.name == SPEC and target.num_classes == 10


def test_preprocessing(resnet, folder):
    options = {
        "weights": str(folder / "good.safetensors"),
        "num_classes": 10,
        "mean": "imagenet",
        "std": "imagenet",
    }
    rows = torch.rand(2, 3, 64, 64)
    normalised = torchvision.transforms.functional.normalize(rows, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert torch.allclose(load(SPEC, options=options, device="cpu")(rows), resnet(normalised).detach(), atol=1e-4)


def test_random_weights_are_those_of_the_seed_and_touch_no_global_state():
    state = torch.get_rng_state()
    prints = [
        load(SPEC, options={"weights": "random", "num_classes": 4, "seed": seed}, device="cpu").fingerprint()
        for seed in (0, 0, 1)
    ]
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_googlenet_is_quiet():
    assert load("torchvision:googlenet", options={"weights": "random"}, device="cpu").num_classes == 1000


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone.pth", "gone.pth: no such file"),
        ("junk.safetensors", "not a readable .safetensors or state-dict file"),
        ("junk.pth", "not a readable .safetensors or state-dict file"),
        ("module.pth", "not a readable .safetensors or state-dict file"),
        ("list.pth", "holds no tensors by name"),
        (
            "other.pth",
            "does not fit torchvision:resnet18: 102 missing, for example .*; 1 unknown, for example 'a'",
        ),
        ("extra.safetensors", "1 unknown, for example 'extra.weight'"),
        ("missing.pth", "1 missing, for example 'conv1.weight'"),
        ("shape.pth", r"conv1.weight has shape \(64, 1, 7, 7\), expected \(64, 3, 7, 7\)$"),
    ],
)
def test_refuses_weights(folder, file, message):
    with pytest.raises(InputError, match=message) as caught:
        load(SPEC, options={"weights": str(folder / file), "num_classes": 10})
    assert "\n" not in str(caught.value)


def test_wrong_number_of_classes_says_which(folder):
    with pytest.raises(InputError, match=r"fc.* expected \(1000.*pass num_classes=10"):
        load(SPEC, options={"weights": str(folder / "good.pth")})


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (SPEC, {}, r"needs weights=PATH, a local file \(nothing is downloaded\), or weights=random"),
        ("torchvision:resnet8", {}, "has no classifier 'resnet8'; did you mean 'resnet"),
        ("torchvision:fasterrcnn_resnet50_fpn", {"weights": "random"}, "has no classifier"),
        (SPEC, {"wieghts": "x"}, "has no option 'wieghts'; did you mean 'weights'"),
        (SPEC, {"weights": "random", "num_classes": "0"}, "num_classes is '0'"),
        (SPEC, {"weights": "random", "seed": "-1"}, "seed is '-1'"),
    ],
)
def test_refuses_usage(spec, options, message):
    with pytest.raises(UsageError, match=message):
        load(spec, options=options)
