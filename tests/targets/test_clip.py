"""clip:PATH with tiny random CLIP and SigLIP models on disk; transformers' own logits are the reference."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

import bbox
from bbox.errors import InputError, UsageError
from bbox.targets import load
from tests.tiny_clip import save_clip, save_siglip

NAMES = ["cat", "dog", "container ship"]
CLASSES = ",".join(NAMES)
SAVE = {"clip": save_clip, "siglip": save_siglip}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("clip")
    return {kind: save(place / kind) for kind, save in SAVE.items()}


def target_of(folder, **options):
    return load(f"clip:{folder}", options={"classes": CLASSES, **options}, device="cpu")


def tokens_of(folder, kind, texts):
    padding = {"padding": True} if kind == "clip" else {"padding": "max_length", "max_length": 40}
    return AutoTokenizer.from_pretrained(folder)(texts, truncation=True, return_tensors="pt", **padding)


@pytest.mark.parametrize("kind", SAVE)
def test_scores_are_the_logits_of_transformers(folders, kind):
    target = target_of(folders[kind])
    rows = torch.rand(5, 3, 50, 40)
    model = AutoModel.from_pretrained(folders[kind])
    texts = tokens_of(folders[kind], kind, [f"a photo of a {name}." for name in NAMES])
    with torch.no_grad():
        expected = model(pixel_values=target.module.pixels(rows), **texts).logits_per_image
    assert expected.std(0).min() > 1e-3  # images differ, or nothing is tested
    assert torch.allclose(target(rows), expected, atol=1e-5)
    assert (target.num_classes, target.access, target.input_shape) == (3, "scores", None)
    assert target.name == f"clip:{folders[kind]}"


def test_templates_are_averaged_after_normalisation(folders):
    templates = ["a photo of a {}.", "{}", "no {} and {}"]
    target = target_of(folders["clip"], template=" | ".join(templates))
    model = AutoModel.from_pretrained(folders["clip"])
    with torch.no_grad():
        each = [
            functional.normalize(
                model.get_text_features(
                    **tokens_of(folders["clip"], "clip", [template.replace("{}", name) for name in NAMES])
                ).pooler_output,
                dim=-1,
            )
            for template in templates
        ]
        rows = torch.rand(2, 3, 32, 32)
        images = model.get_image_features(target.module.pixels(rows)).pooler_output
        cosine = functional.cosine_similarity(images[:, None], torch.stack(each).mean(0)[None], dim=-1)
    assert torch.allclose(target(rows), model.logit_scale.exp() * cosine, atol=1e-4)


def test_the_fingerprint_covers_weights_texts_and_preprocessing(folders, tmp_path):
    same = [target_of(folders["clip"]).fingerprint() for _ in range(2)]
    assert same[0] == same[1]
    other = save_clip(tmp_path / "clip")
    processor = Path(other) / "preprocessor_config.json"
    content = json.loads(processor.read_text())
    prints = {same[0], target_of(other).fingerprint()}
    for change in ({"image_mean": [0.5, 0.4, 0.4]}, {"resample": 2}, {"size": {"shortest_edge": 36}}):
        processor.write_text(json.dumps(content | change))
        prints.add(target_of(other).fingerprint())
    assert len(prints) == 4  # the copy is the same, each change is another
    prints.add(target_of(folders["clip"], classes="cat,dog,hip").fingerprint())
    prints.add(target_of(folders["clip"], template="{}").fingerprint())
    prints.add(target_of(save_clip(tmp_path / "seed", seed=1)).fingerprint())
    assert len(prints) == 7


def test_gradients_reach_the_pixels(folders):
    target = target_of(folders["clip"])
    rows = torch.rand(2, 3, 40, 40, requires_grad=True)
    scores = target.with_gradient(rows)
    assert torch.allclose(scores.detach(), target(rows), atol=1e-5)
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), rows)
    step = 1e-2 * gradient / gradient.norm()
    gain = target.with_gradient(rows + step)[:, 0].sum() - target.with_gradient(rows - step)[:, 0].sum()
    assert gain.item() == pytest.approx(2 * (step * gradient).sum().item(), rel=0.05)
    assert not any(parameter.requires_grad for parameter in target.module.parameters())


def test_classes_from_a_file_a_list_and_the_text_of_a_list(folders, tmp_path):
    (tmp_path / "names").write_text("\n".join(NAMES) + "\n")
    prints = {
        target_of(folders["clip"], classes=classes).fingerprint()
        for classes in (CLASSES, " cat, dog,container ship ", str(tmp_path / "names"), NAMES, str(NAMES))
    }
    assert len(prints) == 1


def test_it_is_attacked_like_any_other(folders):
    target = target_of(folders["siglip"])
    rows = torch.rand(2, 1, 16, 16)  # grey images, as digits are
    result = bbox.attack(target, rows, target(rows).argmax(1), budget=20)
    assert 0 < result.queries.max() <= 20


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": None}, UsageError, "needs classes=cat,dog,ship, or classes=FILE"),
        ({"classes": "cat,,dog"}, UsageError, "class 1 of classes 'cat,,dog' has no name"),
        ({"classes": "cat"}, UsageError, "classes 'cat' names 1, expected at least two"),
        ({"classes": "gone.txt"}, InputError, "classes gone.txt: no such file"),
        ({"classes": 3}, UsageError, "classes is 3, expected names with commas"),
        ({"template": "a photo"}, UsageError, r"template 'a photo' has no \{\} for the class name"),
        ({"template": "{}|"}, UsageError, r"template '' has no \{\}"),
        ({"size": 3}, UsageError, "has no option 'size'; it takes classes, template"),
    ],
)
def test_refuses_options(folders, options, error, message):
    with pytest.raises(error, match=message) as caught:
        target_of(folders["clip"], **options)
    assert "\n" not in str(caught.value)


def test_refuses_folders(folders, tmp_path):
    from transformers import ViTConfig, ViTModel

    empty = tmp_path / "empty"
    empty.mkdir()
    tower = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTModel(ViTConfig(**tower, image_size=16, patch_size=8)).save_pretrained(tmp_path / "vit")
    bare = Path(save_clip(tmp_path / "bare"))
    (bare / "preprocessor_config.json").unlink()
    cut = Path(save_clip(tmp_path / "cut"))
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for folder, error, message in (
        (tmp_path / "gone", UsageError, "no such folder; expected a folder of save_pretrained, or a hub id"),
        (empty, InputError, "AutoModel cannot read that folder"),
        (tmp_path / "vit", InputError, "is a ViTModel without get_text_features, expected a CLIP or SigLIP model"),
        (bare, InputError, "AutoImageProcessor cannot read that folder"),
        (cut, InputError, "AutoModel cannot read that folder"),
    ):
        with pytest.raises(error, match=message) as caught:
            target_of(folder)
        assert "\n" not in str(caught.value)


def test_weights_that_a_file_lacks_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = Path(save_clip(tmp_path / "lacking"))
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights of the model, for example 'visual_projection\.weight'"):
        target_of(folder)


def test_a_hub_out_of_reach_is_one_line(monkeypatch, capfd):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"hub has no such model or cannot be reached from here \(no network\?\)") as e:
        target_of("no-such-owner/no-such-model")
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")


def test_loading_is_quiet_and_leaves_the_loggers_as_they_were(folders, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    target_of(folders["clip"])
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_transformers_is_imported_only_when_used():
    code = "import sys, bbox.targets.clip, bbox.defenses.blackvip.encoders; sys.exit('transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
