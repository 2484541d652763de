"""hf:PATH of image classifiers: tiny random ones on disk, against transformers' own processors and pipeline."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
    pipeline,
)

import bbox
from bbox.errors import InputError, UsageError
from bbox.targets import load
from tests.tiny_clip import save_clip, save_model

NAMES = {0: "cat", 1: "dog", 2: "ship", 3: "frog"}
SIDE = 30


def vit(folder, seed=0, **config):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    made = ViTConfig(**sizes, image_size=SIDE, patch_size=5, **{"id2label": NAMES, **config})
    size = {"height": SIDE, "width": SIDE}
    return save(folder, ViTForImageClassification, made, ViTImageProcessor(size=size, resample=3), seed)


def resnet(folder, seed=0):
    made = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", id2label=NAMES)
    processor = ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.875, resample=2)
    return save(folder, ResNetForImageClassification, made, processor, seed)


def save(folder, model, config, processor, seed):
    save_model(model, config, folder, seed)
    processor.save_pretrained(folder)
    return str(folder)


SAVE = {"vit": vit, "resnet": resnet}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("hf")
    return {kind: make(place / kind) for kind, make in SAVE.items()}


@pytest.fixture(scope="module")
def pictures():
    """Smooth colour pictures of 8 bits, (height, width, 3)."""
    across, down = np.meshgrid(np.linspace(0, 1, 52), np.linspace(0, 1, 44))
    shades = [(across * down, across, 1 - down), (down, 1 - across, across * across), (1 - across, down * down, down)]
    return [Image.fromarray((255 * np.stack(shade, 2)).round().astype(np.uint8)) for shade in shades]


def rows_of(pictures):
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255 for picture in pictures])


@pytest.mark.parametrize("kind", SAVE)
def test_scores_are_the_logits_of_transformers(folders, pictures, kind):
    target = load(f"hf:{folders[kind]}", device="cpu")
    assert (target.num_classes, target.access, target.takes) == (4, "scores", "images")
    assert target.class_names == ("cat", "dog", "ship", "frog") and target.name == f"hf:{folders[kind]}"
    model = AutoModelForImageClassification.from_pretrained(folders[kind]).eval()
    processor = AutoImageProcessor.from_pretrained(folders[kind])
    with torch.no_grad():
        expected = model(**processor(images=pictures, return_tensors="pt")).logits
    scores = target(rows_of(pictures))
    assert expected.std(0).min() > 0.02  # pictures differ, or nothing is tested
    assert torch.allclose(scores, expected, atol=0.05 * float(expected.std(0).max()))  # it rounds to 8 bits in between
    exact = load(f"hf:{folders[kind]}", device="cpu")
    with torch.no_grad():
        assert torch.allclose(scores, model(pixel_values=exact.module.pixels(rows_of(pictures))).logits, atol=1e-5)


@pytest.mark.parametrize("kind", SAVE)
def test_labels_are_those_of_the_pipeline(folders, pictures, kind):
    target = load(f"hf:{folders[kind]}", device="cpu")
    scores = target(rows_of(pictures))
    classify = pipeline("image-classification", model=folders[kind], device="cpu", top_k=4)
    for row, answer in zip(scores.softmax(1), classify(pictures), strict=True):
        theirs = {one["label"]: one["score"] for one in answer}
        assert torch.allclose(row, torch.tensor([theirs[name] for name in target.class_names]), atol=0.02)


def test_names_that_nobody_gave_are_no_names(tmp_path):
    target = load(f"hf:{vit(tmp_path / 'plain', id2label=None, num_labels=5)}", device="cpu")
    assert target.num_classes == 5 and target.class_names is None


def test_the_fingerprint_covers_weights_and_preprocessing(folders, tmp_path):
    prints = {load(f"hf:{folders['vit']}", device="cpu").fingerprint() for _ in range(2)}
    assert len(prints) == 1
    prints.add(load(f"hf:{vit(tmp_path / 'other', seed=1)}", device="cpu").fingerprint())
    folder = Path(vit(tmp_path / "changed"))
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.4, 0.5, 0.5]}))
    prints.add(load(f"hf:{folder}", device="cpu").fingerprint())
    assert len(prints) == 3


def test_it_is_attacked_like_any_other(folders):
    rows = torch.rand(2, 3, SIDE, SIDE)
    target = load(f"hf:{folders['resnet']}", device="cpu")
    result = bbox.attack(target, rows, target(rows).argmax(1), budget=20)
    assert 0 < result.queries.max() <= 20


def test_refuses(folders, tmp_path):
    bare = Path(vit(tmp_path / "bare"))
    (bare / "preprocessor_config.json").unlink()
    tower = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTModel(ViTConfig(**tower, image_size=16, patch_size=8)).save_pretrained(tmp_path / "tower")
    headless = Path(vit(tmp_path / "headless"))
    config = headless / "config.json"
    ViTModel(ViTConfig(**json.loads(config.read_text()))).save_pretrained(tmp_path / "weights")
    (headless / "model.safetensors").write_bytes((tmp_path / "weights" / "model.safetensors").read_bytes())
    padded = Path(vit(tmp_path / "padded"))
    processor = padded / "preprocessor_config.json"
    padding = {"do_pad": True, "pad_size": {"height": 32, "width": 32}}
    processor.write_text(json.dumps(json.loads(processor.read_text()) | padding))
    (tmp_path / "empty").mkdir()
    for folder, options, error, message in (
        (tmp_path / "gone", {}, UsageError, "no such folder; expected a folder of save_pretrained, or a hub id"),
        (tmp_path / "empty", {}, InputError, "AutoConfig cannot read that folder"),
        (bare, {}, InputError, "AutoImageProcessor cannot read that folder"),
        (
            tmp_path / "tower",
            {},
            InputError,
            "is ViTModel, expected a model whose class ends in ForImage",
        ),
        (save_clip(tmp_path / "clip"), {}, InputError, "is CLIPModel, expected a model whose class ends in"),
        (headless, {}, InputError, "lacks .* weights of the model, for example .*; it is a model that was not trained"),
        (padded, {}, InputError, "its image processor pads images, which is not known here"),
        (folders["vit"], {"size": 3}, UsageError, "has no option 'size'; it takes no options"),
    ):
        with pytest.raises(error, match=message) as caught:
            load(f"hf:{folder}", options=options)
        assert "\n" not in str(caught.value)
