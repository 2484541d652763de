"""The one-shot diffusion denoiser: its arithmetic on a perfect model, and a real model on disk where diffusers is."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bbox.defenses.denoisers import load_denoiser
from bbox.defenses.diffusion import DiffusionDenoiser
from bbox.errors import InputError, UsageError

CPU = torch.device("cpu")
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ABAR = (1 - BETAS).cumprod(0)
CLEAN = torch.linspace(0, 1, 2 * 64).view(2, 1, 8, 8)


class Oracle:
    """Knows the clean images, and predicts exactly what a model of its kind should."""

    def __init__(self, kind: str, extra_channels: int = 0) -> None:
        self.kind, self.extra = kind, extra_channels
        self.asked: list[tuple[Tensor, int]] = []

    def __call__(self, seen: Tensor, step: int) -> Any:
        self.asked.append((seen, step))
        signal, noise = math.sqrt(ABAR[step]), math.sqrt(1 - ABAR[step])
        clean = 2 * CLEAN - 1
        epsilon = (seen - signal * clean) / noise
        answer = {"epsilon": epsilon, "sample": clean, "v_prediction": signal * epsilon - noise * clean}[self.kind]
        return SimpleNamespace(sample=torch.cat([answer] + [torch.full_like(answer, 9.0)] * self.extra, 1))


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("sigma", [0.1, 0.25, 1.0])
def test_a_perfect_model_gives_the_clean_image_back(kind: str, sigma: float) -> None:
    model = Oracle(kind, extra_channels=1)
    noise = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(0))
    found = DiffusionDenoiser(model, ABAR, kind)(CLEAN + sigma * noise, sigma)
    assert torch.allclose(found, CLEAN, atol=1e-4)
    # What the model is shown has the mixture of signal and noise that this timestep has: noise of unit variance.
    seen, step = model.asked[0]
    signal = math.sqrt(ABAR[step])
    shown = (seen - signal * (2 * CLEAN - 1)) / math.sqrt(1 - ABAR[step])
    assert torch.allclose(shown, noise, rtol=0.02, atol=0.01)


def test_timestep_matches_twice_sigma() -> None:
    denoiser = DiffusionDenoiser(None, ABAR)
    steps = [denoiser.timestep(s) for s in (0.001, 0.25, 0.5, 1.0)]
    assert steps == sorted(steps) and steps[0] == 0
    level = math.sqrt((1 - ABAR[steps[1]]) / ABAR[steps[1]])
    assert level == pytest.approx(0.5, rel=0.01), "pixels in [0, 1] are half as wide as the model's"
    with pytest.raises(UsageError, match="knows noise up to"):
        denoiser.timestep(100.0)
    with pytest.raises(UsageError, match="expected epsilon"):
        DiffusionDenoiser(None, ABAR, "score")


def save_tiny(path: Path, **options: Any) -> Any:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "norm_num_groups": 4}
    unet = diffusers.UNet2DModel(layers_per_block=1, **blocks, **{**sizes, **options})
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    diffusers.DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(path)
    return unet


def test_a_model_on_disk(tmp_path: Path) -> None:
    unet = save_tiny(tmp_path)
    denoise, digest = load_denoiser(f"diffusers:{tmp_path}", device=CPU, shape=(1, 8, 8))
    assert torch.allclose(denoise.alphas_cumprod, ABAR, atol=1e-5)  # type: ignore[attr-defined]
    with torch.no_grad():
        rows = CLEAN + 0.25
        expected = DiffusionDenoiser(unet.eval(), ABAR)(rows, 0.25)
        assert torch.allclose(denoise(rows, 0.25), expected, atol=1e-4) and float(expected.std()) > 0.1
    assert digest == load_denoiser(f"diffusers:{tmp_path}", device=CPU)[1]
    for shape, says in (((3, 8, 8), "1 channels, the images have 3"), ((1, 9, 9), "8x8 pixels")):
        with pytest.raises(InputError, match=says):
            load_denoiser(f"diffusers:{tmp_path}", device=CPU, shape=shape)


def test_models_that_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "classes", num_class_embeds=10)
    with pytest.raises(InputError, match="conditional on a class"):
        load_denoiser(f"diffusers:{tmp_path / 'classes'}", device=CPU)
    save_tiny(tmp_path / "pickle")
    weights = tmp_path / "pickle" / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_denoiser(f"diffusers:{tmp_path / 'pickle'}", device=CPU)
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder unet"):
        load_denoiser(f"diffusers:{tmp_path}", device=CPU)


def test_without_diffusers_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError, match=r"bbox-toolkit\[diffusion\]"):
        load_denoiser(f"diffusers:{tmp_path}", device=CPU)


MODULE = """
import torch
from torch import nn

class Halves(nn.Module):
    def forward(self, rows):
        return rows / 2

class Shrinks(nn.Module):
    def forward(self, rows, sigma):
        return rows / (1 + sigma)

def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))

def function(rows, sigma):
    return rows - sigma

number = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "denoisers_here.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "denoisers_here", raising=False)


@pytest.mark.usefixtures("project")
def test_denoisers_of_the_users_own() -> None:
    rows = torch.ones(2, 1, 2, 2)
    for spec, value in (("torch:Halves", 0.5), ("torch:Shrinks", 0.8), ("python:function", 0.75)):
        kind, name = spec.split(":")
        denoise, _ = load_denoiser(f"{kind}:denoisers_here:{name}", device=CPU)
        assert torch.allclose(denoise(rows, 0.25), rows * value)
    trained, digest = load_denoiser("torch:denoisers_here:linear", device=CPU)
    assert digest == load_denoiser("torch:denoisers_here:linear", device=CPU)[1]
    assert digest != load_denoiser("torch:denoisers_here:Halves", device=CPU)[1]
    before = trained(rows, 0.1)
    assert torch.equal(trained(rows, 0.1), before) and not before.requires_grad, "eval mode, frozen"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("spec", "kind", "says"),
    [
        ("onnx:model", UsageError, "expected torch:MODULE:FACTORY"),
        ("torhc:a:b", UsageError, "did you mean 'torch'"),
        ("torch:", UsageError, "expected torch"),
        ("torch:denoisers_here:Halve", UsageError, "did you mean 'Halves'"),
        ("torch:denoisers_here:number", InputError, "gives a int"),
        ("python:denoisers_here:number", InputError, "expected a function"),
    ],
)
def test_denoisers_that_are_none(spec: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        load_denoiser(spec, device=CPU)
