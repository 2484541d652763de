"""data specs: the zoo, foolbox's samples, paths, and what cannot be told."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch

import bbox.data
import bbox.zoo
from bbox.data import CodeSet, Dataset, MotionSet, load
from bbox.errors import InputError, UsageError


def made(name="zoo:made"):
    return Dataset(name, torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]), torch.arange(3), ("0", "1", "2"))


def made_in_size(size=4):
    return Dataset("zoo:sized", torch.rand(1, 1, size, size), None, torch.arange(1), ("0",))


def made_with(*, rho: float | None = None, folder: Path = Path(), split: Literal["a", "b"] = "a"):
    assert isinstance(folder, Path) and (rho is None or isinstance(rho, float))
    return Dataset("zoo:with", torch.rand(1, 1, 2, 2), None, torch.arange(1), (f"{rho} {folder} {split}",))


def wrong():
    return 3


@pytest.fixture
def zoo(monkeypatch):
    table = {
        name: SimpleNamespace(loader=f"bbox_test_zoo:{function.__name__}", needs="", summary="")
        for name, function in (("made", made), ("sized", made_in_size), ("with", made_with), ("wrong", wrong))
    }
    module = SimpleNamespace(made=made, made_in_size=made_in_size, made_with=made_with, wrong=wrong)
    monkeypatch.setitem(sys.modules, "bbox_test_zoo", module)
    monkeypatch.setattr(bbox.zoo, "DATA", table)


def test_zoo(zoo):
    assert load("zoo:made").inputs.shape == (3, 1, 8, 8)
    assert load("zoo:made", size=4).inputs.shape == (3, 1, 4, 4)
    assert load("zoo:sized", size=6).inputs.shape == (1, 1, 6, 6)


@pytest.mark.parametrize(
    ("spec", "id_of_first"),
    [
        ("zoo:with", "None . a"),
        ("zoo:with,rho=0.5", "0.5 . a"),
        ("zoo:with,rho=1, split=b", "1.0 . b"),
        ("zoo:with,folder=a,b/c=d,rho=2", "2.0 a,b/c=d a"),
    ],
)
def test_options(zoo, spec, id_of_first):
    data = load(spec)
    assert (data.ids[0], data.name) == (id_of_first, spec)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("zoo:with,rho=x", UsageError, "zoo:with: rho is 'x', expected a number"),
        ("zoo:with,split=c", UsageError, "zoo:with: split is 'c', expected a, b"),
        (
            "zoo:with,rhos=1",
            UsageError,
            "zoo:with has no option 'rhos'; did you mean 'rho'\\? it takes rho, folder, split",
        ),
        ("zoo:with,rho=1,rho=2", UsageError, "the option rho is given twice"),
        ("zoo:sized,size=3", UsageError, "zoo:sized has no option 'size'; it takes no options"),
        ("foolbox:mnist,split=test", UsageError, "foolbox:mnist has no option 'split'; it takes no options"),
        ("zoo:with,rho", UsageError, "unknown zoo data set 'with,rho'; did you mean 'with'"),
        ("zoo:mad", UsageError, "unknown zoo data set 'mad'; did you mean 'made'"),
        ("zoo:wrong", UsageError, "zoo:wrong loads a int"),
        ("zo:made", UsageError, "unknown kind of data 'zo' in 'zo:made'; did you mean 'zoo'"),
        ("http://x", UsageError, "unknown kind of data 'http'"),
        ("made", InputError, "made: no such file or folder; did you mean 'zoo:made'"),
        ("mdae", InputError, "mdae: no such file or folder; did you mean 'zoo:made'"),
        ("gone/folder", InputError, "gone/folder: no such file or folder; expected zoo:NAME"),
        ("gone.npz", InputError, r"gone.npz: no such file"),
        ("foolbox:cifar", UsageError, "foolbox ships no samples of 'cifar'; did you mean 'cifar10'"),
        ("foolbox:", UsageError, "it has mnist, fashionMNIST"),
    ],
)
def test_refuses(zoo, spec, error, message):
    with pytest.raises(error, match=message) as caught:
        load(spec)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a.mat: not a kind of data that is read; expected zoo:NAME"):
        load(str(tmp_path / "a.mat"))


@pytest.mark.parametrize("size", [0, -3, True])
def test_refuses_sizes(zoo, size):
    with pytest.raises(UsageError, match=f"image size is {size}"):
        load("zoo:made", size=size)


def test_labels_beside_a_set_that_has_them(zoo, tmp_path):
    with pytest.raises(UsageError, match="zoo:made has labels of its own"):
        load("zoo:made", labels=tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("name", "shape", "labels"),
    [
        ("mnist", (20, 1, 28, 28), [7, 2, 1, 0, 4]),
        ("fashionMNIST", (20, 1, 28, 28), None),
        ("cifar10", (20, 3, 32, 32), [3, 8, 8, 0, 6]),
        ("cifar100", (20, 3, 32, 32), [49, 33, 72, 51, 71]),
        ("imagenet", (20, 3, 224, 224), None),
    ],
)
def test_foolbox_samples_are_those_of_foolbox(name, shape, labels):
    import foolbox

    data = load(f"foolbox:{name}")
    assert data.inputs.shape == shape and data.name == f"foolbox:{name}"
    assert labels is None or data.labels[:5].tolist() == labels
    from torch import nn

    model = foolbox.PyTorchModel(nn.Flatten().eval(), bounds=(0, 1), device="cpu")
    images, truth = foolbox.samples(model, dataset=name, batchsize=20)
    assert torch.equal(data.labels, truth)
    # foolbox resizes imagenet with another filter (bicubic), so only the others agree to the bit.
    assert (data.inputs - images).abs().mean() < (0.02 if name == "imagenet" else 1e-7)


def test_foolbox_samples_in_another_size():
    assert load("foolbox:imagenet", size=64).inputs.shape == (20, 3, 64, 64)


def test_foolbox_is_not_imported():
    code = "import sys; from bbox.data import load; load('foolbox:mnist'); print('foolbox' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_foolbox_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("bbox.data.foolbox_samples.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="foolbox is not installed"):
        load("foolbox:mnist")


def test_foolbox_whose_samples_are_gone(monkeypatch, tmp_path):
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("bbox.data.foolbox_samples.find_spec", lambda name: spec)
    with pytest.raises(InputError, match="no sample files of mnist"):
        load("foolbox:mnist")


def test_the_real_zoo():
    for name, entry in bbox.zoo.DATA.items():
        data = load(f"zoo:{name}")
        assert data.name == f"zoo:{name}" and int(data.labels.max()) < entry.num_classes
        assert entry.input_shape is None or tuple(data.inputs.shape[1:]) == entry.input_shape
        if isinstance(data, CodeSet | MotionSet):
            with pytest.raises(UsageError, match=r"is (code|motion), which has no image size"):
                load(f"zoo:{name}", size=20)
        else:
            assert load(f"zoo:{name}", size=20).inputs.shape[2:] == (20, 20)


def test_public_names():
    for name in bbox.data.__all__:
        assert getattr(bbox.data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bbox.data.nothing  # noqa: B018
