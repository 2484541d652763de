"""Three digit networks that others trained: those of the package ccexam (MIT), on MNIST, USPS and SVHN.

They are victims whose training this project had no hand in. Each is the package's own class and weights; the
normalisation of ``ccexam.constants`` happens inside the module, so images in [0, 1] go in. Each loader raises
UsageError where ccexam is not installed.
"""

from __future__ import annotations

from importlib import import_module, resources

import torch
from torch import Tensor, nn

from bbox.errors import UsageError

__all__ = ["NormalisedNet", "load_ccexam_mnist", "load_ccexam_svhn", "load_ccexam_usps"]


class NormalisedNet(nn.Module):
    """A network behind its normalisation.

    Args:
        network: takes normalised rows.
        mean, std: one number a channel, for pixels in [0, 1].

    Shapes:
        rows: (n, channels, height, width) float32 in [0, 1].
        returns: (n, num_classes) logits.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.network((rows - self.mean) / self.std)
        return logits


def load_ccexam_mnist() -> nn.Module:
    """Two convolutions and two linear layers, 421,642 parameters, on (n, 1, 28, 28)."""
    return _load("mnist", "MNISTNet")


def load_ccexam_usps() -> nn.Module:
    """The same with batch normalisation, 151,498 parameters, on (n, 1, 16, 16)."""
    return _load("usps", "USPSNet")


def load_ccexam_svhn() -> nn.Module:
    """Six convolutions and two linear layers, 815,018 parameters, on (n, 3, 32, 32)."""
    return _load("svhn", "SVHNNet")


def _load(name: str, network_class: str) -> nn.Module:
    """A network of ccexam, frozen, in evaluation mode, on the CPU.

    Raises:
        UsageError: ccexam is not installed.
    """
    try:
        models, constants = import_module("ccexam.models"), import_module("ccexam.constants")
    except ImportError as error:
        raise UsageError(f"zoo:ccexam-{name} needs the package ccexam: pip install 'bbox-toolkit[demo]'") from error
    stats = constants.DATASET_STATS[name]
    # On the meta device nothing is initialised, so the caller's global random state stays as it was.
    with torch.device("meta"):
        network = getattr(models, network_class)(input_size=stats["image_size"])
    with resources.files("ccexam").joinpath("weights", f"{name}.pth").open("rb") as file:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), assign=True)
    return NormalisedNet(network, stats["mean"], stats["std"]).eval().requires_grad_(False)
