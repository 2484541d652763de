"""How a spec is read, and the zoo."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bbox.zoo
from bbox.errors import InputError, UsageError
from bbox.targets import KINDS, load
from bbox.targets.kinds import split_spec


def make_net():
    return nn.Flatten()


@pytest.fixture
def zoo(monkeypatch):
    def entry(loader, needs=""):
        return SimpleNamespace(loader=loader, needs=needs, summary="", input_shape=(1, 2, 2), num_classes=4)

    table = {
        "digits": entry(f"{__name__}:make_net"),
        "net": entry("bbox_no_such_module:f", needs="bbox-toolkit[imagenet]"),
    }
    monkeypatch.setattr(bbox.zoo, "TARGETS", table)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("zoo:digits", ("zoo", "digits")),
        ("torch:a.b:c", ("torch", "a.b:c")),
        ("pt2:dir/model", ("pt2", "dir/model")),
        ("dir/model.pt2", ("pt2", "dir/model.pt2")),
        ("MODEL.PT2", ("pt2", "MODEL.PT2")),
        ("x.pt", ("pickle", "x.pt")),
        ("dir/x.pth", ("pickle", "dir/x.pth")),
        ("C:model.pt2", ("pt2", "C:model.pt2")),
        ("./zoo:digits.pt2", ("pt2", "./zoo:digits.pt2")),
    ],
)
def test_split(spec, expected):
    assert split_spec(spec) == expected


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            "zo:digits",
            UsageError,
            "unknown target kind 'zo' in 'zo:digits'; did you mean 'zoo'.*kinds are zoo:, torch:",
        ),
        (
            "tensorflow:x",
            UsageError,
            "unknown target kind 'tensorflow' in 'tensorflow:x'; kinds are",
        ),
        ("digits", UsageError, "target 'digits' has no kind; did you mean 'zoo:digits'"),
        ("digit", UsageError, "target 'digit' has no kind; did you mean 'zoo:digits'"),
        ("", UsageError, "target '' has no kind; kinds are zoo:"),
        ("zoo:", UsageError, "ends after its kind; expected zoo:NAME"),
        ("zoo:digit", UsageError, "unknown zoo target 'digit'; did you mean 'digits'"),
        ("zoo:net", UsageError, r"needs a package: pip install 'bbox-toolkit\[imagenet\]'"),
        ("a.safetensors", InputError, "holds weights only; use torchvision:NAME with weights=PATH"),
        ("a.onnx", InputError, "a.onnx: no such file"),
        ("a.py", InputError, "is Python source; use torch:"),
    ],
)
def test_refuses(zoo, spec, error, message):
    with pytest.raises(error, match=message) as caught:
        load(spec)
    assert "\n" not in str(caught.value)


def test_a_file_of_no_kind(zoo, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"model.bin: no target kind reads this"):
        load(str(tmp_path / "model.bin"))


def test_a_file_that_is_named_like_a_spec_is_ambiguous(zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo:digits").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"'zoo:digits' is ambiguous: a file has that very name; write ./zoo:digits"):
        load("zoo:digits")


def test_zoo(zoo):
    target = load("zoo:digits", device="cpu")
    assert (target.name, target.num_classes, target.input_shape) == ("zoo:digits", 4, (1, 2, 2))
    assert target(torch.zeros(3, 1, 2, 2)).shape == (3, 4)
    with pytest.raises(UsageError, match=r"zoo:digits has no option 'mean'; it takes no options"):
        load("zoo:digits", options={"mean": 1})


def test_every_kind_has_a_loader_and_a_summary():
    for name in KINDS.names():
        assert callable(KINDS.get(name)) and KINDS.entry(name).summary


def test_the_real_zoo():
    for name, entry in bbox.zoo.TARGETS.items():
        if name.startswith("python-"):  # models of code, trained on load: tests/zoo/test_python_projects.py
            continue
        target = load(f"zoo:{name}", device="cpu")
        free = (3, 24, 15, 1) if target.takes == "motion" else (3, 64, 64)
        rows = torch.rand(2, *(entry.input_shape or free))
        assert target(rows).shape == (2, entry.num_classes)
        assert target.fingerprint() == load(f"zoo:{name}", device="cpu").fingerprint()
