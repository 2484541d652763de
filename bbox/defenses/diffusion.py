"""A diffusion model as a one-shot denoiser.

Carlini et al., "(Certified!!) Adversarial Robustness for Free!" (ICLR 2023): an unconditional diffusion model that was
trained for generation denoises for certification, by one prediction of the clean image at the timestep whose noise is
that of the smoothing. No training, no query.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbox.errors import BboxError, InputError, UsageError

__all__ = ["DiffusionDenoiser"]


class DiffusionDenoiser:
    """``denoise(rows, sigma)`` by one step of a variance-preserving diffusion model over images in [-1, 1].

    Such a model sees sqrt(abar) x + sqrt(1 - abar) noise. Pixels in [0, 1] are half as wide as the model's, so noise of
    sigma is 2 sigma there, and the timestep is the one with (1 - abar) / abar nearest to (2 sigma)^2.

    Args:
        unet: a model called with (rows, timestep) that returns an object with ``sample``, (n, channels, ...); twice as
            many channels where it predicts a variance too, which is left out.
        alphas_cumprod: (timesteps,), abar of each timestep, falling.
        prediction_type: what the model predicts: ``epsilon``, ``v_prediction`` or ``sample``.

    Raises:
        UsageError: another prediction type; when called, a sigma beyond the model's noise levels.
    """

    def __init__(self, unet: Any, alphas_cumprod: Tensor, prediction_type: str = "epsilon") -> None:
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise UsageError(f"prediction type is {prediction_type!r}, expected epsilon, v_prediction or sample")
        self.unet = unet
        self.alphas_cumprod = alphas_cumprod.double().cpu()
        self.prediction_type = prediction_type

    def timestep(self, sigma: float) -> int:
        """The timestep whose noise is nearest to ``sigma``, given in units of pixels in [0, 1]."""
        levels = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()
        if 2 * sigma > float(levels[-1]):
            most = float(levels[-1]) / 2
            raise UsageError(f"sigma is {sigma:g}, the diffusion model knows noise up to {most:.3g} in [0, 1]")
        return int((levels.log() - math.log(2 * sigma)).abs().argmin())

    def __call__(self, rows: Tensor, sigma: float) -> Tensor:
        """The predicted clean images.

        Shapes:
            rows: (n, channels, height, width), pixels in [0, 1] plus noise of ``sigma``; returns the same, in [0, 1].
        """
        step = self.timestep(sigma)
        signal, noise = (math.sqrt(x) for x in (self.alphas_cumprod[step], 1 - self.alphas_cumprod[step]))
        seen = (2 * rows - 1) * signal
        predicted = self.unet(seen, step).sample[:, : rows.shape[1]]
        if self.prediction_type == "epsilon":
            predicted = (seen - noise * predicted) / signal
        elif self.prediction_type == "v_prediction":
            predicted = signal * seen - noise * predicted
        clean: Tensor = predicted.clamp(-1, 1).add(1).div(2)
        return clean

    @classmethod
    def load(cls, path: str, *, device: torch.device, shape: tuple[int, ...] | None = None) -> DiffusionDenoiser:
        """Load a folder that ``diffusers`` has saved: ``unet`` and ``scheduler``, weights in safetensors only.

        Args:
            shape: (channels, height, width) of the images, checked against the model's.

        Raises:
            UsageError: diffusers is not installed.
            InputError: the folder is not such a model, or does not fit.
        """
        spec = f"diffusers:{path}"
        for part in ("unet", "scheduler"):
            if not (Path(path) / part).is_dir():
                raise InputError(f"{spec}: no folder {part} there; expected what DDPMPipeline.save_pretrained writes")
        try:
            from diffusers import DDPMScheduler, UNet2DModel
        except ImportError as error:
            raise UsageError(f"{spec} needs the package diffusers: pip install 'bbox-toolkit[diffusion]'") from error
        try:
            # Only what lies in the folder, and never a pickle.
            unet = UNet2DModel.from_pretrained(
                path,
                subfolder="unet",
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
            )
            scheduler = DDPMScheduler.from_pretrained(path, subfolder="scheduler", local_files_only=True)
            known = DDPMScheduler.load_config(path, subfolder="scheduler", local_files_only=True)
            if "beta_schedule" not in known and known.get("trained_betas") is None:
                raise InputError(
                    f"{spec}: {known.get('_class_name')} has no betas; expected a DDPM-like noise schedule"
                )
            if unet.config.get("num_class_embeds") is not None or unet.config.get("class_embed_type") is not None:
                raise InputError(f"{spec} is conditional on a class; expected an unconditional model")
            if shape is not None:
                _check_shape(spec, unet.config, shape)
        except BboxError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:240]
            raise InputError(f"{spec} cannot be loaded: {reason}") from error
        unet = unet.to(device).eval().requires_grad_(False)
        return cls(unet, scheduler.alphas_cumprod, scheduler.config.prediction_type)


def _check_shape(spec: str, config: Any, shape: tuple[int, ...]) -> None:
    if config.in_channels != shape[0]:
        raise InputError(f"{spec} takes {config.in_channels} channels, the images have {shape[0]}")
    size = config.sample_size
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and tuple(sides) != tuple(shape[1:]):
        raise InputError(f"{spec} was trained on {sides[0]}x{sides[1]} pixels, the images have {shape[1]}x{shape[2]}")
